"""First-order Markov chain: what followed the last item, and how often.

    score(v | last item l) = n(l → v) / n(l) + ε pop(v)

n(l → v) counts neighbouring training events of a user, n(l) = Σ_v n(l → v), and pop(v) in [0, 1] is
v's training count as a share of the largest one. With a small ε it only orders the items that
never followed l, and ties.
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from datamodules.types import PAD, EvaluationBatch, TrainingData
from intentbench.models.base import ClosedFormRecommender
from intentbench.models.card import Card
from intentbench.nn.item_matrix import ItemMatrix

CARD = Card(
    title="Markov-1",
    paper="no paper: transition counts between neighbouring events",
    code="",
    tiny={},
    gradient=False,
    deterministic=True,
)


class Markov(ClosedFormRecommender):
    """Ranks by the transitions out of the last item.

    Args:
        n_items: V.
        n_users: N; unused.
        epsilon: ε, the weight of popularity. It breaks ties as long as it is below the smallest
            difference of two transition shares, 1 / max n(l).
    """

    CARD = CARD

    def __init__(self, n_items: int, n_users: int, epsilon: float = 1e-4) -> None:
        super().__init__(n_items, n_users)
        self.epsilon = epsilon
        self.transitions = ItemMatrix(n_items)
        self.popularity: Tensor
        self.register_buffer("popularity", torch.zeros(n_items + 1))

    def prepare(self, training: TrainingData) -> None:
        """Count the transitions and divide each row by its sum."""
        self.transitions.fill(transition_shares(training))
        counts = torch.bincount(training.items, minlength=self.n_items + 1)
        self.popularity.copy_(counts / counts.max().clamp(min=1))

    def score(self, batch: EvaluationBatch) -> Tensor:
        """Shares of what followed the last item, (B, V + 1); popularity where nothing is known."""
        last = batch.items.gather(1, (batch.lengths - 1).clamp(min=0)[:, None])
        scores = self.transitions.read_out(last, (last != PAD).float())
        scores += self.epsilon * self.popularity
        scores[:, PAD] = -torch.inf
        return scores


def transition_shares(training: TrainingData) -> "csr_array[Any]":
    """n(l → v) / n(l), (V + 1, V + 1); the row of an item that nothing followed is empty."""
    users = training.users
    follows = (users[1:] == users[:-1]).numpy()
    left, right = (part.numpy()[follows] for part in (training.items[:-1], training.items[1:]))
    size = training.n_items + 1
    counts = coo_array((np.ones(len(left)), (left, right)), shape=(size, size)).tocsr()
    totals = np.asarray(counts.sum(axis=1))
    counts.data /= np.repeat(totals, np.diff(counts.indptr))
    return counts
