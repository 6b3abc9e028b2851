"""Is the new model no worse than the old one, by more than a margin?

A non-inferiority test of theta = mean(new) - (1 - m) * mean(base), one-sided on both sides: no
worse where its lower bound is above 0, worse where its upper bound is below, undecided between.
Error and degrees of freedom are those of `contrast`. See `docs/gate.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import sqrt

from scipy.special import stdtr

from datamodules.errors import RequestError
from intentbench.stats.components import SeedTerm, Side, Theta, Values, quantile
from intentbench.stats.contrast import Contrast, contrast
from intentbench.stats.correction import adjust

ALPHA = 0.05
"""Chance to pass a model that is worse by exactly the margin, and to call one worse that is not."""

MARGIN = 0.05
"""Default margin, a share of the baseline's mean: what three seeds can hold."""

POWER = 0.80
"""Share of repetitions in which an unchanged model is to pass."""

MOST_SEEDS = 100
"""More are not proposed."""


class Verdict(StrEnum):
    """What a gate says."""

    PASS = "pass"  # noqa: S105 (no password)
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class GateTest:
    """One model against its baseline.

    Attributes:
        contrast: mean(new) - (1 - m) * mean(base); its interval is the pair of one-sided bounds.
        unchanged: whether both sides hold the very same ranks.
        p_worse: one-sided p-value of "worse by more than the margin", not corrected; None where
            nothing was tested.
        certifiable: margin that runs like these hold in 80 % of repetitions if nothing has
            changed; None where nothing was tested, or the baseline's mean is 0.
        seeds_needed: seeds on each side from which that would be the margin asked for; None where
            it is unknown, or where users alone keep it above.
    """

    contrast: Contrast
    unchanged: bool
    p_worse: float | None
    certifiable: float | None
    seeds_needed: int | None


def check_margin(margin: float) -> None:
    """Refuse what is no margin.

    Raises:
        RequestError: it is not between 0 and 1.
    """
    if not 0 < margin < 1:
        raise RequestError(
            f"margin {margin:g}: expected a share between 0 and 1, such as {MARGIN:g}"
        )


def judge_margin(
    new: Values,
    base: Values,
    margin: float = MARGIN,
    *,
    unchanged: bool = False,
    deterministic_new: bool = False,
    deterministic_base: bool = False,
) -> GateTest:
    """Test one model against its baseline.

    Args:
        new: (S_new, U) metric.
        base: (S_base, U) metric, the same users in the same order.
        margin: share of the baseline's mean that may be lost.
        unchanged: whether the ranks behind both are equal; then there is nothing to test.
        deterministic_new: whether the new model's seed changes nothing by definition.
        deterministic_base: likewise.

    Raises:
        RequestError: the margin is not between 0 and 1, or there are fewer than two users.
        ValueError: the shapes do not fit, or a value is not finite.
    """
    check_margin(margin)
    c = 1 - margin
    found = contrast(new, base, c, deterministic_new, deterministic_base, alpha=2 * ALPHA)
    p_worse = certifiable = needed = None
    if found.judged and not unchanged:
        p_worse = float(stdtr(found.df, found.t))
        if found.mean_b > 0:
            certifiable = quantile(found.df, 1 - ALPHA, POWER) * found.se / found.mean_b
            sides = Side.of(new, deterministic_new), Side.of(base, deterministic_base)
            needed = _seeds_needed(*sides, c)
    return GateTest(found, unchanged, p_worse, certifiable, needed)


def give_verdicts(tests: Sequence[GateTest]) -> list[Verdict]:
    """Verdicts of tests made together.

    A pass needs no correction, as all must pass for the whole to pass (an intersection-union test,
    Berger 1982). "Worse" is corrected after Holm over the tests made: any of them makes the whole
    worse.
    """
    adjusted = adjust([test.p_worse for test in tests])
    verdicts = []
    for test, p in zip(tests, adjusted, strict=True):
        if test.unchanged:
            verdicts.append(Verdict.PASS)
        elif p is None:
            verdicts.append(Verdict.CANNOT_TELL)
        elif test.contrast.low > 0:
            verdicts.append(Verdict.PASS)
        else:
            verdicts.append(Verdict.WORSE if p < ALPHA else Verdict.CANNOT_TELL)
    return verdicts


def sum_up(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for all: worse if any is, pass if all do.

    >>> sum_up([Verdict.PASS, Verdict.CANNOT_TELL]).value
    'cannot tell'
    """
    if Verdict.WORSE in verdicts:
        return Verdict.WORSE
    passed = bool(verdicts) and all(verdict is Verdict.PASS for verdict in verdicts)
    return Verdict.PASS if passed else Verdict.CANNOT_TELL


def _seeds_needed(new: Side, base: Side, c: float) -> int | None:
    """Fewest seeds on each side with which the margin 1 - c would be certified.

    The mean squares stand; what seeds and users leave unexplained shrinks in the users' part, too.
    The baseline keeps the seeds that it has where these are more.
    """
    # As in `contrast`: a side without seeds of its own has the other's variance.
    lent_new, lent_base = new, base
    if new.lacks_seeds:
        lent_new = replace(new, ms_seeds=base.ms_seeds, ms_error=base.ms_error)
    if base.lacks_seeds:
        lent_base = replace(base, ms_seeds=new.ms_seeds, ms_error=new.ms_error)
    now = _noise(lent_new, new.n_seeds) + c * c * _noise(lent_base, base.n_seeds)
    unseeded = SeedTerm.of(replace(new, ms_seeds=0.0), 0.0, 0.0)
    theta = Theta.of(new, base, c, unseeded, unseeded)
    least = 1 if new.deterministic and base.deterministic else 2
    for n in range(least, MOST_SEEDS + 1):
        n_base = max(n, base.n_seeds)
        then = _noise(lent_new, n) + c * c * _noise(lent_base, n_base)
        projected = replace(
            theta,
            variance=max(theta.variance - now + then, 0.0),
            term_a=SeedTerm.of(replace(lent_new, n_seeds=n), 1 / n, 0.0),
            term_b=SeedTerm.of(replace(lent_base, n_seeds=n_base), 0.0, 1 / n_base),
        )
        _, v_users, v_new, v_base, df = projected.at(c)
        if quantile(df, 1 - ALPHA, POWER) * sqrt(v_users + v_new + v_base) <= (1 - c) * base.mean:
            return n
    return None


def _noise(side: Side, n_seeds: int) -> float:
    """Variance over users that comes from what neither seed nor user explains."""
    return side.ms_error / n_seeds
