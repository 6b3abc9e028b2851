"""The ranks of all users, gathered over batches and processes."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class ConflictingRanksError(ValueError):
    """One target was ranked twice, with different results."""


class RankTable(NamedTuple):
    """One rank a target, sorted by (user, key).

    A named tuple, as torchmetrics refuses frozen dataclasses as results.

    Attributes:
        user: (T,) int32, row of the user in the prepared dataset.
        key: (T,) int32, position of the target among the user's events.
        rank: (T,) int32, 1 is best.
    """

    user: NDArray[np.int32]
    key: NDArray[np.int32]
    rank: NDArray[np.int32]


def build_rank_table(
    user: NDArray[np.integer], key: NDArray[np.integer], rank: NDArray[np.integer]
) -> RankTable:
    """Sort ranks by (user, key) and drop repeats, which distributed samplers add to even out ranks.

    Args:
        user: (T,) rows of users.
        key: (T,) positions of the targets among their users' events.
        rank: (T,) ranks.

    Raises:
        ConflictingRanksError: a (user, key) comes with two ranks.
    """
    order = np.lexsort((key, user))
    user, key, rank = (column[order].astype(np.int32) for column in (user, key, rank))
    repeated = (np.diff(user) == 0) & (np.diff(key) == 0)
    conflicts = np.flatnonzero(repeated & (np.diff(rank) != 0))
    if len(conflicts):
        at = conflicts[0]
        raise ConflictingRanksError(
            f"{len(conflicts)} targets have two ranks; the first is user {user[at]}, event "
            f"{key[at]}: {rank[at]} and {rank[at + 1]}; was the metric reset between evaluations?"
        )
    first = np.r_[True, ~repeated][: len(user)]
    return RankTable(user[first], key[first], rank[first])


class RankMetric(Metric):
    """Keeps the rank of every target; `compute` gathers them from all processes.

    Metrics follow from the table (see `formulas`), at any k and for any group of users.
    """

    full_state_update = False
    user: list[Tensor]
    key: list[Tensor]
    rank: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("user", "key", "rank"):
            self.add_state(name, [], dist_reduce_fx="cat")
        # A process without any data gathers an empty tensor of the metric's own type; were that
        # not the type of the others' states, the bytes would be misread.
        self.set_dtype(torch.int64)

    def update(self, users: Tensor, keys: Tensor, ranks: Tensor) -> None:
        """Add a batch.

        Args:
            users: (B,) int64, rows of users.
            keys: (B,) int64, positions of the targets among their users' events.
            ranks: (B,) int64.
        """
        self.user.append(users)
        self.key.append(keys)
        self.rank.append(ranks)

    def compute(self) -> RankTable:
        """The ranks of all processes, each target once.

        Raises:
            ConflictingRanksError: a (user, key) comes with two ranks.
            ValueError: there are no ranks at all.
        """
        columns = (dim_zero_cat(state) for state in (self.user, self.key, self.rank))
        return build_rank_table(*(column.cpu().numpy() for column in columns))
