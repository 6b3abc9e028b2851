"""The dials and the parameters of the model behind synthetic data (`docs/synthetic.md`)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.synthetic_texts import TOPICS
from datamodules.types import PAD

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SyntheticConfig:
    """Every dial of the generator. The last four break the planted structure, at 1 completely.

    Attributes:
        n_users: N.
        n_items: V; items 1..V, dealt evenly over the intents. Some may never occur.
        n_intents: K, 2 to 16.
        n_types: T, kinds of users, equally likely.
        intents_per_type: how many intents a type is interested in.
        min_events: the fewest events of a user, at least 5.
        mean_events: events a user on average, before the cut at `max_events`.
        max_events: the most events of a user; below `n_items`, for no item repeats.
        new_session: probability that an event opens a session.
        stickiness: probability that the chain stays with an intent from one event to the next.
        zipf: exponent of popularity among the items of an intent.
        overlap: share of clicks on generally popular items, whatever the intent; above 0, so that
            no intent runs out of items.
        n_followers: items that tend to come right after an item, all of its intent.
        follow_boost: how much weight a follower of the last item gains, 0 for none.
        unstable_interest: share of a type's interests replaced by those of the average type.
        erratic_intents: probability that an intent within a session is drawn afresh from the
            user's interests rather than by the chain.
        accidental_clicks: share of clicks on uniformly random items.
        uninformative_texts: probability that a word of a text is about a random intent.

    Raises:
        RequestError: a value has the wrong type or is out of its range.
    """

    n_users: int = 1200
    n_items: int = 400
    n_intents: int = 16
    n_types: int = 16
    intents_per_type: int = 2
    min_events: int = 5
    mean_events: float = 18.0
    max_events: int = 50
    new_session: float = 0.2
    stickiness: float = 0.8
    zipf: float = 1.2
    overlap: float = 0.2
    n_followers: int = 3
    follow_boost: float = 10.0
    unstable_interest: float = 0.0
    erratic_intents: float = 0.0
    accidental_clicks: float = 0.1
    uninformative_texts: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that no model can be built from."""
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type is int
            if type(value) is not int and (whole or type(value) is not float):
                kind = "a whole number" if whole else "a number"
                raise RequestError(f"synthetic data: {field.name} must be {kind}, not {value!r}")
        limits: dict[str, tuple[float, float]] = {
            "n_users": (1, inf),
            "n_intents": (2, len(TOPICS)),
            "n_types": (1, inf),
            "intents_per_type": (1, self.n_intents),
            "min_events": (5, inf),
            "mean_events": (self.min_events, inf),
            "max_events": (self.min_events, self.n_items - 1),
            "zipf": (0, inf),
            "overlap": (1e-3, 1),
            "n_followers": (1, self.n_items // self.n_intents - 1),
            "follow_boost": (0, inf),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = limits.get(field.name, (0, 1 if field.type is float else inf))
            if not low <= value <= high or value == inf:
                bounds = f"from {low} to {high}" if high < inf else f"{low} or more"
                raise RequestError(f"synthetic data: {field.name} must be {bounds}, not {value}")


@dataclass(frozen=True)
class World:
    """The parameters of the model: what the Bayes ranker knows besides a user's events.

    Attributes:
        config: the dials that it was drawn with.
        interests: (T, K), a type's distribution over the intent that opens a session.
        chain: (K, K), row z is the distribution of the intent after z in a session.
        item_intent: (V + 1,) the intent that an item belongs to, -1 for `PAD`.
        weights: (K, V + 1), row z is the distribution over items under intent z before items are
            excluded or boosted; 0 for `PAD`.
        followers: (V + 1, F), what tends to come right after an item; `PAD` after `PAD`.
        action_shares: (K, A), row z is the distribution of the action under intent z.
    """

    config: SyntheticConfig
    interests: Floats
    chain: Floats
    item_intent: Ints
    weights: Floats
    followers: Ints
    action_shares: Floats

    def next_intents(self, intents: Ints, types: Ints) -> Floats:
        """Distribution of the next intent of the session, given (B,) intents and types: (B, K)."""
        erratic = self.config.erratic_intents
        return (1 - erratic) * self.chain[intents] + erratic * self.interests[types]


def parse_options(options: Mapping[str, Any]) -> tuple[SyntheticConfig, int]:
    """Config and seed from the options of a catalogue entry: `seed` and dials by name.

    Raises:
        RequestError: an option is unknown, or its value is refused.
    """
    dials = dict(options)
    seed = dials.pop("seed", 0)
    if type(seed) is not int or seed < 0:
        raise RequestError(f"synthetic data: seed must be a whole number from 0 on, not {seed!r}")
    known = [field.name for field in fields(SyntheticConfig)]
    for name in dials:
        if name not in known:
            close = get_close_matches(name, known, n=1) or known
            raise RequestError(
                f"synthetic data: unknown option {name!r}; did you mean: {', '.join(close)}"
            )
    return SyntheticConfig(**dials), seed


def draw_world(config: SyntheticConfig, rng: np.random.Generator) -> World:
    """Draw the parameters; the dials of the events and texts do not change the draws."""
    n_intents, n_items = config.n_intents, config.n_items
    interests = np.zeros((config.n_types, n_intents))
    for row in interests:
        liked = rng.choice(n_intents, config.intents_per_type, replace=False)
        row[liked] = rng.dirichlet(np.full(config.intents_per_type, 2.0))
    unstable = config.unstable_interest
    interests = (1 - unstable) * interests + unstable * interests.mean(0)

    # a small concentration: from an intent the chain leads to one or two others, mostly
    moves = rng.dirichlet(np.full(n_intents, 0.2), n_intents) + 1e-3
    np.fill_diagonal(moves, 0.0)
    moves /= moves.sum(1, keepdims=True)
    chain = config.stickiness * np.eye(n_intents) + (1 - config.stickiness) * moves

    item_intent = np.full(n_items + 1, -1)
    by_popularity = rng.permutation(n_items) + 1
    item_intent[by_popularity] = np.arange(n_items) % n_intents
    general, own = np.zeros(n_items + 1), np.zeros((n_intents, n_items + 1))
    general[by_popularity] = np.arange(1.0, n_items + 1) ** -config.zipf
    followers = np.full((n_items + 1, config.n_followers), PAD)
    for intent in range(n_intents):
        members = by_popularity[intent::n_intents]
        own[intent, members] = np.arange(1.0, len(members) + 1) ** -config.zipf
        ring = rng.permutation(members)
        for step in range(config.n_followers):
            followers[ring, step] = np.roll(ring, -1 - step)
    own /= own.sum(1, keepdims=True)
    weights = (1 - config.overlap) * own + config.overlap * general / general.sum()
    action_shares = rng.dirichlet([6.0, 2.0, 1.0], n_intents)
    return World(config, interests, chain, item_intent, weights, followers, action_shares)
