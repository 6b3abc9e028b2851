"""Synthetic events with planted intents, from a model whose Bayes ranker is known exactly.

Every user has a type, every type stable interests. A session opens with an intent drawn from the
interests and then follows a Markov chain over intents; each event shows an item of the current
intent that the user has not had yet or, now and then, an accidental one. `docs/synthetic.md`
writes the model down; `datamodules.oracle` ranks by its exact posterior.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic_texts import write_item_texts, write_user_texts
from datamodules.synthetic_world import Floats, Ints, SyntheticConfig, World, draw_world
from datamodules.types import PAD

Flags = NDArray[np.bool_]

ACTIONS = ("view", "cart", "buy")
"""Names of the action codes; an accidental click is always a view, code 0."""

SESSION_GAP = 1800
"""Seconds. Pauses within a session are shorter, pauses between sessions longer."""

_FIRST_DAY = 1_704_067_200  # 2024-01-01 00:00 UTC
_DAY = 86_400


@dataclass(frozen=True)
class Synthetic:
    """Generated events, flat, user by user, oldest first, and the truth behind them.

    Attributes:
        world: the parameters of the model.
        offsets: (N + 1,) user u owns events `offsets[u]:offsets[u + 1]`.
        items: (E,) 1..V.
        timestamps: (E,) seconds, strictly growing within a user.
        actions: (E,) codes into `ACTIONS`.
        intents: (E,) the planted intent; an accidental click leaves it as it is.
        accidental: (E,) whether the click was accidental.
        user_types: (N,) the type of each user.
        item_texts: a sentence an item, position v - 1.
        user_texts: a sentence a user.
    """

    world: World
    offsets: Ints
    items: Ints
    timestamps: Ints
    actions: Ints
    intents: Ints
    accidental: Flags
    user_types: Ints
    item_texts: list[str]
    user_texts: list[str]

    @property
    def truth(self) -> dict[str, NDArray[np.generic]]:
        """What was planted, by name.

        Returns:
            `intent` (E,), `accidental` (E,), `user_type` (N,), `user_interest` (N, K) and
            `item_intent` (V + 1,), indexed by item, -1 for `PAD`.
        """
        return {
            "intent": self.intents,
            "accidental": self.accidental,
            "user_type": self.user_types,
            "user_interest": self.world.interests[self.user_types],
            "item_intent": self.world.item_intent,
        }


def generate(config: SyntheticConfig, seed: int) -> Synthetic:
    """Draw a world, its events and its texts; the same arguments give the same data.

    The three have random streams of their own, so that a dial of the texts changes no event.
    """
    world_rng, event_rng, text_rng = np.random.default_rng(seed).spawn(3)
    world = draw_world(config, world_rng)
    shape = (config.n_users, config.max_events)
    extra = event_rng.geometric(1 / (config.mean_events - config.min_events + 1), config.n_users)
    lengths = np.minimum(config.min_events - 1 + extra, config.max_events)
    kept = np.arange(config.max_events) < lengths[:, None]
    types = event_rng.integers(config.n_types, size=config.n_users)
    opens = event_rng.random(shape) < config.new_session
    opens[:, 0] = True
    accidental = event_rng.random(shape) < config.accidental_clicks
    intents = _draw_intents(world, types, opens, event_rng)
    actions = _draw(world.action_shares[intents], event_rng)
    actions[accidental] = 0
    items = _draw_items(world, intents, accidental, lengths, event_rng)
    timestamps = _draw_timestamps(opens, event_rng)

    offsets = np.concatenate([[0], np.cumsum(lengths)])
    wording = (config.n_intents, config.uninformative_texts, text_rng)
    return Synthetic(
        world=world,
        offsets=offsets,
        items=items[kept],
        timestamps=timestamps[kept],
        actions=actions[kept],
        intents=intents[kept],
        accidental=accidental[kept],
        user_types=types,
        item_texts=write_item_texts(world.item_intent[1:], *wording),
        user_texts=write_user_texts(world.item_intent[items[kept]], offsets, *wording),
    )


def _draw_intents(world: World, types: Ints, opens: Flags, rng: np.random.Generator) -> Ints:
    """The intent of each event, (N, L): the chain within a session, interests at its start."""
    intents = np.zeros(opens.shape, dtype=np.int64)
    for step in range(opens.shape[1]):
        following = world.next_intents(intents[:, step - 1], types)  # step 0 opens a session
        shares = np.where(opens[:, step, None], world.interests[types], following)
        intents[:, step] = _draw(shares, rng)
    return intents


def _draw_items(
    world: World, intents: Ints, accidental: Flags, lengths: Ints, rng: np.random.Generator
) -> Ints:
    """An item for each event, (N, L); none twice for a user, `PAD` after the user's last."""
    n_users, n_steps = intents.shape
    items = np.full((n_users, n_steps), PAD)
    last = np.full(n_users, PAD)
    unseen = np.ones((n_users, len(world.item_intent)))
    unseen[:, PAD] = 0
    for step in range(n_steps):
        users = np.flatnonzero(lengths > step)
        weights = world.weights[intents[users, step]]
        weights[np.arange(len(users))[:, None], world.followers[last[users]]] *= (
            1 + world.config.follow_boost
        )
        weights[accidental[users, step]] = 1
        drawn = _draw(weights * unseen[users], rng)
        unseen[users, drawn] = 0
        items[users, step] = last[users] = drawn
    return items


def _draw_timestamps(opens: Flags, rng: np.random.Generator) -> Ints:
    """Seconds, (N, L): pauses of 5 s to 10 min within sessions, of 1 h or more between them."""
    start = _FIRST_DAY + rng.integers(180 * _DAY, size=(len(opens), 1))
    within = rng.integers(5, 600, size=opens.shape)
    between = 2 * SESSION_GAP + rng.exponential(_DAY, size=opens.shape).astype(np.int64)
    return np.asarray(start + np.cumsum(np.where(opens, between, within), axis=1))


def _draw(weights: Floats, rng: np.random.Generator) -> Ints:
    """One index for each row of the last axis, with probability in proportion to its weight."""
    sums = np.cumsum(weights, axis=-1)
    points = rng.random((*weights.shape[:-1], 1)) * sums[..., -1:]
    # the product may round up to the sum itself; what lies just below is always a valid point
    points = np.minimum(points, np.nextafter(sums[..., -1:], 0))
    return np.asarray((sums <= points).sum(axis=-1))
