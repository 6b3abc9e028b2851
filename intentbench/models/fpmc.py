"""FPMC: factorised personalised Markov chains (Rendle et al., WWW 2010).

    x_{u,l,i} = p_u · q_i + a_l · c_i                        l the last item before i
    L = mean over training transitions (u, l, i) of
        -log σ(x_{u,l,i} - x_{u,l,j}) + λ (‖p_u‖² + ‖q_i‖² + ‖q_j‖² + ‖a_l‖² + ‖c_i‖² + ‖c_j‖²)

with j uniform over what u has not had (S-BPR, baskets of one item). With a = c = 0 it is BPR-MF
without item biases, with p = 0 a factorised Markov chain.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from datamodules.types import PAD, Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card
from intentbench.nn.frequency import last_items
from intentbench.nn.negatives import UniformNegatives

CARD = Card(
    title="FPMC",
    paper="Rendle et al., Factorizing Personalized Markov Chains for Next-Basket Recommendation, "
    "WWW 2010, doi:10.1145/1772690.1772773",
    code="",
    tiny={"width": 16, "l2": 1e-4, "learning_rate": 2e-2},
    deviations=(
        "Adam instead of plain stochastic gradient descent",
        "an epoch visits each training transition once; the paper draws them with replacement",
        "the term between user and last item is left out: it moves no rank and cancels in the loss",
        "negatives are drawn outside the user's training events; the paper's, outside the basket",
        "a user without training rows has p_u = 0, so that the Markov chain alone counts",
    ),
    personal=True,
    first_loss="log_2",
)


class FPMC(GradientRecommender):
    """FPMC on rows of one transition each.

    Args:
        n_items: V.
        n_users: N.
        width: D of each pair of factors.
        l2: λ, on the factors of the batch only (Adam's own penalty would shrink all of them).
        learning_rate: of Adam.
    """

    CARD = CARD
    layout = "prefix"

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
        self.users = nn.Embedding(n_users, width)  # p
        self.user_items = nn.Embedding(n_items + 1, width, padding_idx=PAD)  # q
        self.last = nn.Embedding(n_items + 1, width, padding_idx=PAD)  # a
        self.next_items = nn.Embedding(n_items + 1, width, padding_idx=PAD)  # c
        nn.init.normal_(self.users.weight, std=0.1)
        for table in (self.user_items, self.last, self.next_items):
            nn.init.normal_(table.weight[1:], std=0.1)
        self.known: Tensor
        self.register_buffer("known", torch.zeros(n_users, dtype=torch.bool))
        self.sampler: UniformNegatives | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has had, and who has a training row."""
        self.sampler = UniformNegatives(training).to(self.device)
        self.known = (training.offsets.diff() > 1).to(self.device)

    def encode(self, batch: Batch) -> Tensor:
        """[p_u, a_l], (B, 2 D); a_l is 0 where there is no last item."""
        users = self.users(batch.users) * self.known[batch.users, None]
        last = last_items(batch.items, batch.lengths, 1)[:, 0]
        return torch.cat([users, self.last(last)], 1)

    def item_table(self) -> Tensor:
        """[q_i, c_i], (V + 1, 2 D)."""
        return torch.cat([self.user_items.weight, self.next_items.weight], 1)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The loss of each transition against one negative: its "bpr" and "l2" terms."""
        if self.sampler is None:
            raise RuntimeError("negatives need the training events: call prepare first")
        query = self.encode(batch)
        positive = self._factors(batch.labels)
        negative = self._factors(self.sampler.sample(batch.users, 1)[:, 0])
        bpr = softplus(-(query * (positive - negative)).sum(-1)).mean()
        squares = query.square() + positive.square() + negative.square()
        l2 = self.l2 * squares.sum(-1).mean()
        return {"total": bpr + l2, "bpr": bpr, "l2": l2}

    def _factors(self, items: Tensor) -> Tensor:
        """[q_i, c_i] of some items (B,): (B, 2 D)."""
        return torch.cat([self.user_items(items), self.next_items(items)], 1)
