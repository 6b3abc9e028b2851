"""BPR-MF: matrix factorisation for ranking (Rendle et al., UAI 2009).

    x_ui = p_u · q_i + b_i
    L = mean over training pairs (u, i) of
        -log σ(x_ui - x_uj) + λ (‖p_u‖² + ‖q_i‖² + ‖q_j‖²),   j uniform over what u has not had

Without biases, with λ Σ_W ‖W‖² over all factors and with Xavier's initial factors it is LightGCN
without layers, as methods on the graph are compared with.

The order of events is not used, and a user must have training events to be known.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from datamodules.types import PAD, Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.negatives import UniformNegatives

_MCLREC = "MCLRec, table 3 (SIGIR 2023); whether history is removed: unstated"
_ICSREC = "ICSRec repository, performances.md (WSDM 2024); whether history is removed: unstated"

CARD = Card(
    title="BPR-MF",
    paper="Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009, "
    "arXiv:1205.2618",
    code="",
    tiny={"width": 16, "l2": 1e-4, "learning_rate": 2e-2},
    published=(
        Published("beauty", "hit_rate@10", 0.0296, _MCLREC),
        Published("beauty", "ndcg@10", 0.0147, _MCLREC),
        Published("beauty", "ndcg@20", 0.0192, _MCLREC),
        Published("sports", "hit_rate@10", 0.0215, _MCLREC),
        Published("sports", "ndcg@10", 0.0105, _MCLREC),
        Published("sports", "ndcg@20", 0.0144, _MCLREC),
        Published("toys", "ndcg@20", 0.0132, _ICSREC),
        Published("yelp", "hit_rate@10", 0.0216, _MCLREC),
        Published("yelp", "ndcg@10", 0.0111, _MCLREC),
        Published("yelp", "ndcg@20", 0.0143, _MCLREC),
    ),
    deviations=(
        "Adam instead of plain stochastic gradient descent",
        "an epoch visits each training event once; the paper draws events with replacement",
    ),
    personal=True,
    first_loss="log_2",
)


class BPRMF(GradientRecommender):
    """BPR-MF on rows of one training event each.

    Args:
        n_items: V.
        n_users: N.
        width: D of the factors.
        l2: λ, by default on the factors of the batch only (Adam's own penalty would shrink all of
            them).
        learning_rate: of Adam.
        item_bias: whether items have biases b.
        l2_on: "batch", or "all": λ Σ_W ‖W‖² over all that is trained, biases too.
        initial: of the factors, "normal" N(0, 0.1²) or "xavier" uniform.
    """

    CARD = CARD
    layout = "pair"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 64,
        l2: float = 1e-4,
        learning_rate: float = 1e-3,
        item_bias: bool = True,
        l2_on: Literal["batch", "all"] = "batch",
        initial: Literal["normal", "xavier"] = "normal",
    ) -> None:
        super().__init__(n_items, n_users, learning_rate)
        self.l2 = l2
        self.l2_on = l2_on
        if initial == "normal":
            self.users = nn.Embedding(n_users, width)
            self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)
            nn.init.normal_(self.users.weight, std=0.1)
            nn.init.normal_(self.items.weight[1:], std=0.1)
        else:  # tables that draw nothing by themselves: the numbers are those of LightGCN
            self.users = _zeros(n_users, width)
            self.items = _zeros(n_items + 1, width, padding_idx=PAD)
            nn.init.xavier_uniform_(self.users.weight)
            nn.init.xavier_uniform_(self.items.weight[1:])
        self.bias = nn.Parameter(torch.zeros(n_items + 1)) if item_bias else None
        self.sampler: UniformNegatives | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has had."""
        self.sampler = UniformNegatives(training).to(self.device)

    def encode(self, batch: Batch) -> Tensor:
        """[p_u, 1], (B, D + 1): the last factor carries the items' biases; without them, p_u."""
        users: Tensor = self.users(batch.users)
        if self.bias is None:
            return users
        return torch.cat([users, torch.ones_like(users[:, :1])], 1)

    def item_table(self) -> Tensor:
        """[q_i, b_i], (V + 1, D + 1); without biases, q_i."""
        if self.bias is None:
            return self.items.weight
        return torch.cat([self.items.weight, self.bias[:, None]], 1)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The loss of each training event against one negative: its "bpr" and "l2" terms."""
        if self.sampler is None:
            raise RuntimeError("negatives need the training events: call prepare first")
        positives = batch.labels  # a row is one event: users and labels are both (B,)
        negatives = self.sampler.sample(batch.users, 1)[:, 0]
        if self.l2_on == "all":  # before the lookups: then gradients add up in LightGCN's order
            l2 = self.l2 * torch.stack([p.square().sum() for p in self._trained()]).sum()
        user, positive, negative = (
            self.users(batch.users),
            self.items(positives),
            self.items(negatives),
        )
        margin = (user * (positive - negative)).sum(-1)
        if self.bias is not None:
            margin = margin + self.bias[positives] - self.bias[negatives]
        bpr = softplus(-margin).mean()
        if self.l2_on == "batch":
            squares = user.square().sum(-1) + positive.square().sum(-1) + negative.square().sum(-1)
            l2 = self.l2 * squares.mean()
        return {"total": bpr + l2, "bpr": bpr, "l2": l2}

    def _trained(self) -> list[Tensor]:
        """All that is trained but the `PAD` row, which stays 0."""
        biases = [] if self.bias is None else [self.bias]
        return [self.users.weight, self.items.weight[1:], *biases]


def _zeros(rows: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    table = torch.zeros(rows, width)
    return nn.Embedding(rows, width, padding_idx, _weight=table)
