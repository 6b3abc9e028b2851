"""ItemKNN: items had by the same users are neighbours (Deshpande & Karypis, TOIS 2004).

    C_ab = n_ab / (√(n_a n_b) + shrink),  C_aa = 0
    score(v) = Σ_j γ^(n-j) C[i_j, v]      over the history i_1 … i_n

n_a users have item a among their training events, n_ab have both (a user counts once, however
often they repeat). An item of the history counts once too, at its latest place: γ = 1 is the
classic sum, γ < 1 weighs the latest items most.
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.types import PAD, EvaluationBatch, TrainingData
from intentbench.models.base import ClosedFormRecommender
from intentbench.models.card import Card
from intentbench.nn.item_matrix import ItemMatrix, count_matrix, recency_weights

MAX_PAIRS = 400_000_000
"""Pairs of items that users have in common; preparing takes about 50 bytes each (20 GB)."""

SAMPLE = 500
"""Items by which the number of pairs is estimated."""

CARD = Card(
    title="ItemKNN",
    paper="Deshpande & Karypis, Item-based top-N recommendation algorithms, ACM TOIS 22(1), 2004, "
    "doi:10.1145/963770.963776",
    code="",
    tiny={},
    deviations=(
        "the history is weighted by recency (gamma); the paper has gamma = 1",
        "cosine with a shrinkage term, and all neighbours by default",
    ),
    gradient=False,
    deterministic=True,
)


class ItemKNN(ClosedFormRecommender):
    """Ranks by the similarity to what the user has had.

    Args:
        n_items: V.
        n_users: N; unused.
        gamma: γ in [0, 1], the weight of an item relative to the one after it.
        shrink: added to the denominator, so that few common users make little similarity.
        neighbours: how many of the most similar items each item of the history votes for; None
            for all.

    Raises:
        RequestError: a negative shrink, or no neighbours.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        gamma: float = 0.5,
        shrink: float = 10.0,
        neighbours: int | None = None,
    ) -> None:
        super().__init__(n_items, n_users)
        if shrink < 0 or (neighbours is not None and neighbours < 1):
            raise RequestError("item_knn: shrink must not be negative, neighbours at least 1")
        self.gamma = gamma
        self.shrink = shrink
        self.neighbours = neighbours
        self.similarity = ItemMatrix(n_items)

    def prepare(self, training: TrainingData) -> None:
        """Compute the similarities of all pairs of items that a user has had."""
        similarity = shrunk_cosine(training, self.shrink)
        if self.neighbours is not None:
            similarity = keep_largest(similarity, self.neighbours)
        self.similarity.fill(similarity)

    def score(self, batch: EvaluationBatch) -> Tensor:
        """Similarities to the history, summed with weights, (B, V + 1)."""
        weights = recency_weights(batch.history, self.gamma)
        scores = self.similarity.read_out(batch.history, weights)
        scores[:, PAD] = -torch.inf
        return scores


def shrunk_cosine(training: TrainingData, shrink: float) -> "csr_array[Any]":
    """C (V + 1, V + 1), symmetric, its diagonal 0.

    Raises:
        RequestError: there are too many pairs of items.
    """
    had = count_matrix(training, np.float32)
    _check_pairs(had)
    common = (had.T @ had).tocoo()
    users = np.asarray(had.sum(axis=0))  # n_a, exact in float32 up to 2^24 users
    a, b = common.row, common.col
    pairs = a != b
    a, b = a[pairs], b[pairs]
    values = common.data[pairs] / (np.sqrt(users[a] * users[b]) + shrink)
    return csr_array((values, (a, b)), shape=common.shape)


def _check_pairs(had: "csr_array[Any]") -> None:
    """Refuse what no machine holds, by a sample of rows where the lengths of users allow it."""
    n_rows = had.shape[1]
    most = min(n_rows**2, int((np.diff(had.indptr).astype(np.int64) ** 2).sum()))
    if most > MAX_PAIRS:
        sample = had.T.tocsr()[:: max(n_rows // SAMPLE, 1)]
        pairs = (sample @ had).nnz * n_rows / sample.shape[0]
        if pairs > MAX_PAIRS:
            raise RequestError(
                f"item_knn: about {pairs / 1e6:,.0f} million pairs of items have users in common, "
                f"{50 * pairs / 1e9:.0f} GB, the limit is {MAX_PAIRS / 1e6:,.0f} million; use "
                "markov, or a dataset with a larger k-core"
            )


def keep_largest(matrix: "csr_array[Any]", count: int) -> "csr_array[Any]":
    """The `count` largest values of each row; of equal ones those of the smaller columns."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(rows)) - matrix.indptr[rows]  # rows come in order, so this is the rank
    kept = order[place < count]
    return csr_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
