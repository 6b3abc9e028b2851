"""Batches against a slow reference, and properties D1 to D4."""

import itertools
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.loader import BatchOrder
from datamodules.prepared import (
    TEST,
    TRAIN,
    VALID,
    Meta,
    PreparedDataset,
    compute_fingerprint,
)
from datamodules.rows import Layout, Targets, cut_groups, flat_starts
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, Batch, EvaluationBatch, SequenceBatch

V = 9
Sequences = list[list[int]]

sequences_of_users = st.lists(
    st.lists(st.integers(1, V), max_size=12), min_size=1, max_size=6
).filter(lambda users: any(len(user) >= 4 for user in users))
layouts = st.sampled_from(["all", "prefix", "pair"])
targets_kinds = st.sampled_from(["last", "every"])
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
                assert (batch.target[row], batch.key[row]) == (target, key)
                assert stripped(batch.masked[row]) == (known if mask_history else [])
            check_last_state(batch)
        wanted = [u for u, sequence in enumerate(sequences) if len(sequence) >= 3 or not back]
        assert sorted(seen) == wanted


def stripped(row: Tensor) -> list[int]:
    return [item for item in row.tolist() if item != PAD]


def check_last_state(batch: EvaluationBatch) -> None:
    last = batch.items[torch.arange(len(batch.users)), (batch.lengths - 1).clamp(min=0)]
    assert joined(batch, batch.items)[batch.select].equal(last)
