"""How large a difference is, in several readings; none of them is a test."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from intentbench.stats.components import Values
from intentbench.stats.contrast import Contrast

ROPE = 0.01
"""Region of practical equivalence: relative differences below it are called small."""

_SAME = 1e-12  # averages over seeds of the same values may differ by rounding


@dataclass(frozen=True)
class Effect:
    """The size of a difference between A and B.

    Attributes:
        d_z: difference over the standard deviation of the users' differences; None where those
            do not vary.
        won: users for whom A is better, seeds averaged.
        tied: users for whom both are equal.
        lost: users for whom B is better.
        win_share: probability that A is better for a random user, ties counting half.
        seed_win_share: probability that a random seed of A beats a random one of B, likewise.
        p_better: probability of a difference above `ROPE`, from t with the contrast's df.
        p_equivalent: probability of one within it.
        p_worse: probability of one below it.
    """

    d_z: float | None
    won: int
    tied: int
    lost: int
    win_share: float
    seed_win_share: float
    p_better: float
    p_equivalent: float
    p_worse: float


@dataclass(frozen=True)
class Averages:
    """Of one model's metric, for any number of effects.

    Attributes:
        users: (U,) over seeds.
        seeds: (S,) over users.
    """

    users: NDArray[np.float64]
    seeds: NDArray[np.float64]

    @classmethod
    def of(cls, values: Values) -> "Averages":
        """Average (S, U) values."""
        return cls(values.mean(axis=0), values.mean(axis=1))


def measure_effect(a: Values, b: Values, contrast: Contrast) -> Effect:
    """Describe a difference.

    Args:
        a: (S_A, U) metric of A.
        b: (S_B, U) metric of B.
        contrast: of A and B, with c = 1.
    """
    return effect_of_averages(Averages.of(a), Averages.of(b), contrast)


def effect_of_averages(a: Averages, b: Averages, contrast: Contrast) -> Effect:
    """As `measure_effect`, from what was averaged already."""
    n_users = len(a.users)
    difference = a.users - b.users
    won = int(np.count_nonzero(difference > _SAME))
    lost = int(np.count_nonzero(difference < -_SAME))
    tied = n_users - won - lost
    spread = sqrt(contrast.v_users * n_users)
    of_seeds = a.seeds[:, None] - b.seeds
    wins = (of_seeds > _SAME).mean() + (np.abs(of_seeds) <= _SAME).mean() / 2
    rope = ROPE * abs(contrast.mean_b)
    above = _tail(contrast, rope)
    below = 1 - _tail(contrast, -rope)
    return Effect(
        d_z=contrast.est / spread if spread > 0 else None,
        won=won,
        tied=tied,
        lost=lost,
        win_share=(won + tied / 2) / n_users,
        seed_win_share=float(wins),
        p_better=above,
        p_equivalent=max(1 - above - below, 0.0),
        p_worse=below,
    )


def _tail(contrast: Contrast, bound: float) -> float:
    """Probability that the difference is larger than a bound."""
    if contrast.se == 0:
        return float(contrast.est > bound)
    return float(stdtr(contrast.df, (contrast.est - bound) / contrast.se))
