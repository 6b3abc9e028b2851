"""Variance components of a crossed layout, and what follows for mean(A) - c * mean(B) at any c."""

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Values = NDArray[np.float64]
"""(S, U) a metric: one row a seed, one column a user, users in the same order everywhere."""

_ROUNDING = 1e-9
_STRIDE = 1.25  # of the search for the ends of an interval


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
class Side:
    """One model.

    Attributes:
        users: (U,) its metric, averaged over seeds.
        mean: over users and seeds.
        n_seeds: number of seeds.
        deterministic: whether it says that the seed changes nothing.
        constant: whether it has several seeds, all equal.
        ms_seeds: mean square of seeds; 0 where it cannot be known or is 0 by definition.
        ms_error: mean square of what neither seed nor user explains, likewise.
    """

    users: NDArray[np.float64]
    mean: float
    n_seeds: int
    deterministic: bool
    constant: bool
    ms_seeds: float
    ms_error: float

    @classmethod
    def of(cls, values: Values, deterministic: bool) -> "Side":
        """Summarise (S, U) values."""
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
        """Whether its seed variance cannot be known from its own runs."""
        return self.n_seeds == 1 and not self.deterministic

    @property
    def can_lend(self) -> bool:
        """Whether its seed variance may stand for that of another model."""
        return self.n_seeds > 1 and not self.deterministic


@dataclass(frozen=True)
class SeedTerm:
    """A part of the variance that comes from seeds: `variance * (constant + slope * c^2)`.

    Attributes:
        variance: max(MS_seeds - MS_error, 0) / U, of one seed's mean over users.
        ms: MS_seeds / U.
        dof: degrees of freedom of `ms`.
        constant: weight of A's seeds.
        slope: weight of B's seeds.
    """

    variance: float
    ms: float
    dof: int
    constant: float
    slope: float

    @classmethod
    def of(cls, side: Side, constant: float, slope: float) -> "SeedTerm":
        """The part that a side's mean squares stand for."""
        n_users = len(side.users)
        excess = side.ms_seeds - side.ms_error
        # Equal mean squares differ by rounding, and df would jump with the sign of that.
        variance = excess / n_users if excess > _ROUNDING * side.ms_seeds else 0.0
        return cls(variance, side.ms_seeds / n_users, max(side.n_seeds - 1, 1), constant, slope)


@dataclass(frozen=True)
class Theta:
    """mean(A) - c * mean(B) and its variance, for any c, from moments taken once.

    Attributes:
        mean_a: mean of A.
        mean_b: mean of B.
        centre: the c at which moments are taken, so that a difference of 0 is exactly 0 there.
        n_users: U.
        variance: of A - centre * B over users.
        covariance: of that with B.
        variance_b: of B over users.
        term_a: what A's seeds contribute.
        term_b: what B's seeds contribute.
    """

    mean_a: float
    mean_b: float
    centre: float
    n_users: int
    variance: float
    covariance: float
    variance_b: float
    term_a: SeedTerm
    term_b: SeedTerm

    @classmethod
    def of(cls, a: Side, b: Side, c: float, term_a: SeedTerm, term_b: SeedTerm) -> "Theta":
        """Take the moments at c."""
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
        """{c - 1 : theta(c) is not separated from 0}, after Fieller.

        Returns:
            Its ends; (None, None) where the set is unbounded or has a gap. Gaps come from df, which
            depends on c, and occur with a handful of users; those narrower than a stride of the
            search are overlooked.
        """
        if self.mean_b == 0:
            return None, None
        # For large |c| the test is that of mean(B) against 0; if that fails, every c passes.
        slopes = [self.term_a.slope, self.term_b.slope]
        if not self._rejects(self.mean_b, *self._parts(self.variance_b, slopes), alpha):
            return None, None
        low, high = self._edge(-1, alpha), self._edge(1, alpha)
        if low is None or high is None:
            return None, None
        scale = max(abs(low), abs(high), 1.0)
        steps = [scale * _STRIDE**power for power in range(-25, 40)]
        tried = [low - step for step in steps] + [high + step for step in steps]
        if not all(self._rejects(*self.at(c), alpha) for c in tried):
            return None, None
        return low - 1, high - 1

    def _edge(self, direction: int, alpha: float) -> float | None:
        """Where rejection begins, going from the estimated ratio in one direction."""
        inner = middle = self.mean_a / self.mean_b
        step = max(abs(middle), 1.0) * 1e-4
        while not self._rejects(*self.at(middle + direction * step), alpha):
            inner, step = middle + direction * step, _STRIDE * step
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
        return abs(est) > quantile(df, 1 - alpha / 2) * sqrt(v_users + (v_a + v_b))


def quantile(df: float, *shares: float) -> float:
    """Sum of quantiles of Student's t."""
    return sum(float(stdtrit(df, share)) for share in shares)
