"""What a dataset knows of events beyond their items: times, behaviours, ratings, intent labels.

A batch holds items; an `EventTable` says which events those are, and a method that reads more than
items looks the rest up by event number. The tables are flat, user by user, with one row more that
stands for padding. Rules that make intent labels are in `datamodules.intent_labels`.

Where a batch's events stand is arithmetic on its users, keys and lengths: no search, and no
synchronisation with the device.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from datamodules.intent_labels import apply_rule
from datamodules.prepared import PreparedDataset
from datamodules.types import PAD, Batch, EvaluationBatch


@dataclass(frozen=True, slots=True)
class IntentLabels:
    """The labels of one intent. d is fixed by the rule alone (`intent_labels.label_count`).

    Attributes:
        name: what the intent is called.
        kind: "single": each event has one label; "multi": each item has several.
        names: d names, "" where the dataset does not use a label.
        labels: single: (E + 1,) int64, the label 0..d-1 of each event; -1 where the event is never
            a target of this intent, and at row E. multi: (V + 1, d) bool by item; an item without
            a label is no target of the intent.
        codes: single: (E + 1,) int64, the event's own label as an input, label + 1; labels that
            are never targets have one too. 0 at row E and where the rule cannot tell. multi: empty.
        inputs_only: labels that occur as inputs only.
    """

    name: str
    kind: Literal["single", "multi"]
    names: tuple[str, ...]
    labels: Tensor
    codes: Tensor
    inputs_only: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> "IntentLabels":
        """A copy whose tensors are on `device`."""
        return _moved(self, device)


@dataclass(frozen=True, slots=True)
class EventTable:
    """Events of all users, flat, with one row more (E) that stands for padding.

    Attributes:
        offsets: (N + 1,) int64, user u owns events `offsets[u]:offsets[u + 1]`.
        items: (E + 1,) int64, `PAD` in row E.
        timestamps: (E + 1,) int64 seconds, 0 in row E; None where the data has none.
        gaps: (E + 1,) int64 seconds since the user's event before, 0 at a user's first event and
            in row E; None as the timestamps.
        actions: (E + 1,) int64 codes 1..A into `action_names`, 0 in row E; None where there are
            none.
        action_names: code a is called `action_names[a - 1]`.
        ratings: (E + 1,) float32, 0 in row E and where missing; None where there are none.
        intents: the labels asked for, in order.
    """

    offsets: Tensor
    items: Tensor
    timestamps: Tensor | None
    gaps: Tensor | None
    actions: Tensor | None
    action_names: tuple[str, ...]
    ratings: Tensor | None
    intents: tuple[IntentLabels, ...]

    @property
    def padding(self) -> int:
        """E, the row that stands for padding."""
        return len(self.items) - 1

    def to(self, device: torch.device | str) -> "EventTable":
        """A copy whose tensors are on `device`."""
        moved = _moved(self, device)
        return replace(moved, intents=tuple(intent.to(device) for intent in self.intents))

    def rows(self, batch: Batch) -> Tensor:
        """The number of the event at each input of a batch, row E at padding.

        Args:
            batch: of layout "all" or "prefix", or for evaluation. (A row of layout "pair" is its
                own target; it has no inputs.)

        Returns:
            (B, L) int64.
        """
        begin = self.offsets[batch.users]
        if isinstance(batch, EvaluationBatch):
            stop = begin + (batch.history != PAD).sum(1)
        else:
            stop = begin + batch.key  # the last target follows the last input
        column = torch.arange(batch.items.shape[1], device=batch.items.device)
        number = (stop - batch.lengths)[:, None] + column
        return torch.where(column < batch.lengths[:, None], number, self.padding)

    def target_rows(self, batch: Batch) -> Tensor:
        """The number of the event that each target is.

        Returns:
            (T,) int64 in the order of `batch.labels`, where each row's targets follow each other
            and end at its key; in evaluation (B,), row E where there is no target.
        """
        last = self.offsets[batch.users] + batch.key
        if isinstance(batch, EvaluationBatch):
            return torch.where(batch.key >= 0, last, self.padding)
        ends = (batch.targets != PAD).sum(1).cumsum(0)
        place = torch.arange(len(batch.rows), device=batch.rows.device)
        return last[batch.rows] + place + 1 - ends[batch.rows]


def build_events(dataset: PreparedDataset, intents: Mapping[str, str]) -> EventTable:
    """Everything a dataset knows of its events, and the intent labels that rules make of it.

    Args:
        dataset: a prepared dataset.
        intents: name of each intent to its rule (`datamodules.intent_labels`), in order.

    Raises:
        RequestError: a rule is unknown or malformed, or the dataset lacks what it needs.
    """
    timestamps, gaps = dataset.timestamps, None
    if timestamps is not None:
        gaps = torch.zeros_like(timestamps)
        gaps[1:] = timestamps.diff().clamp(min=0)
        gaps[dataset.offsets[:-1][dataset.offsets.diff() > 0]] = 0
    ratings = dataset.ratings
    return EventTable(
        offsets=dataset.offsets,
        items=_padded(dataset.items.long(), PAD),
        timestamps=None if timestamps is None else _padded(timestamps.long(), 0),
        gaps=None if gaps is None else _padded(gaps, 0),
        actions=None if dataset.actions is None else _padded(dataset.actions.long() + 1, 0),
        action_names=dataset.meta.actions,
        ratings=None if ratings is None else _padded(ratings.float().nan_to_num(), 0),
        intents=tuple(_intent(dataset, name, rule) for name, rule in intents.items()),
    )


def short_window_coverage(
    timestamps: Tensor, offsets: Tensor, horizon: float
) -> tuple[float, float]:
    """How personal a time window of `horizon` seconds is; a horizon should make both shares small.

    The window of an event is what its user did in the `horizon` seconds before it, itself included:
    from pos(k) = min {i ≤ k : T_k - T_i ≤ H} to k.

    Args:
        timestamps: (E,) seconds (further rows are not read).
        offsets: (N + 1,) events of each user.
        horizon: H ≥ 0, may be infinite.

    Returns:
        The share of events whose window is all that the user did up to then, and the share whose
        window is the event alone. A user's first event counts in both.
    """
    begin, count = offsets[:-1].numpy(), offsets.diff().numpy()
    number = np.arange(int(offsets[-1]))
    if not len(number):
        return math.nan, math.nan
    seconds = timestamps[: len(number)].numpy().astype(np.int64)
    seconds = seconds - seconds.min()
    span = int(seconds.max()) + 1
    user = np.repeat(np.arange(len(count)), count)
    # users one after the other on one clock; the first i with T_i ≥ x is where the running
    # maximum reaches x, so a search finds it even if times within a user should fall
    clock = np.maximum.accumulate(user * span + seconds)
    since = np.maximum(seconds - int(min(horizon, span)), 0)
    window = np.searchsorted(clock, user * span + since)
    whole, alone = window == begin[user], window == number
    return float(whole.mean()), float(alone.mean())


def _intent(dataset: PreparedDataset, name: str, rule: str) -> IntentLabels:
    found = apply_rule(dataset, rule)
    labels, codes = torch.from_numpy(found.labels), torch.empty(0, dtype=torch.int64)
    if found.codes is None:
        return IntentLabels(name, "multi", found.names, labels, codes)
    labels, codes = _padded(labels, -1), _padded(torch.from_numpy(found.codes), 0)
    return IntentLabels(name, "single", found.names, labels, codes, found.inputs_only)


def _padded(values: Tensor, value: float) -> Tensor:
    """The values and one row more."""
    return torch.cat([values, values.new_full((1,), value)])


_T = TypeVar("_T", EventTable, IntentLabels)


def _moved(table: _T, device: torch.device | str) -> _T:
    tensors: dict[str, Any] = {
        field.name: value.to(device)
        for field in fields(table)
        if isinstance(value := getattr(table, field.name), Tensor)
    }
    return replace(table, **tensors)
