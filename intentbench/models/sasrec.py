"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018).

    h = Encoder(i_1 … i_n),  score(v) = h_n · e_v,  the item table is tied

with the three switches that explain more of the published differences than the methods do:

- `loss`: one sampled negative a position (`bce1`, the paper), K of them (`bceK`), the full softmax
  (`ce`, Klenitskiy & Vasilev 2023), a sampled one (`ss`), or gBCE (Petrov & Macdonald 2023);
- `layout`: every position of a user's row is a target (`all`, the paper), or one row a prefix with
  its last position as target (`prefix`, as in RecBole);
- `encoder`: the paper's blocks (`sasrec`) or post-norm BERT blocks (`bert`), which every intent
  method of the S3-Rec lineage uses.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.grouping import encode_groups, encode_last
from intentbench.nn.losses import (
    binary_cross_entropy,
    generalised_bce,
    positive_and_negative_scores,
    sampled_softmax,
    shared_negative_scores,
)
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.transformer import EncoderName, SequenceEncoder

Loss = Literal["bce1", "bceK", "ce", "ss", "gbce"]

_S3REC = "S3-Rec repository, full-ranking table"
_DUOREC = "DuoRec repository, issue 3 (history left in the ranking)"
_USASREC = "uSASRec repository, README (256 negatives; masking not stated)"
_BCE: Mapping[str, Any] = {"loss": "bce1", "layout": "all"}
_PREFIX: Mapping[str, Any] = {"loss": "ce", "layout": "prefix", "encoder": "bert"}
_SAMPLED: Mapping[str, Any] = {"loss": "ss", "layout": "all", "negatives": 256}

CARD = Card(
    title="SASRec",
    paper="Kang & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018, arXiv:1808.09781",
    code="github.com/kang205/SASRec @ e373896",
    tiny={
        "loss": "ce",
        "width": 32,
        "blocks": 1,
        "heads": 2,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.0605, _S3REC, _BCE),
        Published("beauty", "ndcg@10", 0.0318, _S3REC, _BCE),
        Published("beauty", "hit_rate@20", 0.0902, _S3REC, _BCE),
        Published("beauty", "ndcg@20", 0.0394, _S3REC, _BCE),
        Published("toys", "hit_rate@10", 0.0675, _S3REC, _BCE),
        Published("toys", "ndcg@10", 0.0374, _S3REC, _BCE),
        Published("sports", "hit_rate@10", 0.0350, _S3REC, _BCE),
        Published("sports", "ndcg@10", 0.0192, _S3REC, _BCE),
        Published("yelp", "hit_rate@10", 0.0274, _S3REC, _BCE),
        Published("yelp", "ndcg@10", 0.0136, _S3REC, _BCE),
        Published("beauty", "hit_rate@10", 0.0830, _DUOREC, _PREFIX),
        Published("beauty", "ndcg@10", 0.0415, _DUOREC, _PREFIX),
        Published("beauty", "hit_rate@20", 0.1191, _DUOREC, _PREFIX),
        Published("beauty", "ndcg@20", 0.0506, _DUOREC, _PREFIX),
        Published("beauty", "hit_rate@10", 0.0921, _USASREC, _SAMPLED),
        Published("beauty", "ndcg@10", 0.0531, _USASREC, _SAMPLED),
    ),
    deviations=(
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one; the paper pads on the left",
        "negatives of bce1 and bceK are drawn outside the training events only: drawing outside "
        "the whole sequence, as the reference code does, tells the model what is held out",
        "encoder sasrec starts from Xavier-normal weights; the reference leaves them to TensorFlow",
        "an epoch is a permutation of the users; the reference draws users with replacement",
        "layout prefix with the data module's targets='last' cuts a history at its last window "
        "first, as BSARec's code does; RecBole keeps every target (targets='every')",
        "gbce here shares the item table with the output and has the suite's width; gSASRec has a "
        "table of its own and width 128",
    ),
    first_loss="log_items",
    effects={
        "negatives": "losses bceK, ss and gbce only",
        "calibration": "loss gbce only",
    },
)


class SASRec(GradientRecommender):
    """SASRec with its three switches.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most (N in the paper).
        loss: see the module's docstring.
        layout: "all" or "prefix".
        encoder: "sasrec" or "bert".
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        negatives: K of `bceK`, `ss` and `gbce`.
        calibration: t of `gbce`.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
        beta2: decay of Adam's second moment; None: 0.98 with encoder sasrec, 0.999 with bert, as
            in the code of either lineage.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        loss: Loss = "bce1",
        layout: Literal["all", "prefix"] = "all",
        encoder: EncoderName = "sasrec",
        width: int = 64,
        blocks: int = 2,
        heads: int = 1,
        dropout: float = 0.5,
        negatives: int = 256,
        calibration: float = 0.75,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        beta2: float | None = None,
    ) -> None:
        usual = 0.98 if encoder == "sasrec" else 0.999
        super().__init__(n_items, n_users, learning_rate, weight_decay, beta2 or usual)
        self.loss_name = loss
        self.layout = layout
        self.n_negatives = 1 if loss == "bce1" else negatives
        self.calibration = calibration
        self.encoder = SequenceEncoder(n_items, window, encoder, width, blocks, heads, dropout)
        self.sampler: UniformNegatives | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has seen, where the loss needs negatives outside it."""
        if self.loss_name in ("bce1", "bceK"):
            self.sampler = UniformNegatives(training).to(self.device)

    def encode(self, batch: Batch) -> Tensor:
        """The state after the last item, (B, D)."""
        return encode_last(batch, self.encoder.last_state)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The chosen loss at every real target."""
        states = self._states(batch)
        if self.loss_name == "ce":
            return {"total": chunked_cross_entropy(states, self.item_table(), batch.labels)}
        table, negatives = self.item_table(), self._negatives(batch)
        if self.loss_name == "ss":
            positive = (states * table[batch.labels]).sum(-1)
            longest = 1 if self.layout == "prefix" else batch.items.shape[1]
            negative = shared_negative_scores(states, table, batch.rows, negatives, longest)
            hits = negatives[batch.rows] == batch.labels[:, None]
            return {"total": sampled_softmax(positive, negative, hits)}
        positive, negative = positive_and_negative_scores(states, table, batch.labels, negatives)
        if self.loss_name == "gbce":
            return {"total": generalised_bce(positive, negative, self.n_items, self.calibration)}
        return {"total": binary_cross_entropy(positive, negative)}

    def _states(self, batch: SequenceBatch) -> Tensor:
        """The states (T, D) at the real targets, which in layout "prefix" end their rows."""
        if self.layout == "prefix":
            return encode_last(batch, self.encoder.last_state)
        return encode_groups(batch, self.encoder)[batch.select]

    def _negatives(self, batch: SequenceBatch) -> Tensor:
        """(T, K): `bce` unseen by the user, `gbce` any item; `ss` (B, K), any, shared by a row."""
        if self.loss_name in ("bce1", "bceK"):
            if self.sampler is None:
                raise RuntimeError("SASRec.prepare must see the training events before the loss")
            return self.sampler.sample(batch.users[batch.rows], self.n_negatives)
        rows = len(batch.users) if self.loss_name == "ss" else len(batch.labels)
        shape = (rows, self.n_negatives)
        return torch.randint(1, self.n_items + 1, shape, device=batch.labels.device)
