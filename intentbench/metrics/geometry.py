"""The shape of a set of vectors: length, direction, rank. NumPy alone.

Notation: T vectors, D width; all take float arrays (T, D).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

EPSILON = 1e-12


def effective_rank(values: Floats) -> float:
    """E to the entropy of the normalised singular values, centred (Roy & Vetterli 2007), 1 to D.

    >>> effective_rank(np.eye(4)[[0, 1, 0, 1]])
    1.0
    """
    singular = np.linalg.svd(values - values.mean(0), compute_uv=False)
    share = singular / max(singular.sum(), EPSILON)
    share = share[share > EPSILON]
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 1.0


def mean_pairwise_cosine(values: Floats) -> float:
    """Mean cosine of all pairs of different rows; 1 where all point the same way.

    >>> mean_pairwise_cosine(np.array([[1.0, 0], [2, 0], [0, 1]]))
    0.3333333333333333
    """
    unit = _unit(values)
    count = len(unit)
    total = np.square(unit.sum(0)).sum() - np.square(unit).sum()
    return float(total / max(count * (count - 1), 1))


def lag_cosines(
    values: Floats, user: NDArray[np.integer], position: NDArray[np.integer], lags: int = 10
) -> list[float]:
    """Mean cosine of a user's rows that stand 1, 2, … `lags` positions apart.

    Args:
        values: (T, D).
        user: (T,).
        position: (T,) of the row among the user's events.
        lags: largest distance.

    Returns:
        One mean a lag; nan where no two rows stand so far apart.
    """
    order = np.lexsort([position, user])
    unit, user, position = _unit(values[order]), user[order], position[order]
    means = []
    for lag in range(1, lags + 1):
        pair = (user[lag:] == user[:-lag]) & (position[lag:] - position[:-lag] == lag)
        cosines = (unit[lag:] * unit[:-lag]).sum(1)[pair]
        means.append(float(cosines.mean()) if len(cosines) else float("nan"))
    return means


def length_ratio(part: Floats, whole: Floats) -> float:
    """Mean over rows of ‖part‖ / ‖whole‖."""
    lengths = np.linalg.norm(whole, axis=1)
    return float((np.linalg.norm(part, axis=1) / np.maximum(lengths, EPSILON)).mean())


def _unit(values: Floats) -> Floats:
    unit: Floats = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), EPSILON)
    return unit
