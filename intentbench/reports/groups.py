"""Users by how active they are: does a row gain where little is known, or where much is?

The rule is that of IRLLRec's Figure 3 (SIGIR 2025), which gives its sizes on amazon-book: users
with a target, by the number of all their interactions, cut where the running total of
interactions passes each share; users tied at a cut belong to the lower group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentbench.reports.cells import Cell, Table
from intentbench.stats.contrast import Contrast, contrast


@dataclass(frozen=True, eq=False)
class Groups:
    """Users of a table by activity, each group with about the same number of interactions.

    Attributes:
        cuts: most interactions of a user of each group but the last.
        member: (U,) number of each user's group, from 0.
    """

    cuts: tuple[int, ...]
    member: NDArray[np.int64]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Users of each group."""
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


def activity_groups(user: NDArray[np.integer], key: NDArray[np.integer], count: int) -> Groups:
    """Cut the users of a table into groups of about equal total activity.

    A user's interactions are those up to the last target: events stand in the order of training,
    validation, test, so its position says how many there are.

    Args:
        user: (T,) user of each target, ascending.
        key: (T,) position of each target among the user's events, ascending within a user.
        count: of groups.
    """
    last = np.flatnonzero(np.diff(user, append=-1))
    events = key[last].astype(np.int64) + 1
    ordered = np.sort(events)
    running = np.cumsum(ordered)
    places = np.searchsorted(running, running[-1] * np.arange(1, count) / count)
    cuts = np.unique(ordered[places])
    cuts = cuts[cuts < ordered[-1]]  # above the last cut there must be someone
    return Groups(tuple(cuts.tolist()), np.searchsorted(cuts, events))


def measure_groups(
    table: Table, groups: Groups, cells: Sequence[Cell], reference: str, metric: str, alpha: float
) -> list[GroupedRow]:
    """Each row in each group, beside the reference.

    Args:
        table: of the dataset.
        groups: of its users.
        cells: rows, in the order of the page.
        reference: label of one of them.
        metric: what is measured.
        alpha: 1 - the level of the intervals, which are not corrected.
    """
    values = {cell.label: table.values(cell.ranks, metric) for cell in cells}
    fixed = {cell.label for cell in cells if cell.deterministic}
    masks = [groups.member == number for number in range(len(groups.cuts) + 1)]
    rows = []
    for label, own in values.items():
        differences = None
        if label != reference and reference in values:
            differences = tuple(
                contrast(
                    own[:, mask],
                    values[reference][:, mask],
                    deterministic_a=label in fixed,
                    deterministic_b=reference in fixed,
                    alpha=alpha,
                )
                for mask in masks
            )
        means = tuple(float(own[:, mask].mean()) for mask in masks)
        rows.append(GroupedRow(label, means, differences))
    return rows
