"""Iterables of ready batches: the order of rows, and the gathering of their items.

A batch is a few vectorised gathers, cheaper than waking a worker process, so there are none.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.rows import Groups, Ints, Queries, TrainingRows, cut_groups, flat_starts
from datamodules.types import PAD, EvaluationBatch, SequenceBatch

_B = TypeVar("_B", SequenceBatch, EvaluationBatch)


class BatchOrder:
    """Which rows form which batch.

    The order of an epoch depends on (seed, epoch) alone, so that a resumed run goes on exactly as
    it would have. With several processes each takes every `world`-th row of a global batch; a
    last global batch with fewer rows than processes is left out when shuffling.

    Args:
        count: number of rows.
        batch_size: rows a batch and process.
        seed: of the shuffle; None keeps the given order.
        rank: number of this process.
        world: how many processes there are.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int | None, rank: int = 0, world: int = 1
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches an epoch of this process."""
        whole, rest = divmod(self.count, self.batch_size * self.world)
        return whole + (rest > (self.world - 1 if self.seed is not None else self.rank))

    def __iter__(self) -> Iterator[Ints]:
        """Row numbers of each batch."""
        rows = np.arange(self.count)
        if self.seed is not None:
            rows = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        step = self.batch_size * self.world
        for number in range(len(self)):
            yield rows[number * step : (number + 1) * step][self.rank :: self.world]


class BatchLoader(Generic[_B]):
    """What a Trainer iterates over: an order, and a function from row numbers to a batch.

    Args:
        order: the rows of each batch. It is called `sampler` here, where Lightning looks for
            `set_epoch`.
        build: makes a batch of row numbers.
    """

    batch_sampler = None  # Lightning reads it of anything that has a sampler

    def __init__(self, order: BatchOrder, build: Callable[[Ints], _B]) -> None:
        self.sampler = order
        self.build: Callable[[Ints], _B] = build

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[_B]:
        """The batches of the current epoch."""
        return map(self.build, self.sampler)


@dataclass(frozen=True)
class Gatherer:
    """Turns row numbers into batches.

    Attributes:
        items: (E,) int64, every event's item, on the device where batches are made.
        offsets: (N + 1,) events of each user, on the host.
        window: inputs of a row at most.
        pad_to_window: make every batch `window` wide, in one group.
        mask_history: whether ranking excludes the history.
        pin: put finished batches into pinned memory, to be copied while the device computes.
    """

    items: Tensor
    offsets: Ints
    window: int
    pad_to_window: bool
    mask_history: bool
    pin: bool

    def training(self, rows: TrainingRows, chosen: Ints) -> SequenceBatch:
        """The batch of the chosen training rows."""
        lengths = rows.stop[chosen] - rows.start[chosen]
        order = np.argsort(-lengths, kind="stable")
        chosen, lengths = chosen[order], lengths[order]
        start, groups = rows.start[chosen], self._groups(lengths)
        users = rows.users[chosen]
        skipped = rows.first[chosen] - start
        real = lengths - skipped  # targets of each row
        row = np.repeat(np.arange(len(chosen)), real)
        position = np.arange(len(row)) - np.repeat(np.cumsum(real) - real, real) + skipped[row]
        items = self._windows(start, lengths, groups[0][2])
        select = self._tensor(flat_starts(groups)[row] + position)
        labels = self.items[self._tensor(start[row] + position + rows.shift)]
        targets = torch.full_like(items, PAD)
        targets[self._tensor(row), self._tensor(position)] = labels
        batch = SequenceBatch(
            users=self._tensor(users),
            items=items,
            lengths=self._tensor(lengths),
            targets=targets,
            select=select,
            rows=self._tensor(row),
            labels=labels,
            key=self._tensor(rows.stop[chosen] - 1 + rows.shift - self.offsets[users]),
            groups=groups,
        )
        return batch.pin_memory() if self.pin else batch

    def evaluation(self, queries: Queries, chosen: Ints) -> EvaluationBatch:
        """The batch of the chosen queries."""
        begin = self.offsets[queries.users[chosen]]
        known = queries.stop[chosen] - begin
        order = np.argsort(-known, kind="stable")
        chosen, begin, known = chosen[order], begin[order], known[order]
        lengths = np.minimum(known, self.window)
        groups = self._groups(lengths)
        items = self._windows(begin + known - lengths, lengths, groups[0][2])
        history = self._windows(begin, known, max(int(known[0]), 1))
        target = queries.target[chosen]
        masked = history if self.mask_history else history[:, :0]
        wanted = self.items[self._tensor(np.maximum(target, 0))]
        exists = self._tensor(target >= 0)
        batch = EvaluationBatch(
            users=self._tensor(queries.users[chosen]),
            items=items,
            lengths=self._tensor(lengths),
            select=self._tensor(flat_starts(groups) + np.maximum(lengths - 1, 0)),
            groups=groups,
            history=history,
            masked=masked,
            target=torch.where(exists, wanted, PAD),
            key=self._tensor(np.where(target >= 0, target - begin, -1)),
        )
        return batch.pin_memory() if self.pin else batch

    def _groups(self, lengths: Ints) -> Groups:
        if self.pad_to_window:
            return ((0, len(lengths), self.window),)
        return cut_groups(lengths)

    def _windows(self, start: Ints, lengths: Ints, width: int) -> Tensor:
        """Items of [start, start + length) of each row, `PAD` on the right."""
        begin, count = self._tensor(start), self._tensor(lengths)
        column = torch.arange(width, device=self.items.device)
        inside = column < count[:, None]
        where = (begin[:, None] + column).clamp_(max=len(self.items) - 1)
        return torch.where(inside, self.items[where], PAD)

    def _tensor(self, array: NDArray[np.int64] | NDArray[np.bool_]) -> Tensor:
        tensor = torch.from_numpy(array)
        if not self.items.is_cuda:
            return tensor
        return tensor.pin_memory().to(self.items.device, non_blocking=True)
