"""Which rows a dataset gives: training windows and evaluation queries, as flat index arrays.

Everything is arithmetic on offsets; there is no loop over users.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Layout = Literal["all", "prefix", "pair"]
Targets = Literal["last", "every", "final"]
Groups = tuple[tuple[int, int, int], ...]

GROUP_COST = 300
"""Cells (row x width) that one more group may cost before it is not worth it: an encoder's fixed
cost for a group, measured on two CPU threads with width 64 (`benchmarks/performance`)."""


@dataclass(frozen=True)
class TrainingRows:
    """Windows of the flat event array.

    Attributes:
        users: (R,) row of the user.
        start: (R,) first input event.
        stop: (R,) one past the last input event.
        first: (R,) first input event that has a target in this row.
        shift: the target at event e is event e + shift: 1 for the next item, 0 for itself.
    """

    users: Ints
    start: Ints
    stop: Ints
    first: Ints
    shift: int = 1

    def __len__(self) -> int:
        """R, the number of rows."""
        return len(self.users)


@dataclass(frozen=True)
class Queries:
    """What is to be ranked.

    Attributes:
        users: (Q,) row of the user.
        stop: (Q,) one past the last input event.
        target: (Q,) event that is to be predicted; -1 where there is none.
    """

    users: Ints
    stop: Ints
    target: Ints

    def __len__(self) -> int:
        """Q, the number of queries."""
        return len(self.users)


def training_rows(
    begin: Ints, counts: Ints, layout: Layout, window: int, targets: Targets
) -> TrainingRows:
    """Cut each user's training events into rows.

    Args:
        begin: (N,) first event of each user.
        counts: (N,) number of training events of each user.
        layout: "all" one row a user, every position a target; "prefix" one row a target, its
            last position the target; "pair" one row an event, which is its own target.
        window: inputs of a row at most, N in the papers.
        targets: "last": only the user's last `window` inputs make targets (the papers' code);
            "every": each event but the first is a target once, after its last `window` inputs;
            "final": only the user's last event is a target, of one row in either layout.

    Returns:
        The rows, user by user. Users with fewer than two training events give none, except in
        layout "pair".
    """
    if layout == "pair":
        users = np.repeat(np.arange(len(begin)), counts)
        start = _ranges(begin, counts)
        return TrainingRows(users, start, start + 1, start, shift=0)
    pairs = np.maximum(counts - 1, 0)  # inputs that have a successor
    if targets == "final":
        head = np.flatnonzero(pairs)
        last = begin[head] + pairs[head] - 1
        return TrainingRows(head, np.maximum(last + 1 - window, begin[head]), last + 1, last)
    base = begin + np.maximum(pairs - window, 0) if targets == "last" else begin
    pairs = begin + pairs - base
    if layout == "all":
        head = np.flatnonzero(pairs)
        whole = TrainingRows(
            head, base[head], base[head] + np.minimum(pairs[head], window), base[head]
        )
        later = np.maximum(pairs - window, 0)  # targets whose window must slide
        users = np.repeat(np.arange(len(begin)), later)
        stop = _ranges(base + window, later) + 1
        return _joined(whole, TrainingRows(users, stop - window, stop, stop - 1))
    users = np.repeat(np.arange(len(begin)), pairs)
    last = _ranges(base, pairs)
    return TrainingRows(users, np.maximum(last + 1 - window, base[users]), last + 1, last)


def evaluation_queries(
    offsets: Ints, split: NDArray[np.uint8], stage: int, history: str
) -> Queries:
    """One query for each event of a stage.

    Args:
        offsets: (N + 1,) events of each user.
        split: (E,) split of each event.
        stage: the split whose events are targets.
        history: what stands before a target, see `datamodules.prepared.Meta.history`.
    """
    target = np.flatnonzero(split == stage)
    users = np.searchsorted(offsets, target, side="right") - 1
    if history == "successive":
        return Queries(users, target.copy(), target)
    limit = stage if history == "block" else 1  # "train": events of split 0 only
    before = np.concatenate([[0], np.cumsum(split < limit)])
    stop = offsets[users] + before[offsets[users + 1]] - before[offsets[users]]
    return Queries(users, stop, target)


def cut_groups(lengths: Ints) -> Groups:
    """Cut rows of falling length into groups so that little is padded.

    Minimises cells computed plus `GROUP_COST` a group, by dynamic programming over the places
    where the length changes.

    Args:
        lengths: (B,) row lengths, falling.

    Returns:
        (start, stop, width) of each group; widths are at least 1.

    >>> cut_groups(np.array([50] + [4] * 20))
    ((0, 1, 50), (1, 21, 4))
    """
    widths = np.maximum(lengths, 1)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(widths)) + 1, [len(widths)]])
    cost = np.zeros(len(edges))
    origin = np.zeros(len(edges), dtype=np.int64)
    for end in range(1, len(edges)):
        starts = edges[:end]
        total = cost[:end] + (edges[end] - starts) * widths[starts] + GROUP_COST
        origin[end] = np.argmin(total)
        cost[end] = total[origin[end]]
    groups = []
    end = len(edges) - 1
    while end > 0:
        begin = int(origin[end])
        groups.append((int(edges[begin]), int(edges[end]), int(widths[edges[begin]])))
        end = begin
    return tuple(reversed(groups))


def flat_starts(groups: Groups) -> Ints:
    """Where each row begins once the groups are flattened and joined, (B,)."""
    parts: list[Ints] = []
    base = 0
    for start, stop, width in groups:
        parts.append(base + width * np.arange(stop - start))
        base += width * (stop - start)
    return np.concatenate(parts)


def _ranges(start: Ints, counts: Ints) -> Ints:
    """start[0] .. start[0] + counts[0] - 1, start[1] .. and so on, joined."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    shift: Ints = np.repeat(start - (ends - counts), counts)
    return np.arange(total) + shift


def _joined(a: TrainingRows, b: TrainingRows) -> TrainingRows:
    return TrainingRows(
        np.concatenate([a.users, b.users]),
        np.concatenate([a.start, b.start]),
        np.concatenate([a.stop, b.stop]),
        np.concatenate([a.first, b.first]),
    )
