"""Metrics of one relevant item, from its rank: the only definitions in the project.

Every formula maps ranks (1 is best) of any shape to float64 values in [0, 1] of the same shape;
higher is better. This module loads NumPy alone, so that pages and tests run without torch.
"""

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.errors import RequestError


def hit_rate(rank: ArrayLike, k: int) -> NDArray[np.float64]:
    """1 where the target is among the first k, else 0; with one target also called recall@k.

    >>> hit_rate([1, 10, 11], k=10)
    array([1., 1., 0.])
    """
    return (np.asarray(rank) <= k).astype(np.float64)


def ndcg(rank: ArrayLike, k: int) -> NDArray[np.float64]:
    """1 / log2(1 + rank) among the first k, else 0: the ideal gain of one target is 1.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, with
    the discount 1 / log2(1 + rank) at every rank.

    >>> ndcg([1, 3, 11], k=10)
    array([1. , 0.5, 0. ])
    """
    rank = np.asarray(rank, dtype=np.float64)
    gain: NDArray[np.float64] = hit_rate(rank, k) / np.log2(1 + rank)
    return gain


def mrr(rank: ArrayLike, k: int | None = None) -> NDArray[np.float64]:
    """1 / rank, at all ranks or among the first k and else 0.

    >>> mrr([1, 4, 20], k=10)
    array([1.  , 0.25, 0.  ])
    """
    rank = np.asarray(rank, dtype=np.float64)
    reciprocal: NDArray[np.float64] = 1 / rank
    return reciprocal if k is None else hit_rate(rank, k) * reciprocal


FORMULAS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "mrr": mrr,
}
"""Every metric by its name, the part before "@k"."""

_NAME = re.compile(r"(?P<formula>[a-z_]+)(@(?P<k>[1-9][0-9]*))?")


def compute_metric(name: str, rank: ArrayLike) -> NDArray[np.float64]:
    """Values of a named metric, one a rank.

    Args:
        name: "hit_rate@k", "ndcg@k", "mrr@k" or "mrr".
        rank: ranks of any shape, 1 is best.

    Returns:
        Values of the same shape, in [0, 1].

    Raises:
        RequestError: there is no such metric.

    >>> compute_metric("ndcg@10", [1, 3]).mean().item()
    0.75
    """
    match = _NAME.fullmatch(name)
    formula = FORMULAS.get(match["formula"]) if match else None
    if match is None or formula is None or (match["k"] is None and formula is not mrr):
        known = ", ".join(f"{formula}@k" for formula in FORMULAS)
        raise RequestError(f"no metric {name!r}; there are {known} (k from 1) and mrr")
    return formula(rank) if match["k"] is None else formula(rank, int(match["k"]))
