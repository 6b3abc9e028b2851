"""Users by how active they are, targets by how popular their item is: where does a row gain?

The rule of activity is that of IRLLRec's Figure 3 (SIGIR 2025), which gives its sizes on
amazon-book: users with a target, by the number of all their interactions, cut where the running
total of interactions passes each share; users tied at a cut belong to the lower group. Targets are
cut by the same rule, a target counting as one interaction. Cuts may be named instead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from intentbench.reports.cells import Cell, Table
from intentbench.reports.values import user_values
from intentbench.results.grouping import Grouping
from intentbench.stats.contrast import Contrast, contrast, find_relative_ends

FEWEST = 2
"""Users without whom there is no variance; a group of fewer joins a neighbour."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Users, or targets, of a table by a number that each has.

    Attributes:
        cuts: largest number in each group but the last.
        member: (U,) or (T,) the group of each, from 0.
        named: whether the cuts were asked for, and not made from shares.
    """

    cuts: tuple[int, ...]
    member: NDArray[np.int64]
    named: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Users, or targets, of each group."""
        return tuple(np.bincount(self.member, minlength=len(self.cuts) + 1).tolist())

    @property
    def headings(self) -> tuple[str, ...]:
        """What each group is, as printed."""
        low = ["", *(str(cut + 1) for cut in self.cuts)]
        high = [*map(str, self.cuts), ""]
        return tuple(
            f"≤ {above}" if not below else f"≥ {below}" if not above else f"{below} to {above}"
            for below, above in zip(low, high, strict=True)
        )


@dataclass(frozen=True, eq=False)
class GroupedRow:
    """A row in each group.

    Attributes:
        label: of the row.
        means: of the metric, over the group's users and seeds.
        differences: to the reference in the same users; None for the reference itself.
    """

    label: str
    means: tuple[float, ...]
    differences: tuple[Contrast, ...] | None


def activity_groups(
    user: NDArray[np.integer], key: NDArray[np.integer], grouping: Grouping
) -> Groups:
    """Cut the users of a table into groups of about equal total activity, or where it is said.

    A user's interactions are those up to the last target: events stand in the order of training,
    validation, test, so its position says how many there are.

    Args:
        user: (T,) user of each target, ascending.
        key: (T,) position of each target among the user's events, ascending within a user.
        grouping: how many groups, or the largest number of interactions in each but the last.
    """
    last = np.flatnonzero(np.diff(user, append=-1))
    events = key[last].astype(np.int64) + 1
    if isinstance(grouping, tuple):
        return replace(_cut_at(np.array(grouping), events, user[last]), named=True)
    return _cut(events, events, user[last], grouping)


def popularity_groups(
    popularity: NDArray[np.integer], user: NDArray[np.integer], count: int
) -> Groups:
    """Cut the targets of a table into groups of about equal size, by the popularity of their items.

    Args:
        popularity: (T,) training interactions of each target's item.
        user: (T,) user of each target.
        count: of groups.
    """
    return _cut(popularity.astype(np.int64), np.ones(len(user), np.int64), user, count)


def _cut(
    number: NDArray[np.int64], weight: NDArray[np.int64], user: NDArray[np.integer], count: int
) -> Groups:
    """Cut by a number where the running total of a weight passes each share."""
    order = np.argsort(number, kind="stable")
    running = np.cumsum(weight[order])
    places = np.searchsorted(running, running[-1] * np.arange(1, count) / count)
    return _cut_at(np.unique(number[order[places]]), number, user)


def _cut_at(
    cuts: NDArray[np.int64], number: NDArray[np.int64], user: NDArray[np.integer]
) -> Groups:
    """Cut at ascending numbers, but that no group has fewer than `FEWEST` users."""
    cuts = cuts[cuts < number.max()]  # above the last cut there must be someone
    while len(cuts):
        member = np.searchsorted(cuts, number)
        users = [len(np.unique(user[member == group])) for group in range(len(cuts) + 1)]
        if min(users) >= FEWEST:
            break
        cuts = np.delete(cuts, max(users.index(min(users)) - 1, 0))
    return Groups(tuple(cuts.tolist()), np.searchsorted(cuts, number))


def measure_groups(
    table: Table, groups: Groups, cells: Sequence[Cell], reference: str, metric: str, alpha: float
) -> list[GroupedRow]:
    """Each row in each group of users, beside the reference.

    Args:
        table: of the dataset.
        groups: of its users.
        cells: rows, in the order of the page.
        reference: label of one of them.
        metric: what is measured.
        alpha: 1 - the level of the intervals, which are not corrected.
    """
    values = {cell.label: table.values(cell.ranks, metric) for cell in cells}
    masks = (groups.member == number for number in range(len(groups.cuts) + 1))
    parts = ({label: own[:, mask] for label, own in values.items()} for mask in masks)
    return _rows(parts, cells, reference, alpha)


def measure_target_groups(
    table: Table, groups: Groups, cells: Sequence[Cell], reference: str, metric: str, alpha: float
) -> list[GroupedRow]:
    """Each row in each group of targets, beside the reference; users stay the unit.

    A user counts in each group that holds one of the user's targets, by those targets alone; their
    ranks stay those in the whole catalogue. Arguments as of `measure_groups`.
    """
    parts = []
    for number in range(len(groups.cuts) + 1):
        mask = groups.member == number
        user = table.user[mask]
        parts.append(
            {
                cell.label: user_values(metric, user, cell.ranks[:, mask], table.history)
                for cell in cells
            }
        )
    return _rows(parts, cells, reference, alpha)


def _rows(
    parts: Iterable[Mapping[str, NDArray[np.float64]]],
    cells: Sequence[Cell],
    reference: str,
    alpha: float,
) -> list[GroupedRow]:
    """Rows from the values of a group's users, (S, U of the group), by label."""
    fixed = {cell.label for cell in cells if cell.deterministic}
    means: dict[str, list[float]] = {cell.label: [] for cell in cells}
    differences: dict[str, list[Contrast]] = {cell.label: [] for cell in cells}
    for values in parts:
        for label, own in values.items():
            means[label].append(float(own.mean()))
            if label != reference and reference in values:
                found = contrast(
                    own,
                    values[reference],
                    deterministic_a=label in fixed,
                    deterministic_b=reference in fixed,
                    alpha=alpha,
                )
                differences[label].append(found)
    find_relative_ends(chain.from_iterable(differences.values()))
    return [
        GroupedRow(label, tuple(means[label]), tuple(differences[label]) or None) for label in means
    ]
