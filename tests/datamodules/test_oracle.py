from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.oracle import Belief, oracle_ranks, rank_events
from datamodules.prepared import (
    TEST,
    TRAIN,
    VALID,
    Meta,
    PreparedDataset,
    load_prepared,
    write_prepared,
)
from datamodules.synthetic import SESSION_GAP, Synthetic, generate
from datamodules.synthetic_world import SyntheticConfig, World
from datamodules.types import PAD

Floats = NDArray[np.float64]

TINY = SyntheticConfig(
    n_users=6,
    n_items=8,
    n_intents=2,
    n_types=2,
    intents_per_type=2,
    mean_events=5.0,
    max_events=5,
    new_session=0.3,
    overlap=0.2,
    n_followers=2,
    follow_boost=4.0,
    unstable_interest=0.2,
    erratic_intents=0.3,
    accidental_clicks=0.25,
)

MANY = SyntheticConfig(
    n_users=8_000,
    n_items=60,
    n_intents=4,
    n_types=5,
    intents_per_type=2,
    mean_events=8.0,
    min_events=8,
    max_events=8,
    accidental_clicks=0.15,
    overlap=0.2,
)
"""Every user has eight events, so that the last ones make one large independent sample."""


def events_of(data: Synthetic, user: int) -> tuple[list[int], list[int], list[bool]]:
    own = slice(data.offsets[user], data.offsets[user + 1])
    times = data.timestamps[own]
    opens = [True, *(np.diff(times) > SESSION_GAP).tolist()]
    return data.items[own].tolist(), data.actions[own].tolist(), opens


def item_distribution(world: World, intent: int, accidental: bool, before: list[int]) -> Floats:
    """What the page says, item by item."""
    shares = np.zeros(len(world.item_intent))
    for item in range(1, len(shares)):
        if item in before:
            continue
        follows = bool(before) and item in world.followers[before[-1]]
        boosted = world.weights[intent, item] * (1 + world.config.follow_boost * follows)
        shares[item] = 1.0 if accidental else boosted
    return np.asarray(shares / shares.sum())


def next_items_by_enumeration(
    world: World, items: list[int], actions: list[int], opens: list[bool]
) -> Floats:
    """Sum over every type, every path of intents, every pattern of accidents: exponential."""
    config, length = world.config, len(items)
    total = np.zeros(len(world.item_intent))
    for user_type, path, accidents, last_opens in product(
        range(config.n_types),
        product(range(config.n_intents), repeat=length + 1),
        product((False, True), repeat=length + 1),
        (False, True),
    ):
        if length == 0 and not last_opens:
            continue
        p = 1.0
        if length:
            p *= config.new_session if last_opens else 1 - config.new_session
        for step, (intent, accident) in enumerate(zip(path, accidents, strict=True)):
            first = last_opens if step == length else opens[step]
            interest = world.interests[user_type, intent]
            if first:
                p *= interest
            else:
                chained = world.chain[path[step - 1], intent]
                p *= (1 - config.erratic_intents) * chained + config.erratic_intents * interest
            p *= config.accidental_clicks if accident else 1 - config.accidental_clicks
            if step < length:
                action = actions[step]
                p *= float(action == 0) if accident else world.action_shares[intent, action]
                p *= item_distribution(world, intent, accident, items[:step])[items[step]]
        if p:
            total += p * item_distribution(world, path[-1], accidents[-1], items)
    return np.asarray(total / total.sum())


def scores_after(data: Synthetic, world: World, steps: int, *, sessions: bool = True) -> Floats:
    """(N, V + 1) predictions after `steps` events, of data in which all users have as many."""
    shape = (len(data.user_types), -1)
    items, actions = data.items.reshape(shape), data.actions.reshape(shape)
    opens = np.diff(data.timestamps.reshape(shape), prepend=0) > SESSION_GAP
    belief = Belief.before_any_event(world, len(items))
    for step in range(steps):
        first = opens[:, step] if sessions else np.full(len(items), step == 0)
        belief.observe(items[:, step], actions[:, step], first)
    return belief.next_items()


@pytest.mark.parametrize(("length", "seed"), [(0, 0), (1, 0), (2, 0), (2, 1), (3, 1), (4, 0)])
def test_predictions_equal_enumeration(length: int, seed: int) -> None:
    data = generate(TINY, seed)
    found = scores_after(data, data.world, length)
    for user in range(1 if length > 2 else TINY.n_users):
        items, actions, opens = events_of(data, user)
        expected = next_items_by_enumeration(
            data.world, items[:length], actions[:length], opens[:length]
        )
        np.testing.assert_allclose(found[user], expected, rtol=0, atol=1e-12)


def test_ranks_follow_the_enumerated_predictions() -> None:
    data = generate(replace(TINY, mean_events=6.0, max_events=7, n_users=20), 3)
    is_target = np.zeros(len(data.items), dtype=np.bool_)
    is_target[data.offsets[:-1] + 3] = True
    candidates = np.ones(TINY.n_items + 1, dtype=np.bool_)
    ranks = rank_events(data, is_target, candidates)
    assert (ranks[~is_target] == 0).all()
    for user in range(3):
        items, actions, opens = events_of(data, user)
        scores = next_items_by_enumeration(data.world, items[:3], actions[:3], opens[:3])
        rivals = [v for v in range(1, len(scores)) if v not in items[:3]]
        better = sum(scores[v] > scores[items[3]] + 1e-12 for v in rivals)
        assert ranks[data.offsets[user] + 3] == 1 + better


def test_predictions_are_distributions_over_unseen_items() -> None:
    data = generate(MANY, 0)
    scores = scores_after(data, data.world, 7)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-12)
    seen = data.items.reshape(-1, 8)[:, :7]
    assert (np.take_along_axis(scores, seen, 1) == 0).all()
    assert (scores[:, PAD] == 0).all()


def test_predictions_are_calibrated() -> None:
    data = generate(MANY, 1)
    scores = scores_after(data, data.world, 7)
    targets = data.items.reshape(-1, 8)[:, 7]
    happened = np.arange(MANY.n_items + 1) == targets[:, None]
    edges = np.quantile(scores[scores > 0], np.linspace(0, 1, 21))
    bins = np.digitize(scores, edges[1:-1])
    for number in range(20):
        inside = (bins == number) & (scores > 0)
        expected, spread = scores[inside].sum(), np.sqrt((scores * (1 - scores))[inside].sum())
        assert abs(happened[inside].sum() - expected) < 4 * spread

    logs = np.log(np.where(scores > 0, scores, 1))
    surprise = np.take_along_axis(logs, targets[:, None], 1)[:, 0] - (scores * logs).sum(1)
    assert abs(surprise.mean()) < 4 * surprise.std() / np.sqrt(len(surprise))


def ndcg_at_10(scores: Floats, targets: NDArray[np.int64]) -> Floats:
    own = np.take_along_axis(scores, targets[:, None], 1)
    rank = 1 + (scores > own).sum(1)
    return np.where(rank <= 10, 1 / np.log2(1 + rank), 0)


def test_no_other_ranker_passes_the_oracle() -> None:
    data = generate(MANY, 2)
    world, rng = data.world, np.random.default_rng(0)
    targets = data.items.reshape(-1, 8)[:, 7]
    scores = scores_after(data, world, 7)
    forgetful = replace(world, chain=np.tile(world.interests.mean(0), (MANY.n_intents, 1)))
    impersonal = replace(world, interests=np.tile(world.interests.mean(0), (MANY.n_types, 1)))
    trusting = replace(world, config=replace(MANY, accidental_clicks=0.001))
    others = {
        "slight noise": scores * np.exp(0.1 * rng.standard_normal(scores.shape)),
        "noise": scores * np.exp(rng.standard_normal(scores.shape)),
        "no sessions": scores_after(data, world, 7, sessions=False),
        "no chain": scores_after(data, forgetful, 7),
        "no interests": scores_after(data, impersonal, 7),
        "no accidents": scores_after(data, trusting, 7),
        "no history": world.weights.mean(0) * (scores > 0),
    }
    best = ndcg_at_10(scores, targets)
    for name, other in others.items():
        lost = best - ndcg_at_10(other, targets)
        assert lost.mean() > -3 * lost.std() / np.sqrt(len(lost)), name
        if name in {"noise", "no chain", "no interests", "no history"}:
            assert lost.mean() > 3 * lost.std() / np.sqrt(len(lost)), name


SMALL = {"n_users": 40, "n_items": 60, "n_intents": 4, "mean_events": 9.0, "max_events": 20}


def prepared(data: Synthetic, history: str = "successive") -> PreparedDataset:
    split = np.full(len(data.items), TRAIN, dtype=np.uint8)
    split[data.offsets[1:] - 1] = TEST
    split[data.offsets[1:] - 2] = VALID
    return PreparedDataset(
        Meta(
            name="synthetic",
            fingerprint="",
            recipe={"reader": "synthetic", "options": {**SMALL, "seed": 5}},
            history=history,
            statistics={"items": float(data.items.max())},
            sources={},
        ),
        items=torch.from_numpy(data.items).int(),
        split=torch.from_numpy(split),
        offsets=torch.from_numpy(data.offsets),
        timestamps=torch.from_numpy(data.timestamps),
    )


@pytest.fixture(scope="module")
def small() -> Synthetic:
    return generate(SyntheticConfig(**SMALL), 5)  # type: ignore[arg-type] # ints and floats by name


def test_oracle_ranks_every_test_target(small: Synthetic) -> None:
    lengths = np.diff(small.offsets)
    is_target = np.zeros(len(small.items), dtype=np.bool_)
    is_target[small.offsets[1:] - 1] = True
    candidates = np.isin(np.arange(61), small.items)
    expected = rank_events(small, is_target, candidates)[small.offsets[1:] - 1]
    for history in ("successive", "block"):
        users, keys, ranks = oracle_ranks(prepared(small, history))
        assert users.tolist() == list(range(40))
        assert keys.tolist() == (lengths - 1).tolist()
        assert ranks.tolist() == expected.tolist()
    assert oracle_ranks(prepared(small), VALID)[1].tolist() == (lengths - 2).tolist()


def test_oracle_is_indifferent_to_numbering(small: Synthetic, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    occurring = np.unique(small.items)
    new_items, new_users = rng.permutation(occurring), rng.permutation(40)
    number = np.zeros(61, dtype=np.int64)
    number[new_items] = np.arange(1, len(new_items) + 1)
    lengths = np.diff(small.offsets)[new_users]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    index = np.concatenate([np.arange(*small.offsets[u : u + 2]) for u in new_users])
    plain = prepared(small)
    renumbered = replace(
        plain,
        meta=replace(plain.meta, statistics={"items": float(len(occurring))}),
        items=torch.from_numpy(number[small.items[index]]).int(),
        split=plain.split[index],
        offsets=torch.from_numpy(offsets),
        timestamps=torch.from_numpy(small.timestamps[index]),
    )
    write_prepared(renumbered, tmp_path, [str(u) for u in new_users], [str(v) for v in new_items])
    _, _, expected = oracle_ranks(plain)
    users, _, ranks = oracle_ranks(load_prepared(tmp_path))
    assert ranks.tolist() == expected[new_users[users]].tolist()


def test_oracle_refuses_what_it_cannot_rank(small: Synthetic) -> None:
    plain = prepared(small)
    real = replace(plain, meta=replace(plain.meta, recipe={"reader": "amazon", "options": {}}))
    with pytest.raises(RequestError, match="only synthetic data has an oracle"):
        oracle_ranks(real)
    changed = replace(plain, items=plain.items.flip(0))
    with pytest.raises(RequestError, match="not those that its options generate"):
        oracle_ranks(changed)
    with pytest.raises(RequestError, match="every event before a target"):
        oracle_ranks(prepared(small, "train"))
