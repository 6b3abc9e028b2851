"""Agreement of the intents that a method assigns with those that the generator planted.

Both compare two partitions of the same events or items: the labels' names and order do not
matter, nor need the two have equally many intents. Edge cases:

- one intent for everything against several planted ones (or the reverse): 0, nothing is told;
- one intent on both sides, or each thing alone on both sides: 1, the partitions are the same;
- nothing to compare, unequal lengths, labels that are no integers: an error.

A label for "no intent" is a label as any other: leave such events out before the call if they
should not count.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


def nmi(assigned: NDArray[np.integer], planted: NDArray[np.integer]) -> float:
    """Normalised mutual information, I(assigned; planted) over the mean of the two entropies.

    Not corrected for chance: it rises with the number of intents, so read it beside `ari`.

    Args:
        assigned: (T,) integer labels.
        planted: (T,) integer labels.

    Returns:
        A value in [0, 1], 1 where the partitions are the same.

    Raises:
        ValueError: the labels are not two integer arrays of one positive length.

    >>> nmi(np.array([5, 5, 2, 2]), np.array([0, 0, 1, 1]))
    1.0
    """
    _check(assigned, planted)
    return float(normalized_mutual_info_score(planted, assigned))


def ari(assigned: NDArray[np.integer], planted: NDArray[np.integer]) -> float:
    """Adjusted Rand index: agreement over pairs, corrected for chance.

    Hubert and Arabie, "Comparing partitions", Journal of Classification, 1985.

    Args:
        assigned: (T,) integer labels.
        planted: (T,) integer labels.

    Returns:
        A value in [-0.5, 1]: 0 expected of random labels, 1 where the partitions are the same.

    Raises:
        ValueError: the labels are not two integer arrays of one positive length.

    >>> ari(np.array([5, 5, 2, 2]), np.array([0, 0, 1, 1]))
    1.0
    """
    _check(assigned, planted)
    return float(adjusted_rand_score(planted, assigned))


def _check(assigned: NDArray[np.integer], planted: NDArray[np.integer]) -> None:
    integers = all(np.issubdtype(labels.dtype, np.integer) for labels in (assigned, planted))
    if not integers or assigned.ndim != 1 or assigned.shape != planted.shape or not len(assigned):
        raise ValueError(
            "assigned and planted must be integer arrays of one positive length; they are "
            f"{assigned.dtype} {assigned.shape} and {planted.dtype} {planted.shape}"
        )
