"""The Bayes-best ranker of synthetic data: the ceiling that no method can pass.

It knows the parameters of the generator (`World`) and, of a user, every event before the target:
items, actions and where sessions begin. It knows neither the type of the user nor any intent, nor
which clicks were accidental: those are summed out exactly, by the forward algorithm of a hidden
Markov model (Rabiner, 1989, eq. 19-20) whose state is the pair (type, intent). Ranking by the
predictive distribution maximises the expected HR@k, NDCG@k and MRR at once, for each of them is a
falling function of the rank of a single target.
"""

from dataclasses import dataclass

import numpy as np

from datamodules.errors import RequestError
from datamodules.prepared import TEST, PreparedDataset
from datamodules.rows import evaluation_queries
from datamodules.synthetic import SESSION_GAP, Flags, Synthetic, generate
from datamodules.synthetic_world import Floats, Ints, World, parse_options
from datamodules.types import PAD

_BLOCK = 2048  # users at a time: bounds memory to a few (block, V) arrays


@dataclass
class Belief:
    """What the oracle believes about B users after the events it has observed.

    Attributes:
        world: the parameters.
        state: (B, T, K) probability of each type and of each intent at the last event.
        last: (B,) the last item, `PAD` before the first event.
        unseen: (B, V + 1) whether an item can still occur; False for `PAD`.
    """

    world: World
    state: Floats
    last: Ints
    unseen: Flags

    def first(self, count: int) -> "Belief":
        """The belief about the first `count` users."""
        return Belief(self.world, self.state[:count], self.last[:count], self.unseen[:count])

    @classmethod
    def before_any_event(cls, world: World, n_users: int) -> "Belief":
        """Types equally likely, no item seen. The intents do not matter until the first event."""
        n_types, n_intents = world.interests.shape
        unseen = np.ones((n_users, len(world.item_intent)), dtype=np.bool_)
        unseen[:, PAD] = False
        state = np.full((n_users, n_types, n_intents), 1 / (n_types * n_intents))
        return cls(world, state, np.full(n_users, PAD), unseen)

    def next_items(self) -> Floats:
        """(B, V + 1) probability that an item comes next; whether a session opens is unknown."""
        opens = np.where(self.last == PAD, 1.0, self.world.config.new_session)
        intents = self._predict(opens).sum(axis=1)
        accidental = self.world.config.accidental_clicks
        shares = (intents / self._available()) @ self.world.weights
        rows = np.arange(len(shares))[:, None]
        shares[rows, self.world.followers[self.last]] *= 1 + self.world.config.follow_boost
        uniform = 1 / self.unseen.sum(axis=1, keepdims=True)
        return np.asarray(self.unseen * ((1 - accidental) * shares + accidental * uniform))

    def observe(self, items: Ints, actions: Ints, opens: Flags) -> None:
        """Take in one event of each user.

        Args:
            items: (B,) 1..V, none seen before.
            actions: (B,) codes into `ACTIONS`.
            opens: (B,) whether the event opens a session.
        """
        world, accidental = self.world, self.world.config.accidental_clicks
        follows = (world.followers[self.last] == items[:, None]).any(axis=1)
        boost = 1 + world.config.follow_boost * follows
        on_purpose = world.weights[:, items].T * boost[:, None] / self._available()
        on_purpose *= world.action_shares[:, actions].T
        by_accident = (actions == 0) / self.unseen.sum(axis=1)
        likelihood = (1 - accidental) * on_purpose + accidental * by_accident[:, None]
        state = self._predict(opens.astype(np.float64)) * likelihood[:, None, :]
        self.state = state / state.sum(axis=(1, 2), keepdims=True)
        self.unseen[np.arange(len(items)), items] = False
        self.last = items

    def _predict(self, opens: Floats) -> Floats:
        """(B, T, K) state at the next event; (B,) `opens`: probability that it opens a session."""
        world, erratic = self.world, self.world.config.erratic_intents
        types = self.state.sum(axis=2, keepdims=True)
        drawn_afresh = types * world.interests
        within = (1 - erratic) * (self.state @ world.chain) + erratic * drawn_afresh
        weight = opens[:, None, None]
        return np.asarray(weight * drawn_afresh + (1 - weight) * within)

    def _available(self) -> Floats:
        """(B, K) weight, boosts included, of the items that an intent can still show."""
        followers = self.world.followers[self.last]  # (B, F)
        free = np.take_along_axis(self.unseen, followers, axis=1)
        boosted = np.einsum("bf,kbf->bk", free, self.world.weights[:, followers])
        plain = self.unseen @ self.world.weights.T
        return np.asarray(plain + self.world.config.follow_boost * boosted)


def oracle_ranks(dataset: PreparedDataset, split: int = TEST) -> tuple[Ints, Ints, Ints]:
    """Rank of every target of a split, as the Bayes-best ranker gives it.

    The events are generated again from the options and the seed in the dataset's recipe, and
    compared with the dataset, whatever numbers preparation gave to users and items.

    Args:
        dataset: prepared from the "synthetic" reader, with every event kept.
        split: `TEST` or `VALID`.

    Returns:
        users, keys (index of the target within the user's events) and ranks, 1 the best, each
        (targets,) int64, ordered by user, then key. Ties count half, as everywhere.

    Raises:
        RequestError: the dataset is not synthetic, lacks generated events, or its split hides
            events before the target, so that its history is not the whole past.
    """
    events = _generate_again(dataset)
    index = _locate_events(dataset, events)
    queries = evaluation_queries(
        dataset.offsets.numpy(), dataset.split.numpy(), split, dataset.meta.history
    )
    if (queries.stop != queries.target).any():
        raise RequestError(
            f"{dataset.meta.name}: the oracle needs every event before a target as its history; "
            "prepare it with split leave_one_out"
        )
    targets = index[queries.target]
    is_target = np.zeros(len(events.items), dtype=np.bool_)
    is_target[targets] = True
    candidates = np.zeros(len(events.world.item_intent), dtype=np.bool_)
    candidates[events.items[index]] = True
    ranks = rank_events(events, is_target, candidates)
    keys = queries.target - dataset.offsets.numpy()[queries.users]
    return queries.users, keys, ranks[targets]


def rank_events(events: Synthetic, is_target: Flags, candidates: Flags) -> Ints:
    """The oracle's rank of generated events, each given all events before it.

    Args:
        events: generated data.
        is_target: (E,) which events to rank.
        candidates: (V + 1,) which items take part; those that a user had are left out besides.

    Returns:
        (E,) ranks, 0 where `is_target` is False.
    """
    ranks = np.zeros(len(events.items), dtype=np.int64)
    first = events.offsets[:-1]
    opens = np.diff(events.timestamps, prepend=events.timestamps[0]) > SESSION_GAP
    opens[first] = True
    lengths = np.diff(events.offsets)
    longest_first = np.argsort(-lengths, kind="stable")
    for block in range(0, len(lengths), _BLOCK):
        users = longest_first[block : block + _BLOCK]
        belief = Belief.before_any_event(events.world, len(users))
        for step in range(lengths[users[0]]):
            users = users[lengths[users] > step]
            belief = belief.first(len(users))
            now = first[users] + step
            if (asked := is_target[now]).any():
                scores = belief.next_items()[asked]
                allowed = belief.unseen[asked] & candidates
                ranks[now[asked]] = _ranks(scores, events.items[now[asked]], allowed)
            belief.observe(events.items[now], events.actions[now], opens[now])
    return ranks


def _ranks(scores: Floats, targets: Ints, candidates: Flags) -> Ints:
    """1 + #(score greater) + #(equal, others) / 2, rounded up, among (B, V + 1) candidates."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    greater = (candidates & (scores > own)).sum(axis=1)
    equal = (candidates & (scores == own)).sum(axis=1) - 1
    return np.asarray(1 + greater + (equal + 1) // 2)


def _generate_again(dataset: PreparedDataset) -> Synthetic:
    """The data from the reader's options, which preparation keeps in the recipe."""
    recipe = dataset.meta.recipe
    if recipe.get("reader") != "synthetic":
        raise RequestError(f"{dataset.meta.name}: only synthetic data has an oracle")
    return generate(*parse_options(recipe["options"]))


def _locate_events(dataset: PreparedDataset, events: Synthetic) -> Ints:
    """Where each event of the dataset stands among the generated ones, (E,).

    Preparation gives users and items numbers of its own; the original ids lead back.
    """
    offsets, timestamps = dataset.offsets.numpy(), dataset.timestamps
    users = np.array(dataset.original_ids("users"), dtype=np.int64)
    items = np.array(dataset.original_ids("items"), dtype=np.int64)[dataset.items.numpy() - 1]
    counts = np.diff(events.offsets)[users]
    if np.array_equal(counts, np.diff(offsets)) and timestamps is not None:
        index = np.repeat(events.offsets[users] - offsets[:-1], counts) + np.arange(len(items))
        same_items = np.array_equal(items, events.items[index])
        if same_items and np.array_equal(timestamps.numpy(), events.timestamps[index]):
            return index
    raise RequestError(
        f"{dataset.meta.name}: events are not those that its options generate; the oracle needs "
        "every event, in order: prepare it without filters, in an empty cache"
    )
