"""Popularity: everybody gets what most have had.

    score(v) = number of training events with item v

Items of the same count are ties, and ties count half (`intentbench.metrics.ranks`).
"""

import torch
from torch import Tensor

from datamodules.types import PAD, EvaluationBatch, TrainingData
from intentbench.models.base import ClosedFormRecommender
from intentbench.models.card import Card, Published

_S3REC = "S3-Rec repository, full-ranking table (CIKM 2020); whether history is removed: unstated"

CARD = Card(
    title="Popularity",
    paper="no paper: the number of training events of an item",
    code="",
    tiny={},
    published=(
        Published("beauty", "hit_rate@10", 0.0152, _S3REC),
        Published("beauty", "ndcg@10", 0.0068, _S3REC),
        Published("beauty", "ndcg@20", 0.0084, _S3REC),
        Published("sports", "hit_rate@10", 0.0094, _S3REC),
        Published("sports", "ndcg@10", 0.0053, _S3REC),
        Published("toys", "hit_rate@10", 0.0113, _S3REC),
        Published("toys", "ndcg@10", 0.0061, _S3REC),
        Published("toys", "ndcg@20", 0.0073, _S3REC),
        Published("yelp", "hit_rate@10", 0.0099, _S3REC),
        Published("yelp", "ndcg@10", 0.0051, _S3REC),
        Published("yelp", "ndcg@20", 0.0067, _S3REC),
    ),
    gradient=False,
    deterministic=True,
)


class Popularity(ClosedFormRecommender):
    """Ranks by training counts.

    Args:
        n_items: V.
        n_users: N; unused.
    """

    CARD = CARD

    def __init__(self, n_items: int, n_users: int) -> None:
        super().__init__(n_items, n_users)
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(n_items + 1))

    def prepare(self, training: TrainingData) -> None:
        """Count the training events of each item."""
        self.counts.copy_(torch.bincount(training.items, minlength=self.n_items + 1))

    def score(self, batch: EvaluationBatch) -> Tensor:
        """The same counts for every user, (B, V + 1)."""
        scores = self.counts.repeat(len(batch.users), 1)
        scores[:, PAD] = -torch.inf
        return scores
