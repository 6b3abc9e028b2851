"""BPR-MF: matrix factorisation for ranking (Rendle et al., UAI 2009).

    x_ui = p_u · q_i + b_i
    L = mean over training pairs (u, i) of
        -log σ(x_ui - x_uj) + λ (‖p_u‖² + ‖q_i‖² + ‖q_j‖²),   j uniform over what u has not had

The order of events is not used, and a user must have training events to be known.
"""

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
        l2: λ, on the factors of the batch only (Adam's own penalty would shrink all of them).
        learning_rate: of Adam.
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
    ) -> None:
        super().__init__(n_items, n_users, learning_rate)
        self.l2 = l2
        self.users = nn.Embedding(n_users, width)
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.items.weight[1:], std=0.1)
        self.sampler: UniformNegatives | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has had."""
        self.sampler = UniformNegatives(training).to(self.device)

    def encode(self, batch: Batch) -> Tensor:
        """[p_u, 1], (B, D + 1): the last factor carries the items' biases."""
        users: Tensor = self.users(batch.users)
        return torch.cat([users, torch.ones_like(users[:, :1])], 1)

    def item_table(self) -> Tensor:
        """[q_i, b_i], (V + 1, D + 1)."""
        return torch.cat([self.items.weight, self.bias[:, None]], 1)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The loss of each training event against one negative: its "bpr" and "l2" terms."""
        if self.sampler is None:
            raise RuntimeError("negatives need the training events: call prepare first")
        positives = batch.labels  # a row is one event: users and labels are both (B,)
        negatives = self.sampler.sample(batch.users, 1)[:, 0]
        user, positive, negative = (
            self.users(batch.users),
            self.items(positives),
            self.items(negatives),
        )
        margin = (user * (positive - negative)).sum(-1)
        margin = margin + self.bias[positives] - self.bias[negatives]
        bpr = softplus(-margin).mean()
        squares = user.square().sum(-1) + positive.square().sum(-1) + negative.square().sum(-1)
        l2 = self.l2 * squares.mean()
        return {"total": bpr + l2, "bpr": bpr, "l2": l2}
