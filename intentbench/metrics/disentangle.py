"""How far two representations of the same positions are apart, and what one keeps of another.

Notation: T positions, D width; all take float arrays (T, D). The bound on mutual information,
which is trained, is `mutual_information`.
"""

import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict

from intentbench.metrics.geometry import EPSILON, Floats

SAMPLE = 2000
"""Positions that the quadratic measures use at most: the first ones of a shuffled set."""


def linear_cka(first: Floats, second: Floats) -> float:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019), in [0, 1].

    0: no linear relation; 1: equal up to rotation and one scale.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(linear_cka(x, 2 * x[:, ::-1]), 6)
    1.0
    """
    x, y = first - first.mean(0), second - second.mean(0)
    cross = np.square(x.T @ y).sum()
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(cross / max(scale, EPSILON))


def distance_correlation(first: Floats, second: Floats) -> float:
    """Distance correlation (Székely, Rizzo & Bakirov 2007) of the first `SAMPLE` rows, in [0, 1].

    0 in the limit exactly where the two are independent, also without a linear relation.
    """
    x, y = (_centred_distances(values[:SAMPLE]) for values in (first, second))
    scale = np.sqrt((x * x).mean() * (y * y).mean())
    return float(np.sqrt(max((x * y).mean(), 0.0) / max(scale, EPSILON)))


def reconstruction_r2(source: Floats, target: Floats, penalty: float = 1.0) -> float:
    """Share of the variance of `target` that ridge regression on `source` explains, 5-fold.

    Fitted on four fifths of the rows, judged on the fifth that was left out, so a useless source
    gives about 0 (or slightly less) and a sufficient one 1.
    """
    predicted = cross_val_predict(Ridge(alpha=penalty), source, target, cv=5)
    residual = np.square(target - predicted).sum()
    return float(1 - residual / max(np.square(target - target.mean(0)).sum(), EPSILON))


def _centred_distances(values: Floats) -> Floats:
    distances: Floats = squareform(pdist(values))
    centred: Floats = (
        distances
        - distances.mean(0, keepdims=True)
        - distances.mean(1, keepdims=True)
        + distances.mean()
    )
    return centred
