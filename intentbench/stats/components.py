"""Variance components of a crossed layout, and what follows for mean(A) - c * mean(B) at any c."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Values = NDArray[np.float64]
"""(S, U) a metric: one row a seed, one column a user, users in the same order everywhere."""

_ROUNDING = 1e-9

Scalars = Any
"""A float or an array of them."""


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
        return self.n_seeds > 1 and not self.deterministic and not self.constant


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

    @staticmethod
    def columns(several: Sequence["Theta"]) -> NDArray[np.float64]:
        """The fields of several, (F, N)."""
        return np.array(
            [
                [
                    one.mean_a, one.mean_b, one.centre, one.n_users,
                    one.variance, one.covariance, one.variance_b,
                    *vars(one.term_a).values(), *vars(one.term_b).values(),
                ]
                for one in several
            ]
        ).T  # fmt: skip

    @classmethod
    def of_columns(cls, table: Scalars) -> "Theta":
        """Several as one whose fields are arrays, from fields (F, …)."""
        mean_a, mean_b, centre, n_users, variance, covariance, variance_b, *terms = table
        return cls(
            mean_a, mean_b, centre, n_users, variance, covariance, variance_b,
            SeedTerm(*terms[:5]), SeedTerm(*terms[5:]),
        )  # fmt: skip

    def at(self, c: Scalars) -> tuple[Scalars, Scalars, Scalars, Scalars, Scalars]:
        """Estimate, its variance from users, from A's and from B's seeds, and df; of each c."""
        k = c - self.centre
        spread = self.variance - 2 * k * self.covariance + k * k * self.variance_b
        weights = [term.constant + term.slope * c * c for term in (self.term_a, self.term_b)]
        return self.mean_a - c * self.mean_b, *self._parts(spread * (spread > 0), weights)

    def rejection(self, c: Scalars, alpha: float) -> Scalars:
        """Positive where theta(c) is separated from 0."""
        return _excess(*self.at(c), alpha)

    def far_rejection(self, alpha: float) -> Scalars:
        """The sign of `rejection` for large |c|: the test is then that of mean(B) against 0."""
        slopes = [self.term_a.slope, self.term_b.slope]
        return _excess(self.mean_b, *self._parts(self.variance_b, slopes), alpha)

    def _parts(
        self, spread: Scalars, weights: list[Scalars]
    ) -> tuple[Scalars, Scalars, Scalars, Scalars]:
        """Variance from users, A's seeds, B's seeds, and df by Satterthwaite's formula."""
        terms = (self.term_a, self.term_b)
        v_users = spread / self.n_users
        v_a, v_b = (term.variance * weight for term, weight in zip(terms, weights, strict=True))
        total = v_users + (v_a + v_b)
        nothing = total <= 0  # arithmetic in place of np.where, which is slow for floats
        scale = total + nothing
        # Shares of the total, squared: the squares themselves may underflow.
        inverse = (v_users / scale) ** 2 / (self.n_users - 1)
        for term, weight in zip(terms, weights, strict=True):
            inverse = inverse + (term.variance > 0) * (term.ms * weight / scale) ** 2 / term.dof
        df = 1 / (inverse + nothing / (self.n_users - 1))
        return v_users, v_a, v_b, df


def _excess(
    est: Scalars, v_users: Scalars, v_a: Scalars, v_b: Scalars, df: Scalars, alpha: float
) -> Scalars:
    """How far an estimate is beyond its margin."""
    return abs(est) - stdtrit(df, 1 - alpha / 2) * (v_users + (v_a + v_b)) ** 0.5


def quantile(df: float, *shares: float) -> float:
    """Sum of quantiles of Student's t."""
    return sum(float(stdtrit(df, share)) for share in shares)
