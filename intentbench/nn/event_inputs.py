"""What a dataset knows of events, ready for a network: looked up by event number, on any device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.events import EventTable, IntentLabels, build_events
from datamodules.noise import without_noise
from datamodules.prepared import TRAIN, PreparedDataset
from intentbench.nn.event_features import event_numbers, field_values, gap_scale
from intentbench.nn.time_encoding import time_codes


class EventInputs(NamedTuple):
    """A rectangle of events, padded on the right.

    Attributes:
        items: (B, L).
        rows: (B, L) numbers of the events; the number of events at padding.
        values: of each field: see `nn.event_features.field_values`.
        numbers: (B, L, 2) see `nn.event_features.event_numbers`.
        times: (B, L) seconds; 0 where the data has none.
        codes: (B, L, 3) see `nn.time_encoding.time_codes`.
    """

    items: Tensor
    rows: Tensor
    values: list[Tensor]
    numbers: Tensor
    times: Tensor
    codes: Tensor


@dataclass(frozen=True)
class KnownEvents:
    """Everything that methods read of events.

    Attributes:
        table: of E events and their fields.
        numbers: (E + 1, 2).
        times: (E + 1,) seconds; 0 where the data has none.
        codes: (E + 1, 3).
        taught: (E + 1,) number of the event whose labels heads learn in place of an event's own;
            None: its own.
    """

    table: EventTable
    numbers: Tensor
    times: Tensor
    codes: Tensor
    taught: Tensor | None = None

    def to(self, device: torch.device) -> "KnownEvents":
        """A copy on `device`, or itself where it is there already."""
        if self.times.device == device:
            return self
        return replace(
            self,
            table=self.table.to(device),
            numbers=self.numbers.to(device),
            times=self.times.to(device),
            codes=self.codes.to(device),
            taught=None if self.taught is None else self.taught.to(device),
        )

    def inputs(self, items: Tensor, rows: Tensor) -> EventInputs:
        """What is known of the events `rows` (B, L), whose items are `items` (B, L)."""
        values = [field_values(field, items, rows) for field in self.table.intents]
        return EventInputs(
            items, rows, values, self.numbers[rows], self.times[rows], self.codes[rows]
        )

    def labels(self, field: IntentLabels, rows: Tensor) -> Tensor:
        """What a head learns of events: labels (T,), or (T, d) of their items.

        Args:
            field: of the table.
            rows: (T,) numbers of the events.
        """
        if self.taught is not None:
            rows = self.taught[rows]
        return field.labels[rows if field.kind == "single" else self.table.items[rows]]


def know_events(dataset: PreparedDataset, fields: Mapping[str, str], shuffled: bool) -> KnownEvents:
    """Look everything up once.

    Args:
        dataset: prepared.
        fields: name to rule.
        shuffled: whether heads learn labels of other events: as many of each label, and nothing
            to learn them from.

    Raises:
        RequestError: the dataset lacks what a rule needs.
    """
    table = build_events(dataset, fields)
    times, gaps = table.timestamps, table.gaps
    if times is None or gaps is None:
        times = gaps = torch.zeros_like(table.items)
    clean = without_noise(dataset)
    usual = build_events(clean, {}).gaps
    scale = None if usual is None else gap_scale(usual, clean.split == TRAIN)
    numbers = event_numbers(table, scale)
    taught = shuffled_events(table, dataset.split == TRAIN) if shuffled else None
    return KnownEvents(table, numbers, times, time_codes(times, gaps), taught)


def label_shares(field: IntentLabels, table: EventTable, training: Tensor) -> Tensor:
    """(d,) share of the training events that have each label, of those that have one.

    Args:
        field: of the table.
        table: of E events, on the CPU.
        training: (E,) bool.
    """
    if field.kind == "multi":
        held = field.labels[table.items[:-1][training]]
        return held.sum(0) / held.any(1).sum().clamp(min=1)
    labels = field.labels[:-1][training]
    counts = torch.bincount(labels[labels >= 0], minlength=len(field.names))
    return counts / counts.sum().clamp(min=1)


def shuffled_events(table: EventTable, training: Tensor) -> Tensor:
    """A permutation of the training targets: an event's item does not tell the labels it gets.

    Args:
        table: of E events, on the CPU.
        training: (E,) bool.

    Returns:
        (E + 1,) a training target for each training target; all other events stay. A user's first
        event is no target.
    """
    targets = training.clone()
    begin, end = table.offsets[:-1], table.offsets[1:]
    targets[begin[end > begin]] = False
    rows = targets.nonzero().flatten()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    taught = torch.arange(len(table.items))
    taught[rows] = rows[order]
    return taught


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Rectangles (b, w, …) of a batch's groups, flattened and joined."""
    flat = [part.flatten(0, 1) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat)
