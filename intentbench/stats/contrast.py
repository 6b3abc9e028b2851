"""Would A beat B if both were trained again and met other users like these?

One function answers: a two-sample comparison with users paired and crossed with seeds, and seeds
independent. Both are random, so the error of a difference has a part from users and a part from
the seeds of each model (variance components of a crossed two-way layout, Cornfield & Tukey 1956;
degrees of freedom after Satterthwaite 1946; interval of the ratio after Fieller 1954). See
`docs/statistics.md` for the reasons.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from math import copysign, inf, sqrt
from typing import Any

import numpy as np
from scipy.special import stdtr

from datamodules.errors import RequestError
from intentbench.stats.components import SeedTerm, Side, Theta, Values, quantile
from intentbench.stats.ratios import ratio_intervals

BORROWED = "borrowed seed variance"
USERS_ONLY = "users only, seeds unknown"
IDENTICAL = "identical"
SEED_CHANGES_NOTHING = "the seed changes nothing"


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
        theta: the difference at any factor.
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
    theta: Theta
    alpha: float
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether the seeds' part of the error is known, so that a verdict may be given."""
        return USERS_ONLY not in self.notes

    @cached_property
    def relative_ends(self) -> tuple[float | None, float | None]:
        """Ends of the 1 - alpha interval of `relative`; None where that is not a finite interval.

        Searched for when first asked for: of most pairs of a family nobody asks.
        """
        return ratio_intervals([self.theta], self.alpha)[0]

    @property
    def relative_low(self) -> float | None:
        """Lower one of `relative_ends`."""
        return self.relative_ends[0]

    @property
    def relative_high(self) -> float | None:
        """Upper one of `relative_ends`."""
        return self.relative_ends[1]

    def figures(self) -> dict[str, Any]:
        """All of it by name, for a file."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        del own["theta"]
        last = {name: own.pop(name) for name in ("alpha", "notes")}
        low, high = self.relative_ends
        return {**own, "relative_low": low, "relative_high": high, **last}

    @property
    def resolution(self) -> float | None:
        """Smallest true difference that would be found in 80 % of repetitions.

        A share of the larger mean, before any correction; None where that mean is 0.
        """
        scale = max(abs(self.mean_a), abs(self.mean_b))
        if scale == 0:
            return None
        return quantile(self.df, 1 - self.alpha / 2, 0.80) * self.se / scale


def find_relative_ends(contrasts: Iterable[Contrast]) -> None:
    """Search the `relative_ends` of many together, in a fraction of the time of one by one."""
    open_: dict[float, list[Contrast]] = {}
    for one in contrasts:
        if "relative_ends" not in vars(one):
            open_.setdefault(one.alpha, []).append(one)
    for alpha, several in open_.items():
        ends = ratio_intervals([one.theta for one in several], alpha)
        for one, found in zip(several, ends, strict=True):
            vars(one)["relative_ends"] = found  # where the property keeps it


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
    sides = summarise(a, deterministic_a), summarise(b, deterministic_b)
    return contrast_sides(*sides, c, alpha)


def summarise(values: Values, deterministic: bool = False) -> Side:
    """One side of any number of comparisons.

    Raises:
        RequestError: fewer than two users.
        ValueError: not (seeds, users), or a value is not finite.
    """
    values = _checked(values)
    if values.shape[1] < 2:
        raise RequestError(f"a comparison needs at least 2 users, found {values.shape[1]}")
    return Side.of(values, deterministic)


def contrast_sides(side_a: Side, side_b: Side, c: float = 1.0, alpha: float = 0.05) -> Contrast:
    """As `contrast`, for sides that are summarised already."""
    if len(side_a.users) != len(side_b.users):
        raise ValueError(f"A has {len(side_a.users)} users, B has {len(side_b.users)}")
    term_a, term_b, notes = _seed_terms(side_a, side_b)
    theta = Theta.of(side_a, side_b, c, term_a, term_b)
    est, v_users, v_a, v_b, df = map(float, theta.at(c))
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
    margin = quantile(df, 1 - alpha / 2) * se
    mean_a, mean_b = side_a.mean, side_b.mean
    return Contrast(
        est, se, df, t, p, est - margin, est + margin, v_users, v_a, v_b, mean_a, mean_b,
        (mean_a - mean_b) / mean_b if mean_b else None, theta, alpha, notes,
    )  # fmt: skip


def _seed_terms(a: Side, b: Side) -> tuple[SeedTerm, SeedTerm, tuple[str, ...]]:
    """The seeds' parts of the variance, A's and B's, and what to say about them."""
    if a.lacks_seeds and b.can_lend:
        # A's own seed counts whole, B's mean over S_B seeds by 1 / S_B; both from B's variance.
        return SeedTerm.of(b, 1.0, 1 / b.n_seeds), SeedTerm.of(b, 0.0, 0.0), (BORROWED,)
    if b.lacks_seeds and a.can_lend:
        return SeedTerm.of(a, 0.0, 0.0), SeedTerm.of(a, 1 / a.n_seeds, 1.0), (BORROWED,)
    notes = (USERS_ONLY,) if a.lacks_seeds or b.lacks_seeds else ()
    return SeedTerm.of(a, 1 / a.n_seeds, 0.0), SeedTerm.of(b, 0.0, 1 / b.n_seeds), notes


def _checked(values: Values) -> Values:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected (seeds, users), found shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite; a model with such scores has failed")
    return values
