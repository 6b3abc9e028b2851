"""p-values of one family, corrected for their number."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from statsmodels.stats.multitest import multipletests

Method = Literal["holm", "bh"]
"""Holm (1979) bounds the chance of any false claim; Benjamini & Hochberg (1995) the share of false
claims, for exploring only."""

_STATSMODELS = {"holm": "holm", "bh": "fdr_bh"}


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
    made = [i for i, p in enumerate(p_values) if p is not None and not np.isnan(p)]
    adjusted: list[float | None] = [None] * len(p_values)
    if made:  # multipletests counts a NaN as a test, and refuses an empty family
        corrected = multipletests([p_values[i] for i in made], method=_STATSMODELS[method])[1]
        for i, p in zip(made, corrected, strict=True):
            adjusted[i] = float(p)
    return adjusted
