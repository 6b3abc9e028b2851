"""Intervals of ratios of means after Fieller (1954), searched for many pairs at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize.elementwise import find_root
from scipy.special import stdtrit

from intentbench.stats.components import Theta

Floats = NDArray[np.float64]
Ends = tuple[float | None, float | None]

_STRIDE = 1.25  # of the search for the ends of an interval
_STRIDES, _AT_ONCE = 1664, 16  # until squares overflow
_BLOCK = 1024  # pairs at once: what is computed of them fits into a cache


def ratio_intervals(thetas: Sequence[Theta], alpha: float) -> list[Ends]:
    """{c - 1 : theta(c) is not separated from 0} of each.

    Returns:
        Ends; (None, None) where the set is unbounded or has a gap. Gaps come from df, which depends
        on c, and occur with a handful of users; those narrower than a stride of the search are
        overlooked.
    """
    found: list[Ends] = []
    for start in range(0, len(thetas), _BLOCK):
        found += _block(Theta.columns(thetas[start : start + _BLOCK]), alpha)
    return found


def _block(table: Floats, alpha: float) -> list[Ends]:
    """`ratio_intervals` of columns (F, N)."""
    found: list[Ends] = [(None, None)] * table.shape[1]
    every = Theta.of_columns(table)
    # Where mean(B) itself is not separated from 0, every large c passes.
    rows = np.flatnonzero((every.mean_b != 0) & (every.far_rejection(alpha) > 0))
    directions = np.repeat([-1, 1], len(rows))
    low, high = np.split(_edges(table[:, np.tile(rows, 2)], directions, alpha), 2)
    bounded = np.isfinite(low) & np.isfinite(high)
    rows, low, high = rows[bounded], low[bounded], high[bounded]
    far = np.maximum(np.maximum(abs(low), abs(high)), 1.0)
    steps = far[:, None] * _STRIDE ** np.arange(-25.0, 40.0)
    beyond = np.concatenate([low[:, None] - steps, high[:, None] + steps], axis=1)
    whole = _all_separated(Theta.of_columns(table[:, rows, None]), beyond, alpha)
    for row, *ends in zip(rows[whole], low[whole] - 1, high[whole] - 1, strict=True):
        found[row] = float(ends[0]), float(ends[1])
    return found


def _edges(table: Floats, direction: NDArray[np.integer], alpha: float) -> Floats:
    """Where rejection begins, going from the estimated ratio down (-1) or up (1); NaN: nowhere."""
    every = Theta.of_columns(table)
    middle: Floats = np.divide(every.mean_a, every.mean_b)
    first = np.maximum(abs(middle), 1.0) * 1e-4
    inner, outer = np.full((2, len(middle)), np.nan)
    waiting = np.arange(len(middle))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, _STRIDES, _AT_ONCE):
            steps = first[waiting, None] * _STRIDE ** np.arange(start - 1.0, start + _AT_ONCE)
            steps[:, 0] *= start > 0  # the ratio itself
            tried = middle[waiting, None] + direction[waiting, None] * steps
            theta = Theta.of_columns(table[:, waiting, None])
            rejected = theta.rejection(tried[:, 1:], alpha) > 0
            hit, place = rejected.any(axis=1), rejected.argmax(axis=1)
            inner[waiting[hit]] = tried[hit, place[hit]]
            outer[waiting[hit]] = tried[hit, place[hit] + 1]
            waiting = waiting[~hit]
            if not len(waiting):
                break
    # where there is no error at all, only rounding is left inside
    rows = np.flatnonzero(every.rejection(inner, alpha) < 0)

    def rejection(c: Floats, row: NDArray[np.integer]) -> Floats:
        value: Floats = Theta.of_columns(table[:, row]).rejection(c, alpha)
        return value

    inner[rows] = find_root(rejection, (inner[rows], outer[rows]), args=(rows,)).x
    return inner


def _all_separated(theta: Theta, c: Floats, alpha: float) -> NDArray[np.bool_]:
    """Whether theta is separated from 0 at every c (N, M) of a row; (N,)."""
    est, v_users, v_a, v_b, df = theta.at(c)
    error = (v_users + (v_a + v_b)) ** 0.5
    # The quantile falls with df: that of the least df decides nearly all, at one a row.
    widest = stdtrit(df.min(axis=1, keepdims=True), 1 - alpha / 2)
    inside = abs(est) <= widest * error
    inside[inside] = abs(est[inside]) <= stdtrit(df[inside], 1 - alpha / 2) * error[inside]
    separated: NDArray[np.bool_] = ~inside.any(axis=1)
    return separated
