"""ICSRec: intents of subsequences, contrasted by target and by cluster (Qin et al., WSDM 2024).

A row is a prefix x of a user's sequence with its next item v; x' is another prefix, of any user,
with the same next item. With h, h' their last states and Z the item table

    L = CE(h Z^T, v) + λ0 InfoNCE(h, h') + β0 [InfoNCE(h, c(h)) + InfoNCE(h', c(h'))]

The coarse term (λ0) says that prefixes with one target share an intent; rows of the batch with the
same target are no negatives of each other. The fine term (β0) pulls a state to c, the normalised
centroid of its nearest cluster; rows of one cluster are no negatives of each other.

E-step, before each epoch: k-means over the last states of all training prefixes, dropout off.
M-step: gradient steps on L with the clusters fixed.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from datamodules.rows import Layout
from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.card import Card, Published
from intentbench.models.intent import IntentRecommender, Intents
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.grouping import encode_groups, encode_last
from intentbench.nn.info_nce import info_nce
from intentbench.nn.kmeans import KMeans
from intentbench.nn.prefixes import Prefixes
from intentbench.nn.together import Rows, encode_together
from intentbench.nn.transformer import SequenceEncoder

_README = "ICSRec repository, README (authors' checkpoints)"
_FIRST: Mapping[str, Any] = {"contrast_weight": 0.3, "clusters": 256}
_TOYS: Mapping[str, Any] = {"contrast_weight": 0.2, "clusters": 1024}
_ML_1M: Mapping[str, Any] = {"contrast_weight": 0.1, "clusters": 512, "dropout": 0.1}

CARD = Card(
    title="ICSRec",
    paper="Qin et al., Intent Contrastive Learning with Cross Subsequences for Sequential "
    "Recommendation, WSDM 2024, arXiv:2310.14318",
    code="github.com/QinHsiu/ICSRec @ 3c8958f",
    tiny={"clusters": 8, "width": 32, "blocks": 1, "dropout": 0.1, "learning_rate": 5e-3},
    published=(
        Published("beauty", "hit_rate@10", 0.0959, _README, _FIRST),
        Published("beauty", "ndcg@10", 0.0578, _README, _FIRST),
        Published("sports", "hit_rate@10", 0.0565, _README, _FIRST),
        Published("sports", "ndcg@10", 0.0335, _README, _FIRST),
        Published("toys", "hit_rate@10", 0.1055, _README, _TOYS),
        Published("toys", "ndcg@10", 0.0657, _README, _TOYS),
        Published("ml-1m-sequences", "hit_rate@10", 0.3369, _README, _ML_1M),
        Published("ml-1m-sequences", "ndcg@10", 0.2007, _README, _ML_1M),
    ),
    deviations=(
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one; the reference pads on the left",
        "x' is drawn uniformly among the other prefixes with the same target; the reference's loop "
        "runs on and keeps the last one in the order of its file",
        "k-means starts from k-means++ in the first epoch and from the last centroids after it "
        "(warm start), which keeps the clusters' numbers; the reference fits with faiss, from "
        "random rows and with 5 restarts",
        "with the data module's targets='last' only the last window of a history makes rows of the "
        "loss; the reference makes one of every prefix (targets='every'). The E-step takes all",
        "padding and the unused mask token are no candidates of the softmax; the reference leaves "
        "both in",
        "selection on validation NDCG@10 with the suite's patience; the reference takes NDCG@20 "
        "and patience 40",
    ),
)


class ICSRec(IntentRecommender):
    """A causal encoder, and clusters of its last states.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs of a prefix at most.
        contrast_weight: λ0 of the coarse term.
        intent_weight: β0 of the fine term; without it there is no E-step.
        clusters: K, number of intents.
        temperature: τ of all contrasts.
        mask_false_negatives: whether rows of one target, or cluster, are spared as negatives.
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
        contrast_weight: float = 0.3,
        intent_weight: float = 0.1,
        clusters: int = 256,
        temperature: float = 1.0,
        mask_false_negatives: bool = True,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.contrast_weight = contrast_weight
        self.intent_weight = intent_weight
        self.temperature = temperature
        self.mask_false_negatives = mask_false_negatives
        self.encoder = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        self.kmeans = KMeans(clusters, width)
        self.prefixes: Prefixes | None = None

    def prepare(self, training: TrainingData) -> None:
        """Index the training prefixes by their targets."""
        self.prefixes = Prefixes(training, self.window).to(self.device)

    def on_epoch(self) -> None:
        """E-step: cluster the last states of all training prefixes."""
        if self.intent_weight:
            self.kmeans.fit(self._indexed().encode_all(self.encoder))

    def encode(self, batch: Batch) -> Tensor:
        """The state after the last item, (B, D)."""
        return encode_last(batch, self.encoder.last_state)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Cross-entropy of the next item, and the two contrasts."""
        if not (self.contrast_weight or self.intent_weight):
            total = chunked_cross_entropy(self.encode(batch), self.item_table(), batch.labels)
            return {"recommendation": total, "total": total}
        rows = (batch.items, batch.lengths)
        # as in the reference code, the contrasts see a pass of the row with its own dropout
        sets = (rows, rows, self._partners(batch))
        states, first, second = encode_together(sets, self.encoder.last_state)
        total = chunked_cross_entropy(states, self.item_table(), batch.labels)
        terms = {"recommendation": total}
        if self.contrast_weight:
            terms["contrast"] = self._contrast(first, second, batch.labels)
            total = total + self.contrast_weight * terms["contrast"]
        if self.intent_weight:
            terms["intent"] = self._pull(first) + self._pull(second)
            total = total + self.intent_weight * terms["intent"]
        return terms | {"total": total}

    def intents(self, batch: SequenceBatch) -> Intents:
        """States at all real targets, and the centroid of the nearest cluster of each."""
        states = encode_groups(batch, self.encoder)[batch.select]
        cluster = self.kmeans.assign(states)
        return Intents(self._prototypes()[cluster], states, cluster)

    def _partners(self, batch: SequenceBatch) -> Rows:
        """Rows x' that share each row's target."""
        prefixes = self._indexed()
        return prefixes.windows(prefixes.partners(batch.users, batch.key))

    def _pull(self, states: Tensor) -> Tensor:
        """Contrast states (B, D) with the prototype of their nearest cluster."""
        cluster = self.kmeans.assign(states.detach())
        return self._contrast(states, self._prototypes()[cluster], cluster)

    def _contrast(self, first: Tensor, second: Tensor, groups: Tensor) -> Tensor:
        spared = groups if self.mask_false_negatives else None
        return info_nce(first, second, self.temperature, spared)

    def _prototypes(self) -> Tensor:
        """Centroids of length 1, (K, D); distances are taken to the raw ones."""
        return normalize(self.kmeans.centroids, dim=1)

    def _indexed(self) -> Prefixes:
        if self.prefixes is None:
            raise RuntimeError("ICSRec.prepare must see the training events before the loss")
        return self.prefixes
