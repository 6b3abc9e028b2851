"""The same models on several datasets: what can be said of all of them together.

The evidence stays with each dataset. Over datasets, wins are counted, ranks and ratios of means are
averaged, and from six datasets on there is a test (Demsar, "Statistical comparisons of classifiers
over multiple data sets", JMLR 2006): Friedman's in the form of Iman and Davenport (1980), then
Wilcoxon's signed-rank test of each pair. Not Nemenyi's test: its verdict on A and B depends on
which other models are there (Benavoli, Corani and Mangili, JMLR 2016).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, inf, log, sqrt
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from intentbench.stats.components import quantile
from intentbench.stats.correction import Method, adjust
from intentbench.stats.family import Family, Pair, in_family

INTERVAL_FROM = 3
"""Datasets from which a ratio has an interval."""

TEST_FROM = 6
"""Datasets from which there is a test: with fewer no two-sided p of signed ranks is below .05."""

_DIGITS = 12  # of a log ratio: ratios that are equal may differ by rounding


@dataclass(frozen=True)
class AcrossPair:
    """A against B over all datasets.

    Attributes:
        wins: datasets on which A is better, at the corrected level of the dataset.
        ties: datasets on which they are not separated.
        losses: datasets on which B is better.
        untested: datasets on which they could not be tested.
        ratio: geometric mean of mean(A) / mean(B); None where a mean is 0.
        ratio_low: lower end of its 1 - alpha interval, from t on log ratios; None with fewer than
            `INTERVAL_FROM` datasets.
        ratio_high: upper end.
        p: of Wilcoxon's signed-rank test on log ratios; None with fewer than `TEST_FROM` datasets.
        p_adjusted: corrected over pairs.
    """

    wins: int
    ties: int
    losses: int
    untested: int
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    p: float | None
    p_adjusted: float | None


@dataclass(frozen=True)
class Friedman:
    """Do any of the models differ in rank over datasets?

    Attributes:
        chi2: Friedman's statistic, corrected for ties.
        f: Iman and Davenport's, less conservative.
        df1: k - 1 for k models.
        df2: (k - 1)(N - 1) for N datasets.
        p: of `f`; 0, a limit, where all datasets rank alike and `f` is infinite.
    """

    chi2: float
    f: float
    df1: int
    df2: int
    p: float


@dataclass(frozen=True)
class Across:
    """Models over datasets.

    Attributes:
        datasets: all that have results.
        labels: models with a result on each of them, by rising mean rank.
        left_out: the other models, and the datasets that they lack.
        mean_ranks: of `labels` among one another; 1 is best, equal means share a rank.
        pairs: of every ordered pair of `labels`.
        friedman: None with fewer than `TEST_FROM` datasets or three models, or where all are equal.
        alpha: level of intervals and tests.
    """

    datasets: tuple[str, ...]
    labels: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]
    mean_ranks: Mapping[str, float]
    pairs: Mapping[Pair, AcrossPair]
    friedman: Friedman | None
    alpha: float

    @property
    def n_tests(self) -> int:
        """Pairs that were tested over datasets."""
        return sum(self.pairs[pair].p_adjusted is not None for pair in combinations(self.labels, 2))


def compare_across(
    means: Mapping[str, Mapping[str, float]],
    families: Mapping[str, Family],
    alpha: float = 0.05,
    method: Method = "holm",
    reference: str | None = None,
) -> Across:
    """Summarise a leaderboard of several datasets.

    Args:
        means: dataset to label to mean of the metric, higher is better.
        families: of the datasets on which two models or more were compared.
        alpha: level of intervals and tests.
        method: correction of the tests over datasets.
        reference: tested against it alone; None: all pairs.
    """
    datasets = tuple(means)
    known = dict.fromkeys(label for found in means.values() for label in found)
    lacking = {
        label: tuple(name for name in datasets if label not in means[name]) for label in known
    }
    complete = [label for label, missing in lacking.items() if not missing]
    scores = np.array([[means[name][label] for label in complete] for name in datasets])
    ranks = mean_ranks(scores) if complete else []
    order = dict(sorted(zip(complete, ranks, strict=True), key=lambda entry: (entry[1], entry[0])))
    labels = tuple(order)
    pairs = list(combinations(labels, 2))
    logs = {
        (a, b): log_ratios([(means[name][a], means[name][b]) for name in datasets])
        for a, b in pairs
    }
    testable = len(datasets) >= TEST_FROM
    compared = {pair: found for pair, found in logs.items() if testable and found is not None}
    raw: dict[Pair, float | None] = dict.fromkeys(pairs)
    raw.update(zip(compared, signed_rank_ps([*compared.values()]), strict=True))
    tested = [raw[pair] if in_family(pair, reference) else None for pair in pairs]
    corrected = dict(zip(pairs, adjust(tested, method), strict=True))
    summaries: dict[Pair, AcrossPair] = {}
    for a, b in pairs:
        counts = _counts(a, b, families)
        ratios = geometric_mean(logs[a, b], alpha)
        ends = raw[a, b], corrected[a, b]
        summaries[a, b] = AcrossPair(*counts, *ratios, *ends)
        summaries[b, a] = AcrossPair(*_turned(counts), *_inverse(ratios), *ends)
    left_out = {label: missing for label, missing in lacking.items() if missing}
    test = friedman(scores) if testable and len(labels) > 2 else None
    return Across(datasets, labels, left_out, order, summaries, test, alpha)


def mean_ranks(scores: NDArray[np.float64]) -> list[float]:
    """Mean rank of each model.

    Args:
        scores: (N, k) datasets x models, higher is better.

    Returns:
        (k,) 1 is best; equal scores share the mean of their ranks.
    """
    above = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
    return [float(rank) for rank in (above + (equal + 1) / 2).mean(axis=0)]


def friedman(scores: NDArray[np.float64]) -> Friedman | None:
    """Friedman's test and Iman and Davenport's F.

    Args:
        scores: (N, k) datasets x models, k at least 3.

    Returns:
        The test; None where all models are equal on every dataset.
    """
    from scipy.stats import f as f_distribution
    from scipy.stats import friedmanchisquare

    if (scores == scores[:, :1]).all():
        return None
    chi2 = float(friedmanchisquare(*scores.T).statistic)
    n, k = scores.shape
    f = iman_davenport(chi2, n, k)
    df1, df2 = k - 1, (k - 1) * (n - 1)
    return Friedman(chi2, f, df1, df2, float(f_distribution.sf(f, df1, df2)))


def iman_davenport(chi2: float, n: int, k: int) -> float:
    """F from Friedman's chi-squared of k models on n datasets; infinite where all ranks agree.

    >>> round(iman_davenport(9.28, 14, 4), 2)
    3.69
    """
    rest = n * (k - 1) - chi2
    return (n - 1) * chi2 / rest if rest > 1e-9 * chi2 else inf


def log_ratios(means: Sequence[tuple[float, float]]) -> NDArray[np.float64] | None:
    """log(mean(A) / mean(B)) of each dataset; None where a mean is not above 0."""
    if any(min(pair) <= 0 for pair in means):
        return None
    return np.array([round(log(a / b), _DIGITS) for a, b in means])


def geometric_mean(
    logs: NDArray[np.float64] | None, alpha: float
) -> tuple[float | None, float | None, float | None]:
    """The geometric mean of ratios, and the ends of its 1 - alpha interval.

    Args:
        logs: (N,) of the ratios; None: there are none.
        alpha: 1 - the level.
    """
    if logs is None:
        return None, None, None
    centre = fmean(logs)
    if len(logs) < INTERVAL_FROM:
        return exp(centre), None, None
    margin = quantile(len(logs) - 1, 1 - alpha / 2) * stdev(logs.tolist()) / sqrt(len(logs))
    return exp(centre), exp(centre - margin), exp(centre + margin)


def signed_rank_ps(several: Sequence[NDArray[np.float64]]) -> list[float]:
    """Two-sided p of Wilcoxon's signed-rank test, exact; zeros are ranked and then dropped (Pratt).

    Args:
        several: (N,) differences of two models, one a dataset; the same N throughout.
    """
    from scipy.stats import wilcoxon

    sizes = [np.abs(differences) for differences in several]
    plain = [bool(size.all()) and len(np.unique(size)) == len(size) for size in sizes]
    p = [
        1.0 if known or not size.any() else _signs_p(differences)
        for differences, size, known in zip(several, sizes, plain, strict=True)
    ]
    if any(plain):
        rows = [row for row, known in enumerate(plain) if known]
        tested = np.stack([several[row] for row in rows])
        found = wilcoxon(tested, zero_method="pratt", method="exact", axis=1).pvalue
        for row, value in zip(rows, np.atleast_1d(found), strict=True):
            p[row] = float(value)
    return p


def _signs_p(differences: NDArray[np.float64]) -> float:
    """The tables of the exact test know neither ties nor zeros: all 2^N signs are tried instead."""
    from scipy.stats import permutation_test, rankdata

    def statistic(x: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        total: NDArray[np.float64] = (np.sign(x) * rankdata(np.abs(x), axis=axis)).sum(axis=axis)
        return total

    found = permutation_test(
        (differences,),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(differences),
        batch=2**14,
    )
    return float(found.pvalue)


def smallest_p(n: int) -> float:
    """The smallest two-sided p that signed ranks of n datasets can give.

    >>> smallest_p(5), smallest_p(6)
    (0.0625, 0.03125)
    """
    return 2.0 ** (1 - n)


def _counts(a: str, b: str, families: Mapping[str, Family]) -> tuple[int, int, int, int]:
    """Datasets won, tied, lost by A, and those where it was not tested against B."""
    wins = ties = losses = untested = 0
    for family in families.values():
        if family.adjusted[a, b] is None:
            untested += 1
        elif not family.separated(a, b):
            ties += 1
        elif family.contrasts[a, b].est > 0:
            wins += 1
        else:
            losses += 1
    return wins, ties, losses, untested


def _turned(counts: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    wins, ties, losses, untested = counts
    return losses, ties, wins, untested


def _inverse(
    ratios: tuple[float | None, float | None, float | None],
) -> tuple[float | None, float | None, float | None]:
    ratio, low, high = (None if value is None else 1 / value for value in ratios)
    return ratio, high, low
