"""DuoRec: contrasts of rows with the same target, against degeneration (Qiu et al., WSDM 2022).

A row is a prefix x with its next item v. h and h' are the last states of x under two draws of
dropout, h_s that of another prefix with the same next item (x itself where there is none). The
paper adds two contrasts to the cross-entropy, over the batch:

    L = CE(h Z^T, v) + λ InfoNCE(h, h') + λ_s InfoNCE(h, h_s)

The configuration that the authors ship (`us_x`), the default here, has one of them only, and takes
the second pass of the row for it:

    L = CE(h Z^T, v) + λ_s InfoNCE(h', h_s)
"""

from typing import Literal

from torch import Tensor

from datamodules.rows import Layout
from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.grouping import encode_last
from intentbench.nn.info_nce import info_nce
from intentbench.nn.prefixes import Prefixes
from intentbench.nn.together import Rows, encode_together
from intentbench.nn.transformer import SequenceEncoder

_PAPER = "DuoRec paper as quoted in the uSASRec README (history left in the ranking)"
_RERUN = "WEARec paper, Table 1 (a re-run by others; history removed)"
_MCLREC = "MCLRec paper, Table 3 (SIGIR 2023; whether history is removed: unstated)"

CARD = Card(
    title="DuoRec",
    paper="Qiu et al., Contrastive Learning for Representation Degeneration Problem in Sequential "
    "Recommendation, WSDM 2022, arXiv:2110.05730",
    code="github.com/RuihongQiu/DuoRec @ 4ebc30d",
    tiny={
        "dropout_weight": 0.1,
        "width": 32,
        "blocks": 1,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.0845, _PAPER),
        Published("beauty", "ndcg@10", 0.0443, _PAPER),
        Published("sports", "hit_rate@10", 0.0498, _PAPER),
        Published("sports", "ndcg@10", 0.0262, _PAPER),
        Published("beauty", "hit_rate@10", 0.0965, _RERUN),
        Published("beauty", "ndcg@10", 0.0584, _RERUN),
        Published("sports", "hit_rate@10", 0.0569, _RERUN),
        Published("sports", "ndcg@10", 0.0331, _RERUN),
        Published("ml-1m-sequences", "hit_rate@10", 0.2704, _RERUN),
        Published("ml-1m-sequences", "ndcg@10", 0.1530, _RERUN),
        Published("yelp", "hit_rate@10", 0.0614, _MCLREC),
        Published("yelp", "ndcg@10", 0.0383, _MCLREC),
    ),
    deviations=(
        "with the data module's targets='last' only the last window of a history makes rows; the "
        "reference (RecBole) makes one of every prefix (targets='every')",
        "padding is no candidate of the softmax; the reference leaves it in",
        "selection on validation NDCG@10 with the history removed; the reference takes MRR@10 and "
        "leaves the history in the ranking, which alone moves NDCG@10 by a third",
    ),
)


class DuoRec(GradientRecommender):
    """A causal encoder, trained with contrasts by dropout and by target.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs of a row at most.
        dropout_weight: λ of the contrast of two passes of a row; 0.1 in the paper, 0 as shipped.
        target_weight: λ_s of the contrast with a row of the same target.
        anchor: which pass of the row that contrast takes: "second" (h', as shipped) or "first"
            (h, the paper).
        temperature: τ.
        mask_false_negatives: whether rows of one target are spared as negatives; they are not in
            paper and code.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD
    layout: Layout = "prefix"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        dropout_weight: float = 0.0,
        target_weight: float = 0.1,
        anchor: Literal["first", "second"] = "second",
        temperature: float = 1.0,
        mask_false_negatives: bool = False,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.dropout_weight = dropout_weight
        self.target_weight = target_weight
        self.anchor = anchor
        self.temperature = temperature
        self.mask_false_negatives = mask_false_negatives
        self.encoder = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        self.prefixes: Prefixes | None = None

    def prepare(self, training: TrainingData) -> None:
        """Index the training prefixes by their targets."""
        self.prefixes = Prefixes(training, self.window).to(self.device)

    def encode(self, batch: Batch) -> Tensor:
        """The state after the last item, (B, D)."""
        return encode_last(batch, self.encoder.last_state)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Cross-entropy of the next item, and the contrasts."""
        rows = (batch.items, batch.lengths)
        sets = {"first": rows}
        if self.dropout_weight or (self.target_weight and self.anchor == "second"):
            sets["second"] = rows
        if self.target_weight:
            sets["partner"] = self._partners(batch)
        if len(sets) == 1:
            total = chunked_cross_entropy(self.encode(batch), self.item_table(), batch.labels)
            return {"recommendation": total, "total": total}
        found = encode_together([*sets.values()], self.encoder.last_state)
        states = dict(zip(sets, found, strict=True))
        total = chunked_cross_entropy(states["first"], self.item_table(), batch.labels)
        terms = {"recommendation": total}
        if self.dropout_weight:
            terms["dropout"] = self._contrast(states["first"], states["second"], batch.labels)
            total = total + self.dropout_weight * terms["dropout"]
        if self.target_weight:
            anchor = states[self.anchor]
            terms["target"] = self._contrast(anchor, states["partner"], batch.labels)
            total = total + self.target_weight * terms["target"]
        return terms | {"total": total}

    def _contrast(self, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        spared = labels if self.mask_false_negatives else None
        return info_nce(first, second, self.temperature, spared)

    def _partners(self, batch: SequenceBatch) -> Rows:
        """Rows that share each row's target."""
        if self.prefixes is None:
            raise RuntimeError("DuoRec.prepare must see the training events before the loss")
        return self.prefixes.windows(self.prefixes.partners(batch.users, batch.key))
