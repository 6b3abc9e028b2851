import numpy as np
import pytest
from scipy import stats

from intentbench.stats.contrast import contrast
from intentbench.stats.effects import ROPE, measure_effect

A = np.array([[1.0, 0.5, 0.0, 0.5], [0.0, 0.5, 0.0, 1.0]])
B = np.array([[0.25, 0.5, 0.25, 0.0], [0.25, 0.5, 0.25, 0.25]])


def test_effect_counts_by_hand() -> None:
    test = contrast(A, B)
    found = measure_effect(A, B, test)
    # Averaged over seeds A is .5 .5 0 .75, B is .25 .5 .25 .125: two won, one tied, one lost.
    assert (found.won, found.tied, found.lost) == (2, 1, 1)
    assert found.win_share == 2.5 / 4
    # Seeds of A have means .5 and .375, those of B .25 and .3125: A wins all four.
    assert found.seed_win_share == 1
    assert found.d_z == pytest.approx(test.est / np.std([0.25, 0, -0.25, 0.625], ddof=1))


def test_effect_probabilities_are_areas_under_t() -> None:
    test = contrast(A, B)
    found = measure_effect(A, B, test)
    t = stats.t(test.df, loc=test.est, scale=test.se)
    rope = ROPE * test.mean_b
    assert found.p_better == pytest.approx(t.sf(rope))
    assert found.p_worse == pytest.approx(t.cdf(-rope))
    assert found.p_better + found.p_equivalent + found.p_worse == pytest.approx(1)


def test_effect_of_equal_models_is_none() -> None:
    found = measure_effect(A, A, contrast(A, A))
    assert (found.won, found.tied, found.lost) == (0, 4, 0)
    assert (found.win_share, found.seed_win_share) == (0.5, 0.5)
    single = measure_effect(A[:1], A[:1], contrast(A[:1], A[:1]))
    assert (single.d_z, single.p_equivalent) == (None, 1)


def test_effect_ignores_rounding_of_averages() -> None:
    a = np.array([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]])
    test = contrast(a, a[[2, 1, 0]])
    assert measure_effect(a, a[[2, 1, 0]], test).tied == 2
