"""BERT4Rec: a bidirectional encoder trained by filling gaps (Sun et al., CIKM 2019).

    scores = LN(GELU(W h + b)) E^T + b_o,    h = Encoder(s')_t

where s' is a sequence with some items replaced by a token [mask], t one of their positions, the
item table E is tied and the encoder sees both sides of a gap. The loss is the cross-entropy of the
hidden items, and of them alone. To rank, [mask] is appended to the history and its state is read.

As in the authors' code (gen_data_fin.py), max(1, round(ρ n)) of a row's n items are hidden at
random, and one row in eleven has its last item hidden and no other, as it is in ranking.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.types import PAD, Batch, EvaluationBatch, SequenceBatch
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.bidirectional import BidirectionalEncoder, append
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.initialisation import init_normal
from intentbench.nn.processes import pool_mean

ANY_ITEM = 1
"""Stands in for the label of a slot that is not used."""

_S3REC = "S3-Rec repository, full-ranking table (whether history is removed: unstated)"
_MCLREC = "MCLRec paper, Table 3 (SIGIR 2023; whether history is removed: unstated)"

CARD = Card(
    title="BERT4Rec",
    paper="Sun et al., BERT4Rec: Sequential Recommendation with Bidirectional Encoder "
    "Representations from Transformer, CIKM 2019, arXiv:1904.06690",
    code="github.com/FeiSun/BERT4Rec @ 615eaf2",
    tiny={
        "mask_ratio": 0.3,
        "last_only": 0.3,
        "window": 5,  # shorter than most rows: the token never stands where none stood in training
        "blocks": 1,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "learning_rate": 1e-3,
        "warmup_steps": 4,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.0347, _S3REC),
        Published("beauty", "ndcg@10", 0.0170, _S3REC),
        Published("sports", "hit_rate@10", 0.0191, _S3REC),
        Published("sports", "ndcg@10", 0.0099, _S3REC),
        Published("toys", "hit_rate@10", 0.0203, _S3REC),
        Published("toys", "ndcg@10", 0.0099, _S3REC),
        Published("yelp", "hit_rate@10", 0.0090, _S3REC),
        Published("yelp", "ndcg@10", 0.0045, _S3REC),
        Published("beauty", "hit_rate@10", 0.0601, _MCLREC),
        Published("beauty", "ndcg@10", 0.0300, _MCLREC),
        Published("sports", "hit_rate@10", 0.0359, _MCLREC),
        Published("sports", "ndcg@10", 0.0190, _MCLREC),
        Published("yelp", "hit_rate@10", 0.0339, _MCLREC),
        Published("yelp", "ndcg@10", 0.0167, _MCLREC),
    ),
    deviations=(
        "the reference writes ten maskings of each sequence to disk and one more with the last "
        "item hidden: here every row is masked afresh at each visit, and with probability 1/11 "
        "only its last item is. Eleven epochs are one of the reference's",
        "a long history gives its last window (data module, targets='last'); the reference slides "
        "a window over it in steps of 10 to 50 % of its width",
        "Adam at a constant rate after the warm-up; the reference decays the rate linearly to zero "
        "over 400,000 steps, decays weights by 0.01 and clips gradients",
        "[mask] and padding are no candidates of the softmax; the reference leaves them in",
        "weights start normal, not truncated normal",
    ),
    causal=False,
    first_loss="log_items",
)


class BERT4Rec(GradientRecommender):
    """A bidirectional encoder, a head, and the tied item table.

    Args:
        n_items: V; the token [mask] is number V + 1.
        n_users: N; unused, users are known by their items alone.
        window: items of a row at most, those that are to be predicted included.
        mask_ratio: ρ, the share of a row's items that are hidden.
        last_only: probability that a row has its last item hidden instead.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings and blocks.
        attention_dropout: of attention weights.
        learning_rate: of Adam, after the warm-up.
        warmup_steps: the rate rises linearly from 0 over so many steps.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        mask_ratio: float = 0.6,
        last_only: float = 1 / 11,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        attention_dropout: float = 0.2,
        learning_rate: float = 1e-4,
        warmup_steps: int = 100,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.mask_ratio = mask_ratio
        self.last_only = last_only
        self.warmup_steps = warmup_steps
        self.mask_token = n_items + 1
        self.encoder = BidirectionalEncoder(
            n_items + 1, window, width, blocks, heads, dropout, attention_dropout
        )
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12)
        )
        self.head.apply(init_normal)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D), without [mask]."""
        return self.encoder.items.weight[: self.n_items + 1]

    def encode(self, batch: Batch) -> Tensor:
        """What the head makes of [mask] after each row's last item, (B, D)."""
        parts = []
        for start, stop, width in batch.groups:
            items, lengths = batch.items[start:stop, :width], batch.lengths[start:stop]
            token = torch.full_like(lengths, self.mask_token)
            items, lengths = append(items, lengths, token, self.window)
            parts.append(self.encoder(items, lengths, lengths[:, None] - 1).squeeze(1))
        encoded: Tensor = self.head(torch.cat(parts))
        return encoded

    def score(self, batch: EvaluationBatch) -> Tensor:
        """Dot products with the item table, and each item's bias."""
        scores = torch.addmm(self.bias, self.encode(batch), self.item_table().T)
        scores[:, PAD] = -torch.inf
        return scores

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Cross-entropy of the hidden items, a mean over all of the batch.

        How many there are is known on the device only. So each group of rows has a fixed number
        of slots, as many as its longest row needs, and a slot that is not used has the state 0:
        it gives the scores b_o, hence a loss that is taken off again, gradient included.
        """
        last = batch.targets.gather(1, batch.lengths[:, None] - 1).squeeze(1)
        # as wide as any batch, so that trimming changes no draw; its last column picks the rows
        noise = torch.rand(len(last), self.window + 1, device=last.device)
        states, labels, used = [], [], []
        for start, stop, width in batch.groups:
            part = slice(start, stop)
            items, lengths = append(
                batch.items[part, :width], batch.lengths[part], last[part], self.window
            )
            places, hidden = self._places(lengths, items.shape[1], noise[part])
            chosen = items.gather(1, places)
            masked = items.scatter(1, places, torch.where(hidden, self.mask_token, chosen))
            states.append(self.encoder(masked, lengths, places).flatten(0, 1))
            labels.append(torch.where(hidden, chosen, ANY_ITEM).flatten())
            used.append(hidden.flatten())
        real = torch.cat(used)
        heads = self.head(torch.cat(states)) * real[:, None]
        mean = chunked_cross_entropy(heads, self.item_table(), torch.cat(labels), self.bias)
        idle = self.bias[1:].logsumexp(0) - self.bias[ANY_ITEM]
        count = real.sum()
        total = (mean * len(real) - idle * (len(real) - count)) / count
        return {"total": pool_mean(total, count)}

    def _places(self, lengths: Tensor, width: int, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Which positions of each row are hidden.

        Args:
            lengths: (b,) items of each row.
            width: of the widest row.
            noise: (b, window + 1) uniform in [0, 1).

        Returns:
            Positions (b, S), a row's own ones all different, and (b, S) whether a slot is used:
            the first ones of each row are.
        """
        slots = int(self._count(torch.tensor(width)))  # on the host
        column = torch.arange(width, device=lengths.device)
        order = torch.where(column < lengths[:, None], noise[:, :width], 2.0)
        only = noise[:, -1:] < self.last_only
        order = torch.where(only & (column == lengths[:, None] - 1), -1.0, order)
        places = order.argsort(1)[:, :slots]
        count = torch.where(only, 1, self._count(lengths)[:, None])
        return places, torch.arange(slots, device=lengths.device) < count

    def _count(self, lengths: Tensor) -> Tensor:
        """How many items of rows of these lengths are hidden: max(1, round(ρ n))."""
        return (self.mask_ratio * lengths.double() + 0.5).long().clamp(min=1).minimum(lengths)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Raise the learning rate linearly over the first steps."""
        share = min(1.0, (self.trainer.global_step + 1) / max(1, self.warmup_steps))
        for group in optimizer.param_groups:
            group["lr"] = share * self.learning_rate
