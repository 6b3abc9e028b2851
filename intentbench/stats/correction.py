"""p-values of one family, corrected for their number.

A few lines of NumPy, held against `statsmodels.stats.multitest.multipletests` by the tests:
importing that takes seconds and loads pandas and polars, which reading results must not need.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Method = Literal["holm", "bh"]
"""Holm (1979) bounds the chance of any false claim; Benjamini & Hochberg (1995) the share of false
claims, for exploring only."""


def adjust(p_values: Sequence[float | None], method: Method = "holm") -> list[float | None]:
    """Correct the p-values of one family.

    Args:
        p_values: one a comparison; None or NaN where it could not be made. Such a comparison is no
            member of the family.
        method: of correction.

    Returns:
        Adjusted p-values in the same order, to be compared with alpha; None where there was none.

    >>> [round(p, 3) for p in adjust([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    made = np.array([i for i, p in enumerate(p_values) if p is not None and not np.isnan(p)], int)
    p = np.array([p_values[i] for i in made], dtype=np.float64)
    order, n = np.argsort(p, kind="stable"), len(p)
    if method == "holm":  # the smallest of n counts n times, the next n - 1 times, …
        corrected = np.maximum.accumulate(p[order] * np.arange(n, 0, -1))
    else:
        corrected = np.minimum.accumulate((p[order] * n / np.arange(1, n + 1))[::-1])[::-1]
    adjusted: list[float | None] = [None] * len(p_values)
    for i, value in zip(made[order], corrected, strict=True):
        adjusted[i] = min(float(value), 1.0)
    return adjusted
