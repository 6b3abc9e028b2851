from itertools import combinations, product
from math import exp, inf, log

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from intentbench.stats.across import (
    Across,
    compare_across,
    friedman,
    geometric_mean,
    iman_davenport,
    mean_ranks,
    signed_rank_ps,
)
from intentbench.stats.family import Family, compare_all

# Demsar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf. Its ranks tell the two .975 of one
# dataset apart, as they were before rounding.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def random_means(n_datasets: int, labels: str, seed: int = 0) -> dict[str, dict[str, float]]:
    generator = np.random.default_rng(seed)
    return {
        f"d{i}": {label: float(generator.uniform(0.1, 0.9)) for label in labels}
        for i in range(n_datasets)
    }


def family(n_seeds: int, **means: float) -> Family:
    """Models that differ by their means, with little noise."""
    generator = np.random.default_rng(1)
    users = generator.normal(0, 0.1, 200)
    values = {
        label: mean + users + generator.normal(0, 0.01, (n_seeds, 200))
        for label, mean in means.items()
    }
    return compare_all(values)


def every_sign(differences: NDArray[np.float64]) -> float:
    """Two-sided p of Pratt's signed ranks by trying all signs."""
    ranks = stats.rankdata(np.abs(differences))
    ranks[differences == 0] = 0
    observed = float(np.sign(differences) @ ranks)
    sums = [float(np.array(signs) @ ranks) for signs in product([-1, 1], repeat=len(ranks))]
    return sum(abs(total) >= abs(observed) - 1e-9 for total in sums) / len(sums)


def test_ranks_and_friedman_are_demsar_s() -> None:
    ranks = mean_ranks(DEMSAR)
    assert ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    n, k = DEMSAR.shape
    plain = 12 * n / (k * (k + 1)) * (sum(rank**2 for rank in ranks) - k * (k + 1) ** 2 / 4)
    assert plain == pytest.approx(9.28, abs=5e-3)
    assert iman_davenport(plain, n, k) == pytest.approx(3.69, abs=5e-3)
    found = friedman(DEMSAR)
    assert found is not None
    assert (found.df1, found.df2) == (3, 39)
    assert found.chi2 > plain  # the paper's formula takes no account of ties


def test_iman_and_davenport_s_f_is_an_anova_of_ranks() -> None:
    dataset, model = np.indices(DEMSAR.shape)
    ranks = stats.rankdata(DEMSAR, axis=1)
    frame = pd.DataFrame({"y": ranks.ravel(), "d": dataset.ravel(), "m": model.ravel()})
    table = anova_lm(ols("y ~ C(m) + C(d)", data=frame).fit())
    found = friedman(DEMSAR)
    assert found is not None
    assert found.f == pytest.approx(table.loc["C(m)", "F"])
    assert found.p == pytest.approx(table.loc["C(m)", "PR(>F)"])


def test_friedman_at_its_ends() -> None:
    assert friedman(np.full((6, 3), 0.5)) is None
    agreed = friedman(np.tile([0.1, 0.2, 0.3], (6, 1)))
    assert agreed is not None
    assert (agreed.f, agreed.p) == (inf, 0)


def test_mean_ranks_share_places() -> None:
    scores = np.random.default_rng(2).integers(0, 4, (9, 5)).astype(float)
    expected = stats.rankdata(-scores, axis=1).mean(axis=0)
    assert mean_ranks(scores) == pytest.approx(list(expected))


@given(st.lists(st.integers(-4, 4), min_size=6, max_size=9))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_signed_ranks_are_exact_with_ties_and_zeros(differences: list[int]) -> None:
    given_ = np.array(differences, dtype=np.float64)
    plain = np.arange(1.0, len(given_) + 1)  # beside others, one that scipy's tables know
    found = signed_rank_ps([plain, given_, -plain])
    assert found == pytest.approx([every_sign(plain), every_sign(given_), every_sign(plain)])


@pytest.mark.parametrize("n", [6, 9, 13])
def test_signed_ranks_without_ties_are_scipy_s(n: int) -> None:
    several = list(np.random.default_rng(n).normal(0.4, 1, (5, n)))
    expected = [stats.wilcoxon(one, method="exact").pvalue for one in several]
    assert signed_rank_ps(several) == pytest.approx(expected)
    assert signed_rank_ps([np.arange(1.0, n + 1)]) == [2 / 2**n]
    assert signed_rank_ps([]) == []


def test_geometric_mean_is_a_t_interval_of_logarithms() -> None:
    logs = np.log([1.1, 1.3, 0.9, 1.05])
    ratio, low, high = geometric_mean(logs, 0.05)
    interval = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert ratio == pytest.approx(stats.gmean([1.1, 1.3, 0.9, 1.05]))
    assert (low, high) == pytest.approx((exp(interval.low), exp(interval.high)))
    ratio, *ends = geometric_mean(logs[:2], 0.05)
    assert ratio == pytest.approx((1.1 * 1.3) ** 0.5)
    assert ends == [None, None]
    assert geometric_mean(None, 0.05) == (None, None, None)


def test_wins_are_counted_at_the_level_of_each_dataset() -> None:
    families = {
        "won": family(3, a=0.9, b=0.2),
        "tied": family(3, a=0.5, b=0.5),
        "lost": family(3, a=0.2, b=0.9),
        "lost again": family(3, a=0.4, b=0.9),
        "unknown": family(1, a=0.9, b=0.2),
    }
    means = {
        name: {label: found.contrasts[label, other].mean_a for label, other in ("ab", "ba")}
        for name, found in families.items()
    }
    across = compare_across(means, families)
    ours, theirs = across.pairs["a", "b"], across.pairs["b", "a"]
    assert (ours.wins, ours.ties, ours.losses, ours.untested) == (1, 1, 2, 1)
    assert (theirs.wins, theirs.ties, theirs.losses, theirs.untested) == (2, 1, 1, 1)
    logs = [log(found["a"] / found["b"]) for found in means.values()]
    assert ours.ratio == pytest.approx(exp(np.mean(logs)))
    assert theirs.ratio == pytest.approx(1 / exp(np.mean(logs)))
    assert theirs.ratio_low == pytest.approx(1 / (ours.ratio_high or 0))


def test_models_that_lack_a_dataset_are_left_out() -> None:
    means = random_means(7, "abcd")
    del means["d2"]["c"], means["d5"]["c"], means["d0"]["d"]
    across = compare_across(means, {})
    assert set(across.labels) == {"a", "b"}
    assert across.left_out == {"c": ("d2", "d5"), "d": ("d0",)}
    assert across.friedman is None  # of two models there is none
    assert sum(across.mean_ranks.values()) == pytest.approx(3)
    assert across.n_tests == 1


def test_nothing_is_compared_where_no_model_is_everywhere() -> None:
    across = compare_across({"x": {"a": 0.1}, "y": {"b": 0.2}}, {})
    assert (across.labels, across.pairs) == ((), {})
    assert across.left_out == {"a": ("y",), "b": ("x",)}


@pytest.mark.parametrize("n_datasets", [2, 5, 6])
def test_there_is_a_test_from_six_datasets_on(n_datasets: int) -> None:
    across = compare_across(random_means(n_datasets, "abc"), {})
    tested = n_datasets >= 6
    assert across.n_tests == (3 if tested else 0)
    assert (across.friedman is not None) == tested
    assert all((pair.p is not None) == tested for pair in across.pairs.values())
    assert (across.pairs["a", "b"].ratio_low is not None) == (n_datasets >= 3)


def _p_values(across: Across, pairs: list[tuple[str, str]]) -> list[float]:
    found = [across.pairs[pair].p for pair in pairs]
    return [p for p in found if p is not None]


def test_pairs_are_corrected_together() -> None:
    means = random_means(9, "abcd")
    across = compare_across(means, {})
    pairs = list(combinations(across.labels, 2))
    raw = _p_values(across, pairs)
    logs = {(a, b): [log(found[a] / found[b]) for found in means.values()] for a, b in pairs}
    expected = [stats.wilcoxon(logs[pair], method="exact").pvalue for pair in pairs]
    assert raw == pytest.approx(expected)
    corrected = [across.pairs[pair].p_adjusted for pair in pairs]
    assert corrected == pytest.approx(list(multipletests(raw, method="holm")[1]))
    explored = compare_across(means, {}, method="bh")
    assert [explored.pairs[pair].p_adjusted for pair in pairs] == pytest.approx(
        list(multipletests(raw, method="fdr_bh")[1])
    )


def test_a_reference_makes_a_smaller_family() -> None:
    across = compare_across(random_means(9, "abcd"), {}, reference="b")
    pairs = [pair for pair in combinations(across.labels, 2) if "b" in pair]
    expected = multipletests(_p_values(across, pairs), method="holm")[1]
    assert [across.pairs[pair].p_adjusted for pair in pairs] == pytest.approx(list(expected))
    assert across.n_tests == 3


def test_a_mean_of_zero_has_no_ratio() -> None:
    means = random_means(6, "abc")
    means["d3"]["b"] = 0.0
    across = compare_across(means, {})
    for pair in (("a", "b"), ("b", "a")):
        found = across.pairs[pair]
        assert (found.ratio, found.ratio_low, found.p, found.p_adjusted) == (None,) * 4
    assert across.n_tests == 1


def test_equal_models_are_not_separated() -> None:
    means = {f"d{i}": {"a": 0.1 + i / 10, "b": 0.1 + i / 10, "c": 0.05} for i in range(6)}
    across = compare_across(means, {})
    assert across.pairs["a", "b"].p == 1
    assert across.pairs["a", "b"].ratio == 1
    assert across.mean_ranks == {"a": 1.5, "b": 1.5, "c": 3}
    assert across.pairs["a", "c"].p == 2 / 2**6
