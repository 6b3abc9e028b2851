"""Intervals of ratios, searched for many pairs at once: against one pair and SciPy's brentq."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from intentbench.stats.components import Theta
from intentbench.stats.contrast import Contrast, contrast, find_relative_ends
from intentbench.stats.ratios import ratio_intervals

ALPHA = 0.05
STRIDE = 1.25


def pairs(count: int) -> list[Contrast]:
    """Pairs of few and of many users, with and without seeds, error and a mean."""
    generator = np.random.default_rng(4)
    found = []
    for _ in range(count):
        n_users = int(generator.choice([2, 3, 5, 20, 200]))
        a, b = (
            generator.choice([0, 0.3, 0.5, 1], (seeds, n_users))
            + generator.choice([0, 1]) * generator.normal(0, 0.1, (seeds, n_users))
            for seeds in generator.integers(1, 5, 2)
        )
        fixed = [bool(one) for one in generator.integers(0, 2, 2)]
        found.append(contrast(a, b, deterministic_a=fixed[0], deterministic_b=fixed[1]))
    return found


def slow_interval(theta: Theta) -> tuple[float | None, float | None]:
    """One pair, one c after the other."""

    def rejection(c: float) -> float:
        return float(theta.rejection(c, ALPHA))

    if theta.mean_b == 0 or theta.far_rejection(ALPHA) <= 0:
        return None, None
    middle = theta.mean_a / theta.mean_b
    first, edges = max(abs(middle), 1.0) * 1e-4, []
    for direction in (-1, 1):
        inner, step = middle, first
        while not rejection(outer := middle + direction * step) > 0:
            inner, step = outer, step * STRIDE
        begins = rejection(inner) >= 0
        edges.append(inner if begins else float(brentq(rejection, inner, outer, xtol=1e-300)))
    far = max(abs(edges[0]), abs(edges[1]), 1.0)
    for power in range(-25, 40):
        step = far * STRIDE**power
        if rejection(edges[0] - step) <= 0 or rejection(edges[1] + step) <= 0:
            return None, None
    return edges[0] - 1, edges[1] - 1


def numbers(ends: list[tuple[float | None, float | None]]) -> NDArray[np.float64]:
    """(N, 2) with NaN in place of None."""
    return np.array(ends, dtype=np.float64)


def test_many_at_once_are_what_each_is_alone() -> None:
    thetas = [one.theta for one in pairs(400)]
    expected = numbers([slow_interval(theta) for theta in thetas])
    assert 50 < np.isnan(expected[:, 0]).sum() < 350  # both kinds are there
    found = numbers(ratio_intervals(thetas, ALPHA))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


def test_ends_found_together_are_those_of_each_alone() -> None:
    together, alone = pairs(40), pairs(40)
    find_relative_ends(together[:30])
    find_relative_ends(together)  # some are there already
    assert all("relative_ends" in vars(one) for one in together)
    ours, theirs = (numbers([one.relative_ends for one in some]) for some in (together, alone))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_more_pairs_than_a_block_keep_their_order() -> None:
    few = [one.theta for one in pairs(30)]
    found, once = (numbers(ratio_intervals(some, ALPHA)) for some in (few * 40, few))
    np.testing.assert_allclose(found, np.tile(once, (40, 1)), rtol=1e-12, atol=1e-14)
    assert ratio_intervals([], ALPHA) == []
