"""Noise at test time against a slow reference, and what must hold of it."""

from collections import Counter
from dataclasses import replace
from math import floor
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.noise import KINDS, ROUNDINGS, Edit, Kind, Noise, Outside, perturb, plan_edit
from datamodules.prepared import TEST, TRAIN, UNUSED, VALID, PreparedDataset
from datamodules.sequence import SequenceDataModule
from intentbench.contracts.data import build_dataset

V = 30

kinds = st.sampled_from(KINDS)
noises = st.builds(
    Noise,
    kinds,
    st.sampled_from([0.0, 0.1, 0.29, 0.5, 1.0]),
    st.sampled_from(ROUNDINGS),
    st.integers(0, 3),
)
sequences_of_users = st.lists(
    st.lists(st.integers(1, V - 1), max_size=15), min_size=1, max_size=6
).filter(any)


def slow_budget(noise: Noise, n: int, up: float) -> int:
    """How many edits a row of n inputs gets."""
    exact = round(noise.rate * n / (2 if noise.kind == "shuffle" else 1), 6)
    most = {"delete": max(n - 1, 0), "shuffle": n // 2}.get(noise.kind, n)
    return min(floor(exact + up) if noise.rounding == "stochastic" else floor(exact), most)


def slow_edit(counts: list[int], noise: Noise) -> list[list[tuple[int, int, float]]]:
    """Rows of (source, place, draw), by a walk over each row; the same draws in the same order."""
    generator = noise.generator()
    ups = generator.random(len(counts)) if noise.rounding == "stochastic" else [0.0] * len(counts)
    places = [n + 1 if noise.kind == "insert" else n for n in counts]
    first = generator.random(sum(places)).tolist()
    second = generator.random(sum(places)).tolist() if noise.kind in ("swap", "insert") else []
    tiles_before, rows, base = 0, [], 0
    for n, up, size in zip(counts, ups, places, strict=True):
        budget = slow_budget(noise, n, up)
        row: list[tuple[int, int, float]] = []
        if noise.kind == "shuffle":
            own = first[base : base + size - budget]
            wide = set(sorted(range(len(own)), key=own.__getitem__)[:budget])
            for tile in range(len(own)):
                at = base + len(row)
                row += [(at + 1, at, -1), (at, at + 1, -1)] if tile in wide else [(at, at, -1)]
        else:
            mine = first[tiles_before : tiles_before + size]
            other = second[tiles_before : tiles_before + size]
            chosen = set(sorted(range(size), key=mine.__getitem__)[:budget])
            for column in range(size):
                at = base + column
                if noise.kind == "insert":
                    if column in chosen:
                        row.append((max(at - 1, base), max(at - 1, base), other[column]))
                    if column < n:
                        row.append((at, at, -1))
                elif noise.kind == "swap":
                    row.append((at, at, other[column] if column in chosen else -1))
                elif column not in chosen:
                    row.append((at, at, -1))
        rows.append(row)
        tiles_before += size
        base += n
    return rows


def listed(edit: Edit) -> list[list[tuple[int, int, float]]]:
    rows: list[list[tuple[int, int, float]]] = [[] for _ in edit.counts]
    for row, *entry in zip(edit.rows, edit.source, edit.place, edit.draw, strict=True):
        rows[row].append(tuple(x.item() for x in entry))
    return rows


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), noises)
def test_edits_are_those_of_a_walk_over_each_row(counts: list[int], noise: Noise) -> None:
    edit = plan_edit(np.array(counts), noise, noise.generator())
    rows = slow_edit(counts, noise)
    assert listed(edit) == rows
    assert edit.counts.tolist() == [len(row) for row in rows]


@given(sequences_of_users, st.integers(0, 2**32))
def test_items_from_outside_are_those_of_a_list(users: list[list[int]], seed: int) -> None:
    owner = np.repeat(np.arange(len(users)), [len(items) for items in users])
    outside = Outside(owner, np.concatenate([np.array(x, int) for x in users]), len(users), V)
    asked = np.repeat(np.arange(len(users)), 5)
    uniform = np.random.default_rng(seed).random(len(asked))
    expected = []
    for user, number in zip(asked, uniform, strict=True):
        free = [item for item in range(1, V + 1) if item not in users[user]]
        expected.append(free[int(number * len(free))])
    assert outside.draw(asked, uniform).tolist() == expected


def test_who_has_everything_is_refused() -> None:
    outside = Outside(np.zeros(3, int), np.array([1, 2, 3]), 2, 3)
    assert outside.draw(np.array([1]), np.array([0.5])).tolist() == [2]
    with pytest.raises(RequestError, match="has every item"):
        outside.draw(np.array([0]), np.array([0.5]))


def full(sequences: list[list[int]]) -> PreparedDataset:
    """With all that an event can have; each event can be told from its time."""
    data = build_dataset("toy", sequences, V)
    number = torch.arange(len(data.items))
    return replace(
        data,
        timestamps=1000 * number,
        actions=(number % 5).to(torch.int16),
        ratings=number.float() / 10,
        sessions=(number % 3).to(torch.int32),
        features={
            "truth.intent": number,
            "item.colour.values": torch.zeros(3),
        },
    )


def users_of(data: PreparedDataset, values: Tensor | None) -> list[list[Any]]:
    assert values is not None
    return [part.tolist() for part in values.tensor_split(data.offsets[1:-1])]


@settings(deadline=None, max_examples=50)
@given(sequences_of_users, noises)
def test_perturbed_events_are_those_of_a_walk(sequences: list[list[int]], noise: Noise) -> None:
    data = full(sequences)
    noisy, share = perturb(data, noise)
    counts = [len(row) - 1 if len(row) >= 3 else 0 for row in sequences]
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    edited = slow_edit(counts, noise)
    touched = 0
    for user, sequence in enumerate(sequences):
        own, begin = edited[user], int(data.offsets[user])
        free = [item for item in range(1, V + 1) if item not in sequence]
        sources = [begin + source - starts[user] for source, _, _ in own]
        places = [begin + place - starts[user] for _, place, _ in own]
        rest = list(range(begin + counts[user], begin + len(sequence)))
        items = [
            free[int(draw * len(free))] if draw >= 0 else int(data.items[source])
            for source, (_, _, draw) in zip(sources, own, strict=True)
        ]
        items += [int(data.items[event]) for event in rest]
        assert users_of(noisy, noisy.items)[user] == items
        for name in ("actions", "ratings"):
            kept = getattr(data, name)[sources + rest].tolist()
            assert users_of(noisy, getattr(noisy, name))[user] == kept
        for name in ("split", "timestamps", "sessions"):
            kept = getattr(data, name)[places + rest].tolist()
            assert users_of(noisy, getattr(noisy, name))[user] == kept
        moved = sum(draw >= 0 or source != place for source, place, draw in own)
        touched += moved + max(counts[user] - len(own), 0)
    assert share == pytest.approx(touched / max(sum(counts), 1))
    assert noisy.n_users == data.n_users
    assert noisy.fingerprint != data.fingerprint
    assert noisy.features.keys() == {"item.colour.values"}


def long_users(n_users: int = 200, n_items: int = 300) -> PreparedDataset:
    random = np.random.default_rng(0)
    lengths = random.integers(3, 40, n_users)
    return build_dataset("long", [random.integers(1, n_items, n).tolist() for n in lengths], 300)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.3])
def test_exactly_so_many_inputs_change_and_only_to_items_outside(rate: float) -> None:
    """IGR-SR's property of noise: swaps leave the history, never hit the target, repeat."""
    data = long_users()
    noisy, share = perturb(data, Noise("swap", rate))
    again, _ = perturb(data, Noise("swap", rate))
    assert torch.equal(noisy.items, again.items)
    assert not torch.equal(noisy.items, perturb(data, Noise("swap", rate, seed=1))[0].items)
    assert torch.equal(noisy.offsets, data.offsets)
    total = 0
    for old, new in zip(users_of(data, data.items), users_of(noisy, noisy.items), strict=True):
        changed = [place for place in range(len(old)) if old[place] != new[place]]
        assert len(changed) == floor(rate * (len(old) - 1) + 1e-9)
        assert new[-1] == old[-1]  # the target
        assert not {new[place] for place in changed} & set(old)
        total += len(changed)
    assert share == total / (len(data.items) - data.n_users)
    assert share < rate


@pytest.mark.parametrize("kind", ["swap", "insert", "delete"])
def test_a_higher_rate_keeps_what_a_lower_one_did(kind: Kind) -> None:
    data = long_users()
    low, high = (perturb(data, Noise(kind, rate))[0] for rate in (0.1, 0.3))
    pairs = zip(users_of(low, low.items), users_of(high, high.items), strict=True)
    for (few, many), clean in zip(pairs, users_of(data, data.items), strict=True):
        if kind == "swap":
            assert all(m == f for f, m, c in zip(few, many, clean, strict=True) if f != c)
        longer, shorter = (few, many) if kind == "delete" else (many, few)
        if kind != "swap":
            assert not Counter(shorter) - Counter(longer)


@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_rounding_reaches_the_rate(kind: Kind) -> None:
    data = build_dataset("short", [[1, 2, 3, 4, 5]] * 4000, 50)  # four inputs each
    assert perturb(data, Noise(kind, 0.2))[1] == 0
    _, share = perturb(data, Noise(kind, 0.2, "stochastic"))
    spread = (0.2 * 0.8 / (4 * 4000)) ** 0.5 * 2
    assert share == pytest.approx(0.2, abs=4 * spread)


def test_whole_counts_are_not_lost_to_rounding_of_floats() -> None:
    noise = Noise("swap", 0.29)
    assert noise.budget(np.array([100, 99]), noise.generator()).tolist() == [29, 28]


def test_every_choice_of_disjoint_neighbours_is_as_likely() -> None:
    noise = Noise("shuffle", 0.8)  # two pairs of five inputs
    edit = plan_edit(np.full(6000, 5), noise, noise.generator())
    moved = Counter(map(tuple, (edit.source.reshape(-1, 5) % 5).tolist()))
    assert set(moved) == {(1, 0, 3, 2, 4), (1, 0, 2, 4, 3), (0, 2, 1, 4, 3)}
    assert all(abs(count - 2000) < 150 for count in moved.values())


def test_one_input_is_never_deleted() -> None:
    data = build_dataset("toy", [[1, 2, 3], [4, 5, 6, 7, 8]], V)
    noisy, share = perturb(data, Noise("delete", 1.0))
    assert [len(row) for row in users_of(noisy, noisy.items)] == [2, 2]
    assert share == 4 / 6


def test_test_queries_see_the_noise_and_ask_for_the_same_targets() -> None:
    data = long_users()
    for kind in get_args(Kind):
        noisy, _ = perturb(data, Noise(kind, 0.3))
        found: list[dict[int, Any]] = []
        for dataset in (data, noisy):
            batches = list(SequenceDataModule(dataset, window=20).test_dataloader())
            found.append({})
            for batch in batches:
                for row, user in enumerate(batch.users.tolist()):
                    history = batch.history[row][batch.history[row] > 0].tolist()
                    assert batch.masked[row][: len(history)].tolist() == history
                    found[-1][user] = history, int(batch.target[row])
        assert found[0].keys() == found[1].keys()
        assert all(found[1][user][1] == target for user, (_, target) in found[0].items())
        assert sum(found[1][user][0] != history for user, (history, _) in found[0].items()) > 150


def test_events_that_come_in_belong_to_the_inputs() -> None:
    data = long_users()
    noisy, _ = perturb(data, Noise("insert", 1.0))
    assert (noisy.split == TEST).sum() == data.n_users
    for split in users_of(noisy, noisy.split):
        assert split == sorted(split)
        assert split[-1] == TEST


def test_other_histories() -> None:
    data = build_dataset("toy", [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11]], V)
    split = torch.tensor(
        [TRAIN, TRAIN, VALID, VALID, TEST, TEST, UNUSED, TRAIN, TRAIN, VALID, VALID]
    )
    data = replace(data, split=split.to(torch.uint8))
    with pytest.raises(RequestError, match=r"1 users have several; split by leave-one-out"):
        perturb(data, Noise("swap", 1.0))
    expected = {"block": [0, 1, 2, 3], "train": [0, 1]}  # who has no target is left alone
    for history, inputs in expected.items():
        known = replace(data, meta=replace(data.meta, history=history))
        noisy, share = perturb(known, Noise("swap", 1.0))
        assert torch.nonzero(noisy.items != data.items).flatten().tolist() == inputs
        assert share == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swop", 0.1), "no kind 'swop'; allowed: swap, insert, delete, shuffle"),
        (("swap", 1.5), r"rate 1\.5: must lie between 0 and 1"),
        (("swap", 0.1, "up"), "no rounding 'up'"),
        (("swap", 0.1, "floor", -1), "must not be negative"),
    ],
)
def test_wrong_noise_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Noise(*arguments)
