"""Beyond accuracy: which items a method recommends, and how unevenly. NumPy only.

All take top-k lists (N, k) of item ids 1..V, one row a user; `PAD` (0) marks a place left empty
and is passed over. For a metric at a smaller k pass `lists[:, :k]`. Where training counts are
asked for, `counts` (V + 1,) has the number of training events of each item, 0 at `PAD`.
"""

import numpy as np
from numpy.typing import NDArray


def coverage(lists: NDArray[np.integer], n_items: int) -> float:
    """Share of the catalogue that is recommended to anyone: |union of the lists| / V.

    Catalog coverage of Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating
    recommender systems by coverage and serendipity", RecSys 2010.

    Raises:
        ValueError: the lists are empty, or have ids outside 1..V.

    >>> coverage(np.array([[1, 2], [2, 3]]), n_items=6)
    0.5
    """
    return float((_exposure(lists, n_items) > 0).sum() / n_items)


def gini(lists: NDArray[np.integer], n_items: int) -> float:
    """Inequality of exposure: 0 if all items appear equally often, 1 if one item has every place.

    sum over j of (2j - V - 1) p_j / (V - 1), where p_1 <= … <= p_V are the items' shares of all
    places: Shani and Gunawardana, "Evaluating recommendation systems", Recommender Systems
    Handbook, 2011, on sales diversity. A catalogue of one item has 0.

    Raises:
        ValueError: the lists are empty, or have ids outside 1..V.

    >>> gini(np.array([[1], [1]]), n_items=5)
    1.0
    """
    shares = np.sort(_exposure(lists, n_items) / np.count_nonzero(lists))
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ shares / max(n_items - 1, 1))


def mean_popularity(lists: NDArray[np.integer], counts: NDArray[np.integer]) -> float:
    """Mean number of training events of what is recommended, over all places of all lists.

    Yin, Cui, Li, Yao and Chen, "Challenging the long tail recommendation", VLDB 2012; with full
    lists their mean over users of the mean over places is the same.

    Raises:
        ValueError: the lists are empty, or have ids outside 1..V.

    >>> mean_popularity(np.array([[1, 2]]), np.array([0, 6, 2]))
    4.0
    """
    exposure = _exposure(lists, len(counts) - 1)
    return float(exposure @ counts[1:] / exposure.sum())


def novelty(lists: NDArray[np.integer], counts: NDArray[np.integer]) -> float:
    """Mean self-information of what is recommended, -log2 p(item), in bits.

    p is the item's share of all training events: Zhou et al., "Solving the apparent
    diversity-accuracy dilemma of recommender systems", PNAS 2010, who count users for events. An
    item without a training event counts as one with a single event, which keeps it finite.

    Raises:
        ValueError: the lists are empty or have ids outside 1..V, or there is no training event.

    >>> round(novelty(np.array([[1, 2]]), np.array([0, 6, 2])), 4)  # -log2 of 3/4 and of 1/4
    1.2075
    """
    if not counts[1:].any():
        raise ValueError("novelty needs training events; all counts are 0")
    exposure = _exposure(lists, len(counts) - 1)
    information = np.log2(counts[1:].sum()) - np.log2(np.maximum(counts[1:], 1))
    return float(exposure @ information / exposure.sum())


def _exposure(lists: NDArray[np.integer], n_items: int) -> NDArray[np.int64]:
    """(V,) how many places each item has."""
    if not np.any(lists):
        raise ValueError("no item is recommended: the lists are empty")
    if np.min(lists) < 0 or np.max(lists) > n_items:
        raise ValueError(f"the lists have item ids outside 1..{n_items}")
    return np.bincount(np.ravel(lists), minlength=n_items + 1)[1:]
