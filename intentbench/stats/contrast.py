"""Would A beat B if both were trained again and met other users like these?

One function answers: a two-sample comparison with users paired and crossed with seeds, and seeds
independent. Both are random, so the error of a difference has a part from users and a part from
the seeds of each model (variance components of a crossed two-way layout, Cornfield & Tukey 1956;
degrees of freedom after Satterthwaite 1946; interval of the ratio after Fieller 1954). See
`docs/statistics.md` for the reasons.
"""

from dataclasses import dataclass
from math import copysign, inf, isfinite, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from datamodules.errors import RequestError

Values = NDArray[np.float64]
"""(S, U) a metric: one row a seed, one column a user, users in the same order everywhere."""

BORROWED = "borrowed seed variance"
USERS_ONLY = "users only, seeds unknown"
IDENTICAL = "identical"
SEED_CHANGES_NOTHING = "the seed changes nothing"

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Contrast:
    """The difference mean(A) - c * mean(B) and how sure it is.

    Attributes:
        est: the difference.
        se: its standard error.
        df: degrees of freedom.
        t: est / se; 0 when both are 0, infinite when only `se` is.
        p: two-sided p-value, not corrected for other comparisons.
        low: lower end of the 1 - alpha interval of `est`.
        high: upper end.
        v_users: part of se^2 that comes from users (with interaction and noise).
        v_seeds_a: part that comes from the seeds of A.
        v_seeds_b: part that comes from the seeds of B.
        mean_a: mean over users and seeds.
        mean_b: likewise.
        relative: mean(A) / mean(B) - 1; None where mean(B) is 0.
        relative_low: lower end of its 1 - alpha interval; None where that is not a finite interval.
        relative_high: upper end.
        alpha: 1 - the level of the intervals.
        notes: what a reader must know: `BORROWED`, `USERS_ONLY`, `IDENTICAL`,
            `SEED_CHANGES_NOTHING` with the side.
    """

    est: float
    se: float
    df: float
    t: float
    p: float
    low: float
    high: float
    v_users: float
    v_seeds_a: float
    v_seeds_b: float
    mean_a: float
    mean_b: float
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    alpha: float
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether the seeds' part of the error is known, so that a verdict may be given."""
        return USERS_ONLY not in self.notes

    @property
    def resolution(self) -> float | None:
        """Smallest true difference that would be found in 80 % of repetitions.

        A share of the larger mean, before any correction; None where that mean is 0.
        """
        scale = max(abs(self.mean_a), abs(self.mean_b))
        if scale == 0:
            return None
        return _quantile(self.df, 1 - self.alpha / 2, 0.80) * self.se / scale


def contrast(
    a: Values,
    b: Values,
    c: float = 1.0,
    deterministic_a: bool = False,
    deterministic_b: bool = False,
    alpha: float = 0.05,
) -> Contrast:
    """Compare two models on the same users.

    Args:
        a: (S_A, U) metric of A.
        b: (S_B, U) metric of B; the columns are the same users in the same order.
        c: factor on B; 1 compares, 1 - m asks whether A is worse by the share m.
        deterministic_a: whether A's seed changes nothing by definition; one run then says all.
        deterministic_b: likewise.
        alpha: 1 - the level of the intervals.

    Returns:
        Estimate, test and intervals. With one seed of a stochastic model the seed variance of the
        other is borrowed; where that has none to lend, only users are accounted for, and the
        result is no verdict (`Contrast.judged`).

    Raises:
        RequestError: fewer than two users.
        ValueError: the shapes do not fit, or a value is not finite.
    """
    a, b = _checked(a), _checked(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"A has {a.shape[1]} users, B has {b.shape[1]}")
    if a.shape[1] < 2:
        raise RequestError(f"a comparison needs at least 2 users, found {a.shape[1]}")
    side_a, side_b = _Side.of(a, deterministic_a), _Side.of(b, deterministic_b)
    term_a, term_b, notes = _seed_terms(side_a, side_b)
    theta = _Theta.of(side_a, side_b, c, term_a, term_b)
    est, v_users, v_a, v_b, df = theta.at(c)
    se = sqrt(v_users + (v_a + v_b))
    if se > 0:
        t = est / se
        p = float(2 * stdtr(df, -abs(t)))
    else:
        t, p = (copysign(inf, est), 0.0) if est else (0.0, 1.0)
    if est == 0 and se == 0:
        notes += (IDENTICAL,)
    for side, name in ((side_a, "A"), (side_b, "B")):
        if side.constant and not side.deterministic:
            notes += (f"{SEED_CHANGES_NOTHING} ({name})",)
    margin = _quantile(df, 1 - alpha / 2) * se
    relative_low, relative_high = theta.ratio_interval(alpha)
    mean_a, mean_b = side_a.mean, side_b.mean
    return Contrast(
        est, se, df, t, p, est - margin, est + margin, v_users, v_a, v_b, mean_a, mean_b,
        (mean_a - mean_b) / mean_b if mean_b else None, relative_low, relative_high, alpha, notes,
    )  # fmt: skip


def mean_squares(values: Values) -> tuple[float, float]:
    """Mean squares of seeds and of what neither seed nor user explains.

    Args:
        values: (S, U), S and U at least 2.

    Returns:
        MS_seeds with S - 1 and MS_error with (S - 1)(U - 1) degrees of freedom, as in a two-way
        analysis of variance with one observation a cell.
    """
    n_seeds, n_users = values.shape
    seeds = values.mean(axis=1)
    residual = values - seeds[:, None] - values.mean(axis=0) + values.mean()
    of_error = float((residual**2).sum()) / ((n_seeds - 1) * (n_users - 1))
    return n_users * float(seeds.var(ddof=1)), of_error


@dataclass(frozen=True)
class _Side:
    """One model: (U,) its metric a user, averaged over seeds, and its mean squares."""

    users: Values
    mean: float
    n_seeds: int
    deterministic: bool
    constant: bool  # several seeds, all equal
    ms_seeds: float
    ms_error: float

    @classmethod
    def of(cls, values: Values, deterministic: bool) -> "_Side":
        constant = len(values) > 1 and bool((values == values[0]).all())
        # Averaging equal rows would round; the row itself keeps a difference of 0 exact.
        users = values[0] if constant else values.mean(axis=0)
        varies = len(values) > 1 and not constant and not deterministic
        ms_seeds, ms_error = mean_squares(values) if varies else (0.0, 0.0)
        return cls(
            users, float(users.mean()), len(values), deterministic, constant, ms_seeds, ms_error
        )

    @property
    def lacks_seeds(self) -> bool:
        return self.n_seeds == 1 and not self.deterministic

    @property
    def can_lend(self) -> bool:
        return self.n_seeds > 1 and not self.deterministic


@dataclass(frozen=True)
class _SeedTerm:
    """A part of the variance that comes from seeds: `variance * (constant + slope * c^2)`."""

    variance: float  # max(MS_seeds - MS_error, 0) / U: of a mean over users of one seed
    ms: float  # MS_seeds / U, whose degrees of freedom are known
    dof: int
    constant: float
    slope: float

    @classmethod
    def of(cls, side: _Side, constant: float, slope: float) -> "_SeedTerm":
        n_users = len(side.users)
        excess = side.ms_seeds - side.ms_error
        # Equal mean squares differ by rounding, and df would jump with the sign of that.
        variance = excess / n_users if excess > _ROUNDING * side.ms_seeds else 0.0
        return cls(variance, side.ms_seeds / n_users, max(side.n_seeds - 1, 1), constant, slope)


def _seed_terms(a: _Side, b: _Side) -> tuple[_SeedTerm, _SeedTerm, tuple[str, ...]]:
    """The seeds' parts of the variance, A's and B's, and what to say about them."""
    if a.lacks_seeds and b.can_lend:
        # A's own seed counts whole, B's mean over S_B seeds by 1 / S_B; both from B's variance.
        return _SeedTerm.of(b, 1.0, 1 / b.n_seeds), _SeedTerm.of(b, 0.0, 0.0), (BORROWED,)
    if b.lacks_seeds and a.can_lend:
        return _SeedTerm.of(a, 0.0, 0.0), _SeedTerm.of(a, 1 / a.n_seeds, 1.0), (BORROWED,)
    notes = (USERS_ONLY,) if a.lacks_seeds or b.lacks_seeds else ()
    return _SeedTerm.of(a, 1 / a.n_seeds, 0.0), _SeedTerm.of(b, 0.0, 1 / b.n_seeds), notes


@dataclass(frozen=True)
class _Theta:
    """mean(A) - c * mean(B) and its variance, for any c, from moments taken once at `centre`."""

    mean_a: float
    mean_b: float
    centre: float
    n_users: int
    variance: float  # of A - centre * B over users
    covariance: float  # of that with B
    variance_b: float
    term_a: _SeedTerm
    term_b: _SeedTerm

    @classmethod
    def of(cls, a: _Side, b: _Side, c: float, term_a: _SeedTerm, term_b: _SeedTerm) -> "_Theta":
        difference = a.users - c * b.users
        centred, centred_b = difference - difference.mean(), b.users - b.mean
        n = len(difference)
        variance, covariance, variance_b = (
            float(x @ y) / (n - 1)
            for x, y in ((centred, centred), (centred, centred_b), (centred_b, centred_b))
        )
        return cls(a.mean, b.mean, c, n, variance, covariance, variance_b, term_a, term_b)

    def at(self, c: float) -> tuple[float, float, float, float, float]:
        """Estimate, its variance from users, from A's and from B's seeds, and df."""
        k = c - self.centre
        spread = self.variance - 2 * k * self.covariance + k * k * self.variance_b
        weights = [term.constant + term.slope * c * c for term in (self.term_a, self.term_b)]
        return self.mean_a - c * self.mean_b, *self._parts(max(spread, 0.0), weights)

    def ratio_interval(self, alpha: float) -> tuple[float | None, float | None]:
        """{c - 1 : theta(c) is not separated from 0}; (None, None) if that is no finite interval."""
        if self.mean_b == 0:
            return None, None
        # For large |c| the test is that of mean(B) against 0; if that fails, every c passes.
        slopes = [self.term_a.slope, self.term_b.slope]
        if not self._rejects(self.mean_b, *self._parts(self.variance_b, slopes), alpha):
            return None, None
        low, high = self._edge(-1, alpha), self._edge(1, alpha)
        if low is None or high is None:
            return None, None
        # df depends on c, so that with few seeds the set may go on beyond a gap.
        beyond = [max(abs(low), abs(high), 1.0) * 2.0**power for power in range(-8, 12)]
        tried = [low - step for step in beyond] + [high + step for step in beyond]
        if not all(self._rejects(*self.at(c), alpha) for c in tried):
            return None, None
        return low - 1, high - 1

    def _edge(self, direction: int, alpha: float) -> float | None:
        """Where rejection begins, going from the estimated ratio in one direction."""
        inner = middle = self.mean_a / self.mean_b
        step = max(abs(middle), 1.0) * 1e-4
        while not self._rejects(*self.at(middle + direction * step), alpha):
            inner, step = middle + direction * step, 2 * step
            if not isfinite(step * step):
                return None
        outer = middle + direction * step
        while True:
            between = (inner + outer) / 2
            if between in (inner, outer):
                return inner
            if self._rejects(*self.at(between), alpha):
                outer = between
            else:
                inner = between

    def _parts(self, spread: float, weights: list[float]) -> tuple[float, float, float, float]:
        """Variance from users, A's seeds, B's seeds, and df by Satterthwaite's formula."""
        terms = (self.term_a, self.term_b)
        v_users = spread / self.n_users
        v_a, v_b = (term.variance * weight for term, weight in zip(terms, weights, strict=True))
        total = v_users + (v_a + v_b)
        if total == 0:
            return v_users, v_a, v_b, float(self.n_users - 1)
        # Shares of the total, squared: the squares themselves may underflow.
        inverse = (v_users / total) ** 2 / (self.n_users - 1)
        inverse += sum(
            (term.ms * weight / total) ** 2 / term.dof
            for term, weight in zip(terms, weights, strict=True)
            if term.variance * weight > 0
        )
        return v_users, v_a, v_b, 1 / inverse

    @staticmethod
    def _rejects(
        est: float, v_users: float, v_a: float, v_b: float, df: float, alpha: float
    ) -> bool:
        return abs(est) > _quantile(df, 1 - alpha / 2) * sqrt(v_users + (v_a + v_b))


def _quantile(df: float, *shares: float) -> float:
    """Sum of quantiles of Student's t."""
    return sum(float(stdtrit(df, share)) for share in shares)


def _checked(values: Values) -> Values:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected (seeds, users), found shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite; a model with such scores has failed")
    return values
