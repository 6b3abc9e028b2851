"""The names that everything shares: the padding id and the typed batches.

Shapes: B batch, L trimmed length, H history length. Items are 1..V, `PAD` is 0. Sequences are
stored oldest first and padded on the **right**, so that a causal mask alone hides the padding and
the position of an item is counted from the first item of its window.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

PAD = 0
"""The item id that stands for "nothing here"; never a candidate, never a target."""


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Rows for training: a window of items and what follows at each position.

    Rows are sorted by falling length, and `groups` cuts them into runs of similar length, so that
    an encoder may run a few narrow rectangles instead of a wide one. All of it is known on the
    host: using it costs no synchronisation with the device.

    Attributes:
        users: (B,) int64, row of the user in the prepared dataset, 0..N-1.
        items: (B, L) int64, the inputs, `PAD` on the right.
        lengths: (B,) int64, number of inputs, at least 1.
        targets: (B, L) int64, the next item where the position is a target, else `PAD`.
        select: (T,) int64, where the T real targets stand once each group is cut to its width,
            flattened to (rows * width) and joined (see `nn.grouping.encode_groups`). Losses index
            states with it: they see no padding and need not ask the device how many there are.
        rows: (T,) int64, row of the batch that each real target belongs to.
        labels: (T,) int64, the real targets themselves.
        key: (B,) int64, position of each row's last target among the user's events: (user, key)
            names a row of layout "prefix".
        groups: (start, stop, width) of each run of rows; together they cover 0..B, and no row in
            a run is longer than its width.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    targets: Tensor
    select: Tensor
    rows: Tensor
    labels: Tensor
    key: Tensor
    groups: tuple[tuple[int, int, int], ...]

    def to(self, device: torch.device | str) -> "SequenceBatch":
        """A copy whose tensors are on `device` (asynchronously from pinned memory)."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "SequenceBatch":
        """A copy in pinned host memory."""
        return _mapped(self, Tensor.pin_memory)


@dataclass(frozen=True, slots=True)
class EvaluationBatch:
    """Rows for ranking: what is known of a user, and the item that came next.

    Attributes:
        users: (B,) int64, row of the user in the prepared dataset.
        items: (B, L) int64, the window of inputs, `PAD` on the right.
        lengths: (B,) int64, number of inputs in the window; 0 where nothing is known.
        select: (B,) int64, where the last state of each row stands in the joined groups.
        groups: as in `SequenceBatch`.
        history: (B, H) int64, every input event of the user, oldest first, `PAD` on the right:
            the window and all before it.
        masked: (B, M) int64, items that ranking excludes, `PAD` where none: the history, or
            nothing (M = 0) where the protocol leaves the history in.
        target: (B,) int64, the item to be ranked; `PAD` when predicting without one.
        key: (B,) int64, position of the target among the user's events: (user, key) names a rank.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    select: Tensor
    groups: tuple[tuple[int, int, int], ...]
    history: Tensor
    masked: Tensor
    target: Tensor
    key: Tensor

    def to(self, device: torch.device | str) -> "EvaluationBatch":
        """A copy whose tensors are on `device` (asynchronously from pinned memory)."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "EvaluationBatch":
        """A copy in pinned host memory."""
        return _mapped(self, Tensor.pin_memory)


Batch = SequenceBatch | EvaluationBatch
"""Whatever has `users`, `items`, `lengths`, `select` and `groups`."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Every training event of a dataset, flat, for methods that need no gradient.

    Attributes:
        items: (E,) int64, training events of all users, user by user, oldest first.
        offsets: (N + 1,) int64, user u owns `items[offsets[u]:offsets[u + 1]]`.
        n_items: V, the size of the catalogue.
    """

    items: Tensor
    offsets: Tensor
    n_items: int

    @property
    def n_users(self) -> int:
        """N, the number of users."""
        return len(self.offsets) - 1

    @property
    def users(self) -> Tensor:
        """(E,) int64, the user of each event."""
        return torch.repeat_interleave(
            torch.arange(self.n_users, device=self.offsets.device), self.offsets.diff()
        )


_B = TypeVar("_B", SequenceBatch, EvaluationBatch)


def _mapped(batch: _B, change: Callable[[Tensor], Tensor]) -> _B:
    tensors: dict[str, Any] = {
        field.name: change(value)
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    return replace(batch, **tensors)
