"""Events of batches, and what an event table holds, against slow references."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.events import EventTable, build_events, short_window_coverage
from datamodules.prepare import prepare
from datamodules.prepared import TEST, TRAIN, VALID, Meta, PreparedDataset, load_prepared
from datamodules.rows import Layout, Targets
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, Batch, SequenceBatch
from tests.datamodules.toy_events import ACTIONS, prepared, random_log

lengths_of_users = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(
    lambda lengths: max(lengths) >= 4
)


def numbered(lengths: list[int], history: str = "successive", held_out: int = 1) -> PreparedDataset:
    """Users with events whose items tell the event: event e has item e + 1."""
    total = sum(lengths)
    split = []
    for length in lengths:
        targets = held_out if length > 2 * held_out else 0
        split += [TRAIN] * (length - 2 * targets) + [VALID] * targets + [TEST] * targets
    return PreparedDataset(
        Meta("toy", "", {}, history, {"items": max(total, 1)}, {}),
        torch.arange(1, total + 1, dtype=torch.int32),
        torch.tensor(split, dtype=torch.uint8),
        torch.tensor([0, *itertools.accumulate(lengths)]),
    )


def check(table: EventTable, batches: Iterable[Batch]) -> int:
    """Rows and targets are the events whose items the batch holds; counts the batches."""
    padding = table.padding
    count = 0
    for batch in batches:
        count += 1
        rows, targets = table.rows(batch), table.target_rows(batch)
        assert rows.dtype == targets.dtype == torch.int64
        assert rows.equal(torch.where(batch.items == PAD, padding, batch.items - 1))
        assert table.items[rows].equal(batch.items)
        wanted = batch.labels if isinstance(batch, SequenceBatch) else batch.target
        assert targets.equal(torch.where(wanted == PAD, padding, wanted - 1))
        assert table.items[targets].equal(wanted)
    return count


@settings(max_examples=60)
@given(
    lengths_of_users,
    st.sampled_from(["all", "prefix"]),
    st.integers(1, 14),
    st.sampled_from(["last", "every"]),
    st.integers(1, 7),
    st.booleans(),
)
def test_training_batches_find_their_events(
    lengths: list[int],
    layout: Layout,
    window: int,
    targets: Targets,
    batch_size: int,
    pad_to_window: bool,
) -> None:
    dataset = numbered(lengths)
    module = SequenceDataModule(
        dataset,
        layout=layout,
        window=window,
        targets=targets,
        batch_size=batch_size,
        pad_to_window=pad_to_window,
    )
    assert check(build_events(dataset, {}), module.train_dataloader())


@settings(max_examples=60)
@given(
    lengths_of_users,
    st.sampled_from(["successive", "block", "train"]),
    st.integers(1, 2),
    st.integers(1, 14),
    st.integers(1, 7),
    st.booleans(),
)
def test_evaluation_batches_find_their_events(
    lengths: list[int],
    history: str,
    held_out: int,
    window: int,
    batch_size: int,
    pad_to_window: bool,
) -> None:
    dataset = numbered(lengths, history, held_out)
    module = SequenceDataModule(
        dataset,
        window=window,
        evaluation_batch_size=batch_size,
        mask_history=False,
        pad_to_window=pad_to_window,
    )
    table = build_events(dataset, {})
    check(table, module.val_dataloader())
    check(table, module.test_dataloader())
    assert check(table, module.predict_dataloader())


def test_columns_have_a_row_for_padding(tmp_path: Path) -> None:
    for seed in range(10):
        log = random_log(seed)
        table = build_events(prepared(log, tmp_path), {})
        assert table.items.tolist() == [*(event.item for event in log.events), PAD]
        assert table.padding == len(log.events)
        assert table.timestamps is not None
        assert table.timestamps.tolist() == [*(event.time for event in log.events), 0]
        gaps = []
        for user in log.users:
            times = [event.time for event in user]
            gaps += [time - before for time, before in zip(times, times[:1] + times, strict=False)]
        assert table.gaps is not None
        assert table.gaps.tolist() == [*gaps, 0]
        assert table.actions is not None
        names = ["", *table.action_names]
        assert [names[code] for code in table.actions.tolist()] == [
            *(event.action for event in log.events),
            "",
        ]
        assert table.ratings is not None
        assert table.ratings.tolist() == [
            *(0 if math.isnan(event.rating) else event.rating for event in log.events),
            0,
        ]
        assert table.action_names == ACTIONS
        assert table.intents == ()


def test_what_a_dataset_lacks_is_none() -> None:
    table = build_events(numbered([4, 0, 3]), {})
    assert table.timestamps is table.gaps is table.actions is table.ratings is None
    assert table.action_names == ()


def test_gaps_are_never_negative() -> None:
    """Sessions that interleave may be put one behind the other by the split."""
    dataset = replace(numbered([3, 2]), timestamps=torch.tensor([5, 9, 7, 4, 4]))
    gaps = build_events(dataset, {}).gaps
    assert gaps is not None
    assert gaps.tolist() == [0, 4, 0, 0, 0, 0]


def test_intents_come_in_order_and_move_with_the_table(tmp_path: Path) -> None:
    rules = {"what": "behaviour", "genres": "values:genre", "then": "drift:genre"}
    table = build_events(prepared(random_log(0), tmp_path), rules)
    assert [intent.name for intent in table.intents] == list(rules)
    assert [intent.kind for intent in table.intents] == ["single", "multi", "single"]
    moved = table.to("meta")
    columns = (moved.offsets, moved.items, moved.timestamps, moved.gaps, moved.actions)
    labels = [part for intent in moved.intents for part in (intent.labels, intent.codes)]
    for tensor in (*columns, moved.ratings, *labels):
        assert tensor is not None
        assert tensor.device.type == "meta"
    assert moved.action_names == table.action_names
    assert [intent.names for intent in moved.intents] == [intent.names for intent in table.intents]


# Coverage of a time window --------------------------------------------------------------------


def slow_coverage(users: list[list[int]], horizon: float) -> tuple[float, float]:
    whole, alone = [], []
    for times in users:
        for k, time in enumerate(times):
            window = min(i for i in range(k + 1) if time - times[i] <= horizon)
            whole.append(window == 0)
            alone.append(window == k)
    return float(np.mean(whole)), float(np.mean(alone))


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.integers(-20, 20), max_size=8), min_size=1, max_size=5).filter(any),
    st.sampled_from([0, 1, 2.5, 7, 1000, math.inf]),
    st.booleans(),
)
def test_coverage_is_that_of_the_slow_reference(
    users: list[list[int]], horizon: float, rising: bool
) -> None:
    users = [sorted(times) if rising else times for times in users]
    offsets = torch.tensor([0, *itertools.accumulate(map(len, users))])
    times = torch.tensor([*itertools.chain(*users), 0])  # and a row of padding, not read
    found = short_window_coverage(times, offsets, horizon)
    assert found == pytest.approx(slow_coverage(users, horizon))


def test_coverage_of_nothing_is_nothing() -> None:
    found = short_window_coverage(torch.tensor([0]), torch.tensor([0, 0]), 60)
    assert all(map(math.isnan, found))


@pytest.fixture(scope="module")
def movielens(real_data: Path) -> PreparedDataset:
    return load_prepared(prepare("ml-100k", real_data))


@pytest.mark.parametrize(
    ("seconds", "whole", "alone"),
    [
        (60, 4, 15),
        (300, 11, 4),
        (600, 21, 3),
        (1800, 45, 3),
        (3600, 62, 3),
        (86400, 78, 2),
        (604800, 85, 2),
        (math.inf, 100, 1),
    ],
)
def test_coverage_of_movielens(
    movielens: PreparedDataset, seconds: float, whole: int, alone: int
) -> None:
    assert movielens.timestamps is not None
    found = short_window_coverage(movielens.timestamps, movielens.offsets, seconds)
    assert [round(100 * share) for share in found] == [whole, alone]


def test_movielens_is_rated_in_sittings(movielens: PreparedDataset) -> None:
    """53 % of users rate within an hour, 74 % within a week; half the ratings are tied."""
    table = build_events(movielens, {})
    assert table.timestamps is not None
    assert table.gaps is not None
    begin, end = movielens.offsets[:-1], movielens.offsets[1:] - 1
    spans = table.timestamps[end] - table.timestamps[begin]
    assert round(100 * (spans <= 3600).float().mean().item()) == 53
    assert round(100 * (spans <= 7 * 86400).float().mean().item()) == 74
    later = torch.ones(len(table.gaps) - 1, dtype=torch.bool)
    later[begin] = False
    assert round(100 * (table.gaps[:-1][later] == 0).float().mean().item()) == 51
    assert round(100 * (table.gaps[end] == 0).float().mean().item()) == 44
