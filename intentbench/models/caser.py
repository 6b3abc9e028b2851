"""Caser: convolutional sequence embedding (Tang & Wang, WSDM 2018).

The last L items are an image E (L x D):

    o^k = max_t ReLU(E[t : t + h_k] ⊙ F^k + b)      horizontal filters, n_h of each height 1 … L
    õ^k = Σ_l F̃^k_l E_l                             vertical filters, n_v, over the features
    z = ReLU(W Drop([õ; o]) + b),    y(v) = [z; p_u] · w'_v + b'_v
    L = -mean log σ(y(v+)) - mean log(1 - σ(y(v-)))

over each row's next T items v+ and K negatives v- for each of them, which skips behaviours between
the window and a target.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from datamodules.types import PAD, Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.frequency import last_items
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.processes import pool_mean

_S3REC = "S3-Rec repository, full-ranking table; whether history is removed: unstated"
_MCLREC = "MCLRec, table 3 (SIGIR 2023); whether history is removed: unstated"
_WEAREC = "WEARec paper, table 1 (AAAI 2026), which reuses earlier re-runs"

CARD = Card(
    title="Caser",
    paper="Tang & Wang, Personalized Top-N Sequential Recommendation via Convolutional Sequence "
    "Embedding, WSDM 2018, arXiv:1809.07426",
    code="github.com/graytowne/caser_pytorch @ c4e10e4",
    tiny={
        "width": 16,
        "length": 3,
        "targets": 2,
        "horizontal": 8,
        "vertical": 2,
        "dropout": 0.1,
        "learning_rate": 2e-2,
        "weight_decay": 1e-4,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.0347, _S3REC),
        Published("beauty", "ndcg@10", 0.0176, _S3REC),
        Published("beauty", "hit_rate@10", 0.0342, _MCLREC),
        Published("beauty", "ndcg@10", 0.0226, _MCLREC),
        Published("beauty", "hit_rate@10", 0.0225, _WEAREC),
        Published("beauty", "ndcg@10", 0.0108, _WEAREC),
        Published("sports", "hit_rate@10", 0.0194, _S3REC),
        Published("sports", "ndcg@10", 0.0097, _S3REC),
        Published("sports", "hit_rate@10", 0.0261, _MCLREC),
        Published("sports", "ndcg@10", 0.0135, _MCLREC),
        Published("sports", "hit_rate@10", 0.0163, _WEAREC),
        Published("sports", "ndcg@10", 0.0080, _WEAREC),
        Published("toys", "hit_rate@10", 0.0270, _S3REC),
        Published("toys", "ndcg@10", 0.0141, _S3REC),
        Published("yelp", "hit_rate@10", 0.0253, _S3REC),
        Published("yelp", "ndcg@10", 0.0129, _S3REC),
        Published("yelp", "hit_rate@10", 0.0254, _MCLREC),
        Published("yelp", "ndcg@10", 0.0113, _MCLREC),
        Published("ml-1m-sequences", "hit_rate@10", 0.1556, _WEAREC),
        Published("ml-1m-sequences", "ndcg@10", 0.0795, _WEAREC),
    ),
    deviations=(
        "every prefix is a row: also those of fewer than L items, padded on the left, and those "
        "with fewer than T items to come, which have fewer targets; the reference cuts windows of "
        "exactly L + T and pads the one window of a shorter user, in its targets too",
        "the padding vector is 0; in the reference it is trained like an item",
        "a user without training rows has p_u = 0, the mean that users are drawn around, so that "
        "the sequence alone counts; the reference scores with the vector as it was drawn",
        "negatives are averaged, as in the reference code; the paper's objective sums them",
        "vertical filters are a linear layer over time, the same map as a convolution L x 1",
    ),
    personal=True,
)


class Caser(GradientRecommender):
    """Caser on rows of one prefix each, whose last L items it reads.

    Args:
        n_items: V.
        n_users: N.
        width: D of users and items.
        length: L, items of the image; a data module whose windows are shorter fills less of it.
        targets: T, next items that each row predicts.
        negatives: K, negatives for each target.
        horizontal: n_h, horizontal filters of each height.
        vertical: n_v, vertical filters.
        dropout: of the filters' outputs.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD
    layout = "prefix"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 50,
        length: int = 5,
        targets: int = 3,
        negatives: int = 3,
        horizontal: int = 16,
        vertical: int = 4,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-6,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.length = length
        self.n_targets = targets
        self.n_negatives = negatives
        self.users = nn.Embedding(n_users, width)
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(width, horizontal, height) for height in range(1, length + 1)
        )
        self.vertical = nn.Linear(length, vertical)
        self.joint = nn.Linear(vertical * width + length * horizontal, width)
        self.output = nn.Parameter(torch.randn(n_items + 1, 2 * width) / (2 * width))
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.users.weight, std=1 / width)
        nn.init.normal_(self.items.weight[1:], std=1 / width)
        self.known: Tensor
        self.register_buffer("known", torch.zeros(n_users, dtype=torch.bool))
        self.sampler: UniformNegatives | None = None
        self.following: NextItems | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has had, what comes after each event, and who has a training row."""
        self.sampler = UniformNegatives(training).to(self.device)
        self.following = NextItems(training).to(self.device)
        self.known = (training.offsets.diff() > 1).to(self.device)

    def encode(self, batch: Batch) -> Tensor:
        """[z, p_u, 1], (B, 2 D + 1): the last factor carries the items' biases."""
        image = self.items(last_items(batch.items, batch.lengths, self.length))  # (B, L, D)
        over_time = image.transpose(1, 2)
        outputs = [self.vertical(over_time).flatten(1)]
        outputs += [conv(over_time).relu().amax(2) for conv in self.horizontal]
        sequence = self.joint(self.dropout(torch.cat(outputs, 1))).relu()
        users = self.users(batch.users) * self.known[batch.users, None]
        return torch.cat([sequence, users, torch.ones_like(users[:, :1])], 1)

    def item_table(self) -> Tensor:
        """[w'_v, b'_v], (V + 1, 2 D + 1)."""
        return torch.cat([self.output, self.bias[:, None]], 1)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Logistic loss of each row's next T items and of K negatives for each of them."""
        if self.sampler is None or self.following is None:
            raise RuntimeError("targets and negatives need the training events: call prepare first")
        targets = self.following(batch.users, batch.key, self.n_targets)
        real = (targets != PAD).float()
        negatives = self.sampler.sample(batch.users, self.n_targets * self.n_negatives)
        query = self.encode(batch)[:, :, None]
        table = self.item_table()
        positive = softplus(-torch.bmm(table[targets], query).squeeze(2))  # (B, T)
        negative = softplus(torch.bmm(table[negatives], query).squeeze(2))
        negative = negative.view(-1, self.n_targets, self.n_negatives).mean(2)
        count = real.sum()
        return {"total": pool_mean(((positive + negative) * real).sum() / count, count)}


class NextItems(nn.Module):
    """What comes next in the training events.

    Args:
        training: the training events.
    """

    items: Tensor
    offsets: Tensor

    def __init__(self, training: TrainingData) -> None:
        super().__init__()
        self.register_buffer("items", training.items, persistent=False)
        self.register_buffer("offsets", training.offsets, persistent=False)

    def forward(self, users: Tensor, key: Tensor, count: int) -> Tensor:
        """The events of `users` (B,) at positions `key` (B,) and after: (B, count), else `PAD`."""
        where = (self.offsets[users] + key)[:, None] + torch.arange(count, device=key.device)
        found = self.items[where.clamp(max=len(self.items) - 1)]
        return torch.where(where < self.offsets[users + 1][:, None], found, PAD)
