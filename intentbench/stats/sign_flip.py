"""A test over users that assumes no distribution: a cross-check of the t-test, never a mark.

Under the null hypothesis a user's difference is as likely to have either sign. Like every test over
users alone it takes these very trials as given, and calls equal models different where seeds matter
(`docs/statistics.md`); it says whether t is to be trusted with as skewed a metric as NDCG.
"""

import numpy as np

from intentbench.stats.components import Values

_DIGITS = 12  # of a difference: averages over seeds of the same values may differ by rounding


def sign_flip(a: Values, b: Values, draws: int = 100_000, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test over users.

    Users with the same absolute difference are drawn together, as one binomial number: the time is
    draws x distinct differences, a second for 100 000 draws with one seed a side, longer with more.

    Args:
        a: (S_A, U) metric of A; its seeds are averaged.
        b: (S_B, U) metric of B, the same users.
        draws: random flips.
        seed: of the generator; the same seed gives the same p.

    Returns:
        (1 + flips at least as far from 0) / (draws + 1), Phipson and Smyth (2010); 1 where no user
        differs.
    """
    difference = np.round(a.mean(axis=0) - b.mean(axis=0), _DIGITS)
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    generator = np.random.default_rng(seed)
    flipped = np.zeros(draws)
    for size, count in zip(sizes, counts, strict=True):
        flipped += size * (2 * generator.binomial(count, 0.5, draws) - count)
    observed = abs(float(difference.sum()))
    # Sums in another order differ in their last digits; such a flip counts as equally far.
    near = 1e-9 * float(sizes @ counts)
    reached = int((np.abs(flipped) >= observed - near).sum())
    return (1 + reached) / (draws + 1)
