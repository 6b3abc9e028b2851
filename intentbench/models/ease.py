"""EASE: a linear autoencoder in closed form (Steck, WWW 2019).

    P = (XᵀX + λI)⁻¹,  B_ab = -P_ab / P_bb,  B_aa = 0
    score(v) = Σ_j γ^(n-j) B[i_j, v]      over the history i_1 … i_n

X (N, V) is binary over the training events. An item of the history counts once, at its latest
place, so that γ = 1 is the paper's x·B.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import eye_array
from torch import Tensor
from torch.nn import functional

from datamodules.errors import RequestError
from datamodules.types import PAD, EvaluationBatch, TrainingData
from intentbench.models.base import ClosedFormRecommender
from intentbench.models.card import Card
from intentbench.nn.item_matrix import count_matrix, recency_weights

MAX_ITEMS = 40_000
"""Preparing takes 12 V² bytes (19 GB at this size) and V³ operations."""

ROWS = 256
"""Rows of B made at a time from the inverse."""

CARD = Card(
    title="EASE",
    paper="Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, arXiv:1905.03375",
    code="",
    tiny={},
    deviations=("the history is weighted by recency (gamma); the paper has gamma = 1",),
    gradient=False,
    deterministic=True,
)


class EASE(ClosedFormRecommender):
    """Ranks by a linear regression of each item on the others.

    B is dense: 4 V² bytes in memory and in a checkpoint (0.6 GB for 12,000 items); preparing takes
    12 V² bytes at its peak, because the inverse is made in float64, in place.

    Args:
        n_items: V, at most `MAX_ITEMS`.
        n_users: N; unused.
        gamma: γ in [0, 1], the weight of an item relative to the one after it.
        l2: λ > 0, the ridge penalty.

    Raises:
        RequestError: too many items, or a penalty that is not positive.
    """

    CARD = CARD

    def __init__(self, n_items: int, n_users: int, gamma: float = 0.5, l2: float = 50.0) -> None:
        super().__init__(n_items, n_users)
        if n_items > MAX_ITEMS:
            raise RequestError(
                f"ease: {n_items} items would take {12 * n_items**2 / 1e9:.0f} GB, the limit is "
                f"{MAX_ITEMS} items; use item_knn, or a dataset with a larger k-core"
            )
        if l2 <= 0:
            raise RequestError(f"ease: l2 must be positive, found {l2}")
        self.gamma = gamma
        self.l2 = l2
        self.weights: Tensor
        self.register_buffer("weights", torch.zeros(n_items + 1, n_items + 1))

    def prepare(self, training: TrainingData) -> None:
        """Solve for B."""
        lower = torch.from_numpy(inverse_gram(training, self.l2))
        for start in range(0, len(lower), ROWS):
            part = slice(start, start + ROWS)
            # both triangles from the lower one; the diagonal comes twice, but is not used
            self.weights[part] = (lower[part] + lower[:, part].T) / -lower.diagonal()
        self.weights.fill_diagonal_(0)

    def score(self, batch: EvaluationBatch) -> Tensor:
        """Rows of B for the items of the history, summed with weights, (B, V + 1)."""
        weights = recency_weights(batch.history, self.gamma)
        scores = functional.embedding_bag(
            batch.history, self.weights, per_sample_weights=weights, mode="sum", padding_idx=PAD
        )
        scores[:, PAD] = -torch.inf
        return scores


def inverse_gram(training: TrainingData, l2: float) -> NDArray[np.float64]:
    """(XᵀX + λI)⁻¹, (V + 1, V + 1): the lower triangle, zeros above it.

    Made in place by Cholesky's method, so that one dense matrix is all there is.
    """
    had = count_matrix(training, np.float64)
    gram = (had.T @ had + l2 * eye_array(training.n_items + 1)).toarray(order="F")
    factor, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)  # clean=1: zeros above
    inverse: NDArray[np.float64]
    inverse, singular = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed or singular:
        raise RequestError(f"ease: the items' matrix is singular with l2 {l2}; take a larger one")
    return inverse
