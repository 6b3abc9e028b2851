"""How vectors lie on the unit hypersphere (Wang & Isola, ICML 2020). NumPy and SciPy alone.

Rows are taken at length 1; a row of zeros stays one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

Floats = NDArray[np.floating[Any]]


def unit_rows(values: Floats) -> NDArray[np.float64]:
    """Rows (T, D) at length 1, those of zeros as they are."""
    wide = np.asarray(values, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.where(lengths > 0, lengths, 1)
    return unit


def alignment(first: Floats, second: Floats) -> float:
    """Mean squared distance of rows that belong together, 0 to 4; less is more alike.

    Args:
        first: (T, D).
        second: (T, D), row t belongs to row t of the other.

    >>> alignment(np.array([[2.0, 0]]), np.array([[0, 3.0]]))
    2.0
    """
    return float(np.square(unit_rows(first) - unit_rows(second)).sum(1).mean())


def uniformity(values: Floats) -> float:
    """Log of the mean of exp(-2 ‖x - y‖²) over pairs of rows; less is more even, 0 is collapse.

    Args:
        values: (T, D), at least two rows; time and memory grow with T².

    >>> uniformity(np.array([[1.0, 0], [-5.0, 0]]))
    -8.0
    """
    return float(np.log(np.exp(-2 * pdist(unit_rows(values), "sqeuclidean")).mean()))
