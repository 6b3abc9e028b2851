"""Batches against a slow reference, and properties D1 to D4."""

import itertools
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.loader import BatchLoader, BatchOrder
from datamodules.prepare import prepare
from datamodules.prepared import (
    TEST,
    TRAIN,
    UNUSED,
    VALID,
    Meta,
    PreparedDataset,
    compute_fingerprint,
    load_prepared,
)
from datamodules.rows import Layout, Queries, Targets, evaluation_queries
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, Batch, EvaluationBatch, SequenceBatch

V = 9
Sequences = list[list[int]]

sequences_of_users = st.lists(
    st.lists(st.integers(1, V), max_size=12), min_size=1, max_size=6
).filter(lambda users: any(len(user) >= 4 for user in users))
layouts = st.sampled_from(["all", "prefix", "pair"])
targets_kinds = st.sampled_from(["last", "every", "final"])
windows = st.integers(1, 14)


def prepared(sequences: Sequences, splits: list[list[int]] | None = None) -> PreparedDataset:
    splits = splits or [leave_one_out(len(sequence)) for sequence in sequences]
    offsets = torch.tensor([0, *itertools.accumulate(map(len, sequences))])
    items = torch.tensor([item for row in sequences for item in row], dtype=torch.int32)
    split = torch.tensor([part for row in splits for part in row], dtype=torch.uint8)
    tensors = {"items": items, "split": split, "offsets": offsets}
    fingerprint = compute_fingerprint(tensors, {})
    meta = Meta("toy", fingerprint, {}, "successive", {"items": V}, {})
    return PreparedDataset(meta, items, split, offsets)


def leave_one_out(length: int) -> list[int]:
    return [TRAIN] * length if length < 3 else [TRAIN] * (length - 2) + [VALID, TEST]


class Row(NamedTuple):
    user: int
    items: tuple[int, ...]
    targets: tuple[int, ...]


def reference_rows(
    sequences: Sequences, layout: Layout, window: int, targets: Targets
) -> list[Row]:
    """Rows by the words of the paper, an event at a time."""
    rows = []
    for user, sequence in enumerate(sequences):
        train = sequence[:-2] if len(sequence) >= 3 else sequence
        if layout == "pair":
            rows += [Row(user, (item,), (item,)) for item in train]
            continue
        inputs, following = train[:-1], train[1:]
        if targets == "final":
            items = tuple(inputs[-window:])
            rows += [Row(user, items, (*[PAD] * (len(items) - 1), train[-1]))] if items else []
            continue
        if targets == "last":
            inputs, following = inputs[-window:], following[-window:]
        if layout == "prefix":
            for end in range(1, len(inputs) + 1):
                items = tuple(inputs[max(end - window, 0) : end])
                rows.append(Row(user, items, (*[PAD] * (len(items) - 1), following[end - 1])))
            continue
        if inputs:
            rows.append(Row(user, tuple(inputs[:window]), tuple(following[:window])))
        for end in range(window + 1, len(inputs) + 1):  # only with targets="every"
            items = tuple(inputs[end - window : end])
            rows.append(Row(user, items, (*[PAD] * (window - 1), following[end - 1])))
    return rows


def found_rows(batches: list[SequenceBatch]) -> list[Row]:
    return [
        Row(
            int(batch.users[row]),
            tuple(batch.items[row, : batch.lengths[row]].tolist()),
            tuple(batch.targets[row, : batch.lengths[row]].tolist()),
        )
        for batch in batches
        for row in range(len(batch.users))
    ]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(sequences_of_users, layouts, windows, targets_kinds, st.integers(1, 7), st.booleans())
def test_training_rows_are_those_of_the_slow_reference(
    sequences: Sequences,
    layout: Layout,
    window: int,
    targets: Targets,
    batch_size: int,
    pad_to_window: bool,
) -> None:
    module = SequenceDataModule(
        prepared(sequences),
        layout=layout,
        window=window,
        targets=targets,
        batch_size=batch_size,
        pad_to_window=pad_to_window,
    )
    batches = list(module.train_dataloader())
    expected = reference_rows(sequences, layout, window, targets)
    assert Counter(found_rows(batches)) == Counter(expected)
    assert [len(batch.users) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    for batch in batches:
        check_groups(batch, window if pad_to_window else None)
        check_flat_targets(batch)
        last = dict(zip(batch.rows.tolist(), batch.labels.tolist(), strict=True))
        for row, (user, key) in enumerate(
            zip(batch.users.tolist(), batch.key.tolist(), strict=True)
        ):
            assert sequences[user][key] == last[row]


def check_groups(batch: Batch, width: int | None) -> None:
    """Groups cover the rows in order, hold what is not padding, and give the batch its width."""
    lengths = batch.lengths.tolist()
    assert lengths == sorted(lengths, reverse=True)
    assert [group[0] for group in batch.groups] == [0, *(group[1] for group in batch.groups[:-1])]
    assert batch.groups[-1][1] == len(lengths)
    assert batch.items.shape[1] == batch.groups[0][2]
    if width is not None:
        assert batch.groups == ((0, len(lengths), width),)
    for start, stop, widest in batch.groups:
        assert widest == (width or max(1, lengths[start]))
        assert (batch.items[start:stop, widest:] == PAD).all()
    filled = torch.arange(batch.items.shape[1]) < batch.lengths[:, None]
    assert ((batch.items != PAD) == filled).all()


def check_flat_targets(batch: SequenceBatch) -> None:
    """`labels`, `rows` and `select` say what `targets` says."""
    real = batch.targets != PAD
    rows, positions = real.nonzero(as_tuple=True)
    assert sorted(zip(batch.rows.tolist(), batch.labels.tolist(), strict=True)) == sorted(
        zip(rows.tolist(), batch.targets[real].tolist(), strict=True)
    )
    assert joined(batch, batch.targets)[batch.select].equal(batch.labels)
    assert joined(batch, torch.arange(len(batch.users))[:, None].expand_as(batch.items))[
        batch.select
    ].equal(batch.rows)
    assert len(set(batch.select.tolist())) == len(batch.select) == len(positions)


def joined(batch: Batch, values: Tensor) -> Tensor:
    """(B, L) values as an encoder's groups are flattened and joined."""
    return torch.cat([values[start:stop, :width].flatten() for start, stop, width in batch.groups])


@settings(max_examples=40, derandomize=True, deadline=None)
@given(sequences_of_users, windows, st.integers(1, 7), st.booleans(), st.booleans())
def test_evaluation_batches_are_those_of_the_slow_reference(
    sequences: Sequences, window: int, batch_size: int, mask_history: bool, pad_to_window: bool
) -> None:
    module = SequenceDataModule(
        prepared(sequences),
        window=window,
        evaluation_batch_size=batch_size,
        mask_history=mask_history,
        pad_to_window=pad_to_window,
    )
    loaders = (module.val_dataloader(), module.test_dataloader(), module.predict_dataloader())
    for back, loader in zip((2, 1, 0), loaders, strict=True):
        seen = []
        for batch in loader:
            check_groups(batch, window if pad_to_window else None)
            for row, user in enumerate(batch.users.tolist()):
                sequence = sequences[user]
                known = sequence[: len(sequence) - back]
                target, key = (sequence[-back], len(known)) if back else (PAD, -1)
                seen.append(user)
                assert stripped(batch.history[row]) == known
                assert stripped(batch.items[row]) == known[-window:]
                assert batch.lengths[row] == len(known[-window:])
                assert (int(batch.target[row]), int(batch.key[row])) == (target, key)
                assert stripped(batch.masked[row]) == (known if mask_history else [])
            check_last_state(batch)
        wanted = [u for u, sequence in enumerate(sequences) if len(sequence) >= 3 or not back]
        assert sorted(seen) == wanted


def stripped(row: Tensor) -> list[int]:
    return [item for item in row.tolist() if item != PAD]


def check_last_state(batch: EvaluationBatch) -> None:
    last = batch.items[torch.arange(len(batch.users)), (batch.lengths - 1).clamp(min=0)]
    assert joined(batch, batch.items)[batch.select].equal(last)


# D1 to D4 -------------------------------------------------------------------------------------


@settings(max_examples=40, derandomize=True, deadline=None)
@given(sequences_of_users)
def test_d1_stages_hold_each_event_once(sequences: Sequences) -> None:
    """Give each event an item of its own: then each is a training or a held-out event, once."""
    module = SequenceDataModule(numbered(sequences), layout="pair")
    train = torch.cat([batch.labels for batch in module.train_dataloader()])
    held_out = [batch.target for batch in (*module.val_dataloader(), *module.test_dataloader())]
    total = sum(map(len, sequences))
    assert sorted(torch.cat([train, *held_out]).tolist()) == list(range(1, total + 1))


def numbered(sequences: Sequences) -> PreparedDataset:
    numbers = itertools.count(1)
    return prepared([[next(numbers) for _ in sequence] for sequence in sequences])


@settings(max_examples=40, derandomize=True, deadline=None)
@given(sequences_of_users)
def test_d2_d3_targets_come_last_and_inputs_precede_them(sequences: Sequences) -> None:
    module = SequenceDataModule(numbered(sequences), window=20)
    test = dict(targets_and_history(module.test_dataloader()))
    valid = dict(targets_and_history(module.val_dataloader()))
    for batch in module.train_dataloader():
        for row in found_rows([batch]):
            assert list(row.targets) == [item + 1 for item in row.items]  # the very next event
            if row.user in valid:
                assert max(row.targets) < valid[row.user][0]
    for user, (target, history) in test.items():
        assert history == list(range(history[0], target))
        assert valid[user] == (target - 1, history[:-1])


def targets_and_history(
    loader: BatchLoader[EvaluationBatch],
) -> list[tuple[int, tuple[int, list[int]]]]:
    return [
        (int(user), (int(batch.target[row]), stripped(batch.history[row])))
        for batch in loader
        for row, user in enumerate(batch.users)
    ]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(sequences_of_users, st.randoms(use_true_random=False))
def test_d4_order_of_users_changes_no_split(sequences: Sequences, random: Random) -> None:
    order = list(range(len(sequences)))
    random.shuffle(order)
    plain = SequenceDataModule(prepared(sequences), window=3)
    shuffled = SequenceDataModule(prepared([sequences[user] for user in order]), window=3)
    for stage in ("val_dataloader", "test_dataloader"):
        expected = dict(targets_and_history(getattr(plain, stage)()))
        found = dict(targets_and_history(getattr(shuffled, stage)()))
        assert {order[user]: what for user, what in found.items()} == expected
    assert Counter(
        row._replace(user=order[row.user]) for row in found_rows(list(shuffled.train_dataloader()))
    ) == Counter(found_rows(list(plain.train_dataloader())))


# Order, histories, refusals -------------------------------------------------------------------


def test_order_follows_from_seed_and_epoch() -> None:
    sequences = [[1 + (user + step) % V for step in range(6)] for user in range(40)]

    def order(seed: int, epoch: int) -> list[int]:
        loader = SequenceDataModule(prepared(sequences), batch_size=8, seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [user for batch in loader for user in batch.users.tolist()]

    assert order(0, 0) == order(0, 0)
    assert sorted(order(0, 0)) == list(range(40))
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("count", [1, 16, 17, 31])
def test_processes_share_the_rows(world: int, count: int) -> None:
    shares = [
        [row for rows in BatchOrder(count, 5, None, rank, world) for row in rows]
        for rank in range(world)
    ]
    assert sorted(itertools.chain(*shares)) == list(range(count))
    shuffled = [list(BatchOrder(count, 5, 0, rank, world)) for rank in range(world)]
    assert len({len(batches) for batches in shuffled}) == 1, "all take the same number of steps"
    rows = [row for batches in shuffled for rows in batches for row in rows]
    assert len(set(rows)) == len(rows) >= count - world + 1


@pytest.mark.parametrize(
    ("history", "stops"),
    [("successive", [2, 3, 5]), ("block", [2, 2, 2]), ("train", [2, 2, 2])],
)
def test_history_before_validation_targets(history: str, stops: list[int]) -> None:
    """Two training events, two validation targets, an unused event, another target, a test one."""
    split = np.array([TRAIN, TRAIN, VALID, VALID, UNUSED, VALID, TEST], dtype=np.uint8)
    queries = evaluation_queries(np.array([0, 7]), split, VALID, history)
    assert isinstance(queries, Queries)
    assert queries.target.tolist() == [2, 3, 5]
    assert queries.stop.tolist() == stops


@pytest.mark.parametrize(("history", "stop"), [("successive", 6), ("block", 5), ("train", 2)])
def test_history_before_test_targets(history: str, stop: int) -> None:
    split = np.array([TRAIN, TRAIN, VALID, VALID, VALID, UNUSED, TEST], dtype=np.uint8)
    queries = evaluation_queries(np.array([0, 7]), split, TEST, history)
    assert queries.stop.tolist() == [stop]


def test_dataset_without_training_targets_is_refused() -> None:
    with pytest.raises(RequestError, match="toy: no user has two training events"):
        SequenceDataModule(prepared([[1, 2, 3], [4]])).train_dataloader()


@pytest.mark.parametrize("name", ["window", "batch_size", "evaluation_batch_size"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="must be at least 1"):
        SequenceDataModule(prepared([[1, 2, 3, 4]]), **{name: 0})  # type: ignore[arg-type]  # any name


@pytest.mark.parametrize(("targets", "expected"), [("last", 128_031), ("every", 131_413)])
@pytest.mark.parametrize("layout", ["all", "prefix"])
def test_beauty_has_the_published_number_of_targets(
    layout: Layout, targets: Targets, expected: int, real_data: Path
) -> None:
    dataset = load_prepared(prepare("beauty", real_data))
    module = SequenceDataModule(dataset, layout=layout, targets=targets, batch_size=4096)
    assert sum(len(batch.labels) for batch in module.train_dataloader()) == expected
    assert sum(len(batch.users) for batch in module.test_dataloader()) == 22_363
