from math import inf, isnan

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestPower

from datamodules.errors import RequestError
from intentbench.metrics.formulas import ndcg
from intentbench.stats.components import Values, mean_squares
from intentbench.stats.contrast import (
    BORROWED,
    IDENTICAL,
    SEED_CHANGES_NOTHING,
    USERS_ONLY,
    Contrast,
    contrast,
)

A = ndcg([[1, 4, 12, 2, 9, 30], [2, 3, 11, 1, 8, 25], [1, 6, 40, 2, 10, 9]], 10)
B = ndcg([[2, 8, 15, 2, 12, 22], [3, 9, 14, 3, 30, 18], [5, 7, 13, 2, 11, 40]], 10)

SLEEP = np.array(  # R's `sleep`: extra hours under two drugs, ten people
    [
        [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
        [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
    ]
)


@st.composite
def pairs(draw: st.DrawFn, min_seeds: int = 1) -> tuple[Values, Values]:
    n_users = draw(st.integers(2, 12))
    rank = st.integers(1, 20)
    sides = [
        draw(arrays(np.int64, (draw(st.integers(min_seeds, 4)), n_users), elements=rank))
        for _ in range(2)
    ]
    return ndcg(sides[0], 10), ndcg(sides[1], 10)


def numbers(result: Contrast) -> list[float]:
    return [
        value
        for value in result.figures().values()
        if isinstance(value, float)  # the notes and what is not defined apart
    ]


def test_contrast_reference_numbers() -> None:
    found = contrast(A, B)
    assert found.mean_a == pytest.approx(0.4103479278, abs=5e-11)
    assert found.mean_b == pytest.approx(0.2349705708, abs=5e-11)
    assert found.est == pytest.approx(0.1753773570, abs=5e-11)
    assert found.se == pytest.approx(0.0562663024, abs=5e-11)
    assert found.df == pytest.approx(4.977018, abs=5e-7)
    assert found.t == pytest.approx(3.116916, abs=5e-7)
    assert found.p == pytest.approx(0.02650761, abs=5e-9)
    assert found.v_users == pytest.approx(0.0031572993, abs=5e-11)
    assert mean_squares(A) == pytest.approx((0.0019495839, 0.0248822765), abs=5e-11)
    assert mean_squares(B) == pytest.approx((0.0036115963, 0.0034568406), abs=5e-11)
    assert found.notes == ()


def test_contrast_reference_of_a_margin() -> None:
    found = contrast(A, B, c=0.98, alpha=0.10)  # one-sided 5 %
    assert (found.low, found.high) == pytest.approx((0.06477233, 0.29538121), abs=5e-9)


def test_contrast_reference_with_borrowed_seed_variance() -> None:
    found = contrast(A[:1], B)
    assert found.est == pytest.approx(0.1588021471, abs=5e-11)
    assert found.se == pytest.approx(0.0815200785, abs=5e-11)
    assert found.df == pytest.approx(4.872629, abs=5e-7)
    assert found.notes == (BORROWED,)
    assert found.judged
    assert found.v_seeds_b == 0


def test_contrast_borrows_from_either_side_alike() -> None:
    one, other = contrast(B[:1], A + B), contrast(A + B, B[:1])
    assert one.notes == other.notes == (BORROWED,)
    assert (one.se, one.df, one.p) == pytest.approx((other.se, other.df, other.p))
    assert one.est == pytest.approx(-other.est)


@pytest.mark.parametrize("values", [A, B])
def test_mean_squares_equal_a_two_way_anova(values: Values) -> None:
    seed, user = np.indices(values.shape)
    frame = pd.DataFrame({"y": values.ravel(), "s": seed.ravel(), "u": user.ravel()})
    table = anova_lm(ols("y ~ C(s) + C(u)", data=frame).fit())
    expected = table.loc["C(s)", "mean_sq"], table.loc["Residual", "mean_sq"]
    assert mean_squares(values) == pytest.approx(expected, rel=1e-12)


def test_contrast_of_deterministic_models_is_the_paired_t_test() -> None:
    found = contrast(SLEEP[:1], SLEEP[1:], deterministic_a=True, deterministic_b=True)
    assert (found.t, found.p) == pytest.approx((-4.0621, 0.002833), abs=5e-5)
    expected = stats.ttest_rel(SLEEP[0], SLEEP[1])
    assert (found.t, found.p, found.df) == pytest.approx(
        (expected.statistic, expected.pvalue, expected.df)
    )
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_contrast_without_seed_variance_is_the_paired_t_test() -> None:
    steady = np.stack([A[0], A[0], A[0]])
    found = contrast(steady, np.stack([B[1], B[1]]))
    expected = stats.ttest_rel(A[0], B[1])
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.notes == (f"{SEED_CHANGES_NOTHING} (A)", f"{SEED_CHANGES_NOTHING} (B)")


def test_contrast_with_single_seeds_gives_no_verdict() -> None:
    both = contrast(A[:1], B[:1])
    against_deterministic = contrast(A[:1], B[:1], deterministic_b=True)
    for found in (both, against_deterministic):
        assert found.notes == (USERS_ONLY,)
        assert not found.judged
        assert found.p == pytest.approx(stats.ttest_rel(A[0], B[0]).pvalue)


def test_contrast_of_equal_models_is_identical() -> None:
    found = contrast(A[:1], A[:1], deterministic_a=True, deterministic_b=True)
    assert (found.est, found.se, found.t, found.p) == (0, 0, 0, 1)
    assert found.notes == (IDENTICAL,)
    assert found.relative == 0


def test_contrast_without_error_is_certain() -> None:
    found = contrast(
        np.full((1, 4), 0.75), np.full((1, 4), 0.5), deterministic_a=True, deterministic_b=True
    )
    assert (found.t, found.p, found.low, found.high) == (inf, 0, 0.25, 0.25)
    assert found.relative_low == pytest.approx(0.5)
    assert found.relative_high == pytest.approx(0.5)


def test_contrast_against_zero_has_no_relative_figures() -> None:
    found = contrast(A, np.zeros_like(B))
    assert (found.relative, found.relative_low, found.relative_high) == (None, None, None)
    assert found.p < 1


def test_contrast_against_a_mean_near_zero_has_no_finite_relative_interval() -> None:
    found = contrast(A, B)  # six users: mean(B) itself is not separated from 0
    assert found.relative == pytest.approx(found.est / found.mean_b)
    assert found.relative_low is None
    assert found.relative_high is None


def test_relative_interval_is_fieller_s() -> None:
    generator = np.random.default_rng(5)
    b = generator.uniform(0.2, 1, (1, 50))
    a = 1.1 * b + generator.normal(0, 0.2, (1, 50))
    found = contrast(a, b, deterministic_a=True, deterministic_b=True)
    # With users only, df does not depend on c and the set is the solution of a quadratic.
    n, t = 50, stats.t.ppf(0.975, 49)
    (va, cov), (_, vb) = np.cov(np.concatenate([a, b])) / n
    ma, mb = a.mean(), b.mean()
    roots = np.roots([mb**2 - t**2 * vb, -2 * (ma * mb - t**2 * cov), ma**2 - t**2 * va])
    assert (found.relative_low, found.relative_high) == pytest.approx(tuple(sorted(roots - 1)))


def test_contrast_of_one_user_is_refused() -> None:
    with pytest.raises(RequestError, match="at least 2 users, found 1"):
        contrast(A[:, :1], B[:, :1])


def test_contrast_refuses_what_is_no_pair() -> None:
    with pytest.raises(ValueError, match="A has 6 users, B has 5"):
        contrast(A, B[:, :5])
    with pytest.raises(ValueError, match="not finite"):
        contrast(np.where(A > 0, A, np.nan), B)
    with pytest.raises(ValueError, match="shape"):
        contrast(A[0], B[0])


def test_resolution_agrees_with_the_power_of_a_t_test() -> None:
    generator = np.random.default_rng(0)
    b = generator.uniform(0.4, 0.6, (1, 40))
    a = b + generator.normal(0, 0.05, (1, 40))
    found = contrast(a, b, deterministic_a=True, deterministic_b=True)
    d = TTestPower().solve_power(nobs=40, alpha=0.05, power=0.8)
    assert TTestPower().solve_power(1, alpha=0.05, power=0.8) == pytest.approx(9.938, abs=5e-4)
    spread = float(np.std(a - b, ddof=1)) / max(found.mean_a, found.mean_b)
    assert found.resolution == pytest.approx(d * spread, rel=0.01)
    assert contrast(np.zeros((2, 3)), np.zeros((2, 3))).resolution is None


@given(pairs())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_exchange_flips_the_difference_only(pair: tuple[Values, Values]) -> None:
    one, other = contrast(*pair), contrast(pair[1], pair[0])
    assert one.est == pytest.approx(-other.est, abs=1e-15)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert (one.se, one.df, one.p) == pytest.approx((other.se, other.df, other.p), rel=1e-9)
    assert (one.v_seeds_a, one.v_seeds_b) == pytest.approx((other.v_seeds_b, other.v_seeds_a))


@given(pairs(), st.floats(0.01, 100))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_scale_leaves_the_test(pair: tuple[Values, Values], scale: float) -> None:
    plain = contrast(*pair)
    assume(plain.se > 1e-9)
    scaled = contrast(scale * pair[0], scale * pair[1])
    assert (scaled.t, scaled.df) == pytest.approx((plain.t, plain.df), rel=1e-6, abs=1e-9)
    if plain.relative is not None:
        assert scaled.relative == pytest.approx(plain.relative, rel=1e-6, abs=1e-9)


@given(pairs(), st.integers(0, 100))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_order_of_users_and_seeds_is_free(pair: tuple[Values, Values], seed: int) -> None:
    a, b = pair
    generator = np.random.default_rng(seed)
    users, seeds = generator.permutation(a.shape[1]), generator.permutation(len(a))
    plain, permuted = contrast(a, b), contrast(a[seeds][:, users], b[:, users])
    assume(plain.se > 1e-9)
    assert numbers(permuted) == pytest.approx(numbers(plain), rel=1e-6, abs=1e-9)


@given(pairs(), st.sampled_from([0.01, 0.05, 0.3]))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_interval_and_test_agree(pair: tuple[Values, Values], alpha: float) -> None:
    found = contrast(*pair, alpha=alpha)
    assert not any(isnan(value) for value in numbers(found))
    assume(abs(found.p - alpha) > 1e-9)
    assert (found.low > 0 or found.high < 0) == (found.p < alpha)
    if found.relative_low is not None and found.relative_high is not None:
        assert (found.relative_low > 0 or found.relative_high < 0) == (found.p < alpha)


@given(pairs(min_seeds=2), st.integers(-32, 60).map(lambda part: part / 64))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_relative_interval_and_margin_agree(pair: tuple[Values, Values], margin: float) -> None:
    found, shifted = contrast(*pair), contrast(*pair, c=1 - margin)
    assume(found.relative_low is not None and shifted.se > 1e-9)
    assume(abs(shifted.p - 0.05) > 1e-6)
    assert found.relative_low is not None
    assert found.relative_high is not None
    inside = found.relative_low <= -margin <= found.relative_high
    assert inside == (shifted.p > 0.05)
