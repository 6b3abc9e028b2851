"""SSE-PT: a personalised Transformer with stochastic shared embeddings (Wu et al., RecSys 2020).

SASRec with the user's vector beside each item's, of widths d_i and d_u:

    x_t = [√d_i e_{i_t}; √d_u e_u] + p_t,  z = Encoder(x_1 … x_n)
    score(v) = z_t · [e_v; √d_u e_u]
    L = mean_t -log σ(score(i_{t+1})) - log(1 - σ(score(j_t))),   j_t unseen by the user   (`bce1`)

The user's half of the score is the same for every item: it moves the logistic loss but no ranking,
where it is left out. A user acts on rankings through z alone.

Stochastic shared embeddings (SSE) replace indices at random in training: the user of a row, for
the whole row, with probability p_u; each input with probability p_i, and then the label of its
position too, by another item, while the position before it is taught the replacement:

    i_t → r,  label of t-1 → r,  label of t → r',   r and r' uniform over the catalogue

`user_width=0` leaves SASRec with SSE on items, the authors' SSE-SASRec.
"""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from datamodules.types import PAD, Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.initialisation import init_normal, init_xavier
from intentbench.nn.losses import binary_cross_entropy, positive_and_negative_scores
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.transformer import EncoderName, SequenceEncoder

CARD = Card(
    title="SSE-PT",
    paper="Wu et al., SSE-PT: Sequential Recommendation Via Personalized Transformer, RecSys 2020, "
    "DOI 10.1145/3383313.3412258, arXiv:1908.05435",
    code="github.com/wuliwei9278/SSE-PT @ bc1aae4",
    tiny={
        "user_replacement": 0.5,
        "item_replacement": 0.05,
        "item_width": 32,
        "user_width": 8,
        "blocks": 1,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    deviations=(
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one; the code pads on the left",
        "the replacement probabilities are what the code does with its thresholds: it replaces "
        "where a uniform draw exceeds them, so 0.08 and 0.9 are probabilities 0.92 and 0.1",
        "replacement 0.92 of users and 0.1 of items is the authors' run on ML-1M (windows of 200, "
        "dropout 0.2), taken as the default for all data; their code's own default is none",
        "widths 32 + 32 and two heads, so that the encoder is as wide as the suite's SASRec; the "
        "code has 50 + 50 and one head",
        "weights start Xavier-normal; the reference leaves them to TensorFlow",
        "an epoch is a permutation of the users; the reference draws users with replacement",
        "loss ce, the full softmax, is the suite's: the user's half of the score is constant in it",
    ),
    personal=True,
)


class SSEPT(GradientRecommender):
    """SASRec on joined item and user vectors, with indices replaced at random in training.

    Args:
        n_items: V.
        n_users: N.
        window: inputs at most.
        loss: one negative a position ("bce1") or the full softmax ("ce").
        user_replacement: p_u, the probability that a row is given a random user.
        item_replacement: p_i, the probability that an input is a random item.
        encoder: "sasrec" (the paper's blocks) or "bert".
        item_width: d_i.
        user_width: d_u; the encoder is as wide as both.
        blocks: number of blocks.
        heads: attention heads; must divide the sum of the widths.
        dropout: of embeddings, attention and blocks.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
        beta2: decay of Adam's second moment; None: 0.98 with encoder sasrec (the code's), 0.999
            with bert.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        loss: Literal["bce1", "ce"] = "bce1",
        user_replacement: float = 0.92,
        item_replacement: float = 0.1,
        encoder: EncoderName = "sasrec",
        item_width: int = 32,
        user_width: int = 32,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        beta2: float | None = None,
    ) -> None:
        usual = 0.98 if encoder == "sasrec" else 0.999
        super().__init__(n_items, n_users, learning_rate, weight_decay, beta2 or usual)
        self.window = window
        self.loss_name = loss
        self.user_replacement = user_replacement
        self.item_replacement = item_replacement
        width = item_width + user_width
        self.encoder = SequenceEncoder(n_items, window, encoder, width, blocks, heads, dropout)
        # what it is given is joined outside: the items keep their part of the width, and each part
        # is scaled by the root of its own
        items = self.encoder.items
        items.weight = nn.Parameter(items.weight[:, :item_width].detach().clone())
        items.embedding_dim = item_width
        self.encoder.scale = 1.0
        self.item_scale = math.sqrt(item_width) if encoder == "sasrec" else 1.0
        self.user_scale = math.sqrt(user_width) if encoder == "sasrec" else 1.0
        with torch.random.fork_rng(devices=()):  # without users it is SASRec, bit for bit
            self.users = nn.Embedding(n_users, user_width)
            self.users.apply(init_xavier if encoder == "sasrec" else init_normal)
        self.item_width = item_width
        self.sampler: UniformNegatives | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has seen, where the loss needs a negative outside it."""
        if self.loss_name == "bce1":
            self.sampler = UniformNegatives(training).to(self.device)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, d_i)."""
        return self.encoder.items.weight

    def encode(self, batch: Batch) -> Tensor:
        """The items' part (B, d_i) of the state z after the last item."""
        parts = []
        for start, stop, width in batch.groups:
            vectors = self._inputs(batch.items[start:stop, :width], batch.users[start:stop])
            last = (batch.lengths[start:stop] - 1).clamp(min=0)
            parts.append(self.encoder.attend(vectors, last).squeeze(1))
        return torch.cat(parts)[:, : self.item_width]

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The chosen loss at every real target, after indices were replaced."""
        replaced = self.replace_indices(batch)
        states, constant = self._states(replaced)
        if self.loss_name == "ce":
            return {"total": chunked_cross_entropy(states, self.item_table(), replaced.labels)}
        if self.sampler is None:
            raise RuntimeError("SSEPT.prepare must see the training events before the loss")
        negatives = self.sampler.sample(batch.users[batch.rows], 1)  # unseen by the real user
        positive, negative = positive_and_negative_scores(
            states, self.item_table(), replaced.labels, negatives
        )
        return {"total": binary_cross_entropy(positive + constant, negative + constant[:, None])}

    def _inputs(self, items: Tensor, users: Tensor) -> Tensor:
        """[√d_i e_i; √d_u e_u] (B, L, d_i + d_u) of items (B, L) and users (B,)."""
        user = self.user_scale * self.users(users)[:, None].expand(-1, items.shape[1], -1)
        return torch.cat([self.item_scale * self.encoder.items(items), user], 2)

    def _states(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """At the real targets the items' part (T, d_i) of z, and the users' part of scores (T,)."""
        parts = []
        for start, stop, width in batch.groups:
            vectors = self._inputs(batch.items[start:stop, :width], batch.users[start:stop])
            parts.append(self.encoder.attend(vectors).flatten(0, 1))
        states = torch.cat(parts)[batch.select]
        user = self.user_scale * self.users(batch.users)[batch.rows]
        return states[:, : self.item_width], (states[:, self.item_width :] * user).sum(1)

    def replace_indices(self, batch: SequenceBatch) -> SequenceBatch:
        """Stochastic shared embeddings: a copy of the batch with other users, items and labels."""
        users, items, targets = batch.users, batch.items, batch.targets
        if self.user_replacement:
            hit = torch.rand(len(users), device=users.device) < self.user_replacement
            other = torch.randint(self.n_users, users.shape, device=users.device)
            users = torch.where(hit, other, users)
        if not self.item_replacement:
            return replace(batch, users=users)
        # drawn as wide as any batch, so that trimming changes no draw
        shape, width = (len(users), self.window), items.shape[1]
        hit = (torch.rand(shape, device=users.device) < self.item_replacement)[:, :width]
        hit = hit & (items != PAD)
        drawn = torch.randint(1, self.n_items + 1, (2, *shape), device=users.device)[..., :width]
        targets = targets.clone()
        targets[:, :-1] = torch.where(hit[:, 1:], drawn[0, :, 1:], targets[:, :-1])
        targets = torch.where(hit, drawn[1], targets)
        targets = torch.where(batch.targets != PAD, targets, PAD)  # what is not trained stays so
        items = torch.where(hit, drawn[0], items)
        flat = [targets[start:stop, :wide].flatten() for start, stop, wide in batch.groups]
        labels = torch.cat(flat)[batch.select]
        return replace(batch, users=users, items=items, targets=targets, labels=labels)
