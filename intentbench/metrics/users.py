"""Metrics of users, from the ranks of their targets: what records state and pages compare.

A user with one target has the target's metric. With several there are two protocols. Where the
targets follow one another, each is a question of its own, and what counts is the mean over targets.
Where they are a set, as in collaborative filtering, the list as a whole is judged by what it holds
of the set. This module loads NumPy alone.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.metrics.formulas import compute_metric

SETS = "train"
"""The `history` (see `datamodules.prepared.Meta`) of data whose held-out items of a user are a
set."""

_SUCCESSIVE = ("hit_rate@5", "ndcg@5", "hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20", "mrr")
_OF_SETS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "recall@20", "ndcg@20")


def metric_names(history: str) -> tuple[str, ...]:
    """The metrics that records and pages publish, in their order.

    Args:
        history: what stands before a target; "" where a record does not say, which is no set.
    """
    return _OF_SETS if history == SETS else _SUCCESSIVE


def headline_metrics(history: str) -> tuple[str, str]:
    """The two metrics that are compared with published figures."""
    return ("recall@20", "ndcg@20") if history == SETS else ("hit_rate@10", "ndcg@10")


def primary_metric(history: str) -> str:
    """The metric that rows are sorted and tested by."""
    return "recall@20" if history == SETS else "ndcg@10"


def user_values(
    name: str, user: NDArray[np.integer], rank: NDArray[np.integer], history: str
) -> NDArray[np.float64]:
    """A metric of every user that has a target.

    - `recall@k`: the share of the user's targets among the first k.
    - `ndcg@k` of sets: the sum of 1 / log2(1 + rank) over the targets among the first k, divided
      by what the best order gives, the same sum over ranks 1 to min(k, number of targets); as in
      the code of IRLLRec (SIGIR 2025), He et al., "LightGCN" (SIGIR 2020), and others.
    - any other metric, and `ndcg@k` elsewhere: the sum over the user's targets, scaled by U / T,
      so that the mean over users is the mean over targets.

    Args:
        name: "recall@k" or a name of `compute_metric`; of sets "recall@k" and "ndcg@k" alone.
        user: (T,) user of each target, ascending.
        rank: (..., T) ranks, 1 is best. Targets of one user are candidates beside one another.
        history: what stands before a target, see `datamodules.prepared.Meta`.

    Returns:
        (..., U) values of the users, ascending.

    Raises:
        RequestError: there is no such metric.

    >>> user, rank = np.array([0, 0, 7]), np.array([1, 30, 3])
    >>> user_values("recall@10", user, rank, SETS)
    array([0.5, 1. ])
    >>> user_values("ndcg@10", user, rank, SETS).round(4)
    array([0.6131, 0.5   ])
    """
    formula, _, k = name.partition("@")
    if history == SETS and formula not in ("recall", "ndcg"):
        raise RequestError(f"no metric {name!r} of sets of targets; there are recall@k and ndcg@k")
    try:
        values = compute_metric(f"hit_rate@{k}" if formula == "recall" else name, rank)
    except RequestError as error:
        known = str(error).partition("; ")[2]
        raise RequestError(f"no metric {name!r}; {known}, of users also recall@k") from None
    first = np.flatnonzero(np.diff(user, prepend=-1))
    if len(first) == len(user):
        return values  # one target each: all definitions agree
    count = np.diff(first, append=len(user))
    sums: NDArray[np.float64] = np.add.reduceat(values, first, axis=-1)
    if formula == "recall":
        sums /= count
        return sums
    if history == SETS:
        best = np.cumsum(compute_metric(name, np.arange(1, int(k) + 1)))  # of 1, 2, … k targets
        sums /= best[np.minimum(count, int(k)) - 1]
        return sums
    return sums * (len(first) / len(user))


def mean_metric(
    name: str, user: NDArray[np.integer], rank: NDArray[np.integer], history: str
) -> float:
    """The mean over users of `user_values`."""
    return float(user_values(name, user, rank, history).mean())
