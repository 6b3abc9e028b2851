"""FMLP-Rec: filter-enhanced MLPs instead of self-attention (Zhou et al., WWW 2022).

    H ← LN(H + Drop(irfft(W ⊙ rfft(H))))                      W complex, (⌊N/2⌋ + 1) x D
    H ← LN(H + Drop(W_2 GELU(W_1 H)))
    L = -log σ(h_N · e+) - log σ(-h_N · e-)                   at the last position of a prefix

A filter mixes all N positions of a window, so the model is not causal, and no position but the
last may be trained on.
"""

from typing import Literal

from torch import Tensor, nn

from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.frequency import FeedForward, FilterLayer, LearnableFilter, WindowEncoder
from intentbench.nn.losses import binary_cross_entropy, positive_and_negative_scores
from intentbench.nn.negatives import UniformNegatives

_WEAREC = "WEARec paper, table 1 (AAAI 2026), which reuses earlier re-runs"
_FEAREC = "FEARec paper (SIGIR 2023), second-hand copy; whether history is removed: unstated"
_BCE = {"loss": "bce1"}

CARD = Card(
    title="FMLP-Rec",
    paper="Zhou et al., Filter-enhanced MLP is All You Need for Sequential Recommendation, "
    "WWW 2022, arXiv:2202.13556",
    code="github.com/Woeee/FMLP-Rec @ 51acc8c",
    tiny={"width": 32, "blocks": 2, "dropout": 0.1, "learning_rate": 1e-2},
    published=(
        Published("beauty", "hit_rate@10", 0.0559, _WEAREC, _BCE),
        Published("beauty", "ndcg@10", 0.0291, _WEAREC, _BCE),
        Published("beauty", "hit_rate@20", 0.0869, _WEAREC, _BCE),
        Published("beauty", "ndcg@20", 0.0369, _WEAREC, _BCE),
        Published("beauty", "hit_rate@10", 0.0632, _FEAREC),
        Published("beauty", "ndcg@10", 0.0333, _FEAREC),
        Published("sports", "hit_rate@10", 0.0336, _WEAREC, _BCE),
        Published("sports", "ndcg@10", 0.0183, _WEAREC, _BCE),
        Published("sports", "hit_rate@20", 0.0525, _WEAREC, _BCE),
        Published("sports", "ndcg@20", 0.0231, _WEAREC, _BCE),
        Published("sports", "hit_rate@10", 0.0344, _FEAREC),
        Published("sports", "ndcg@10", 0.0185, _FEAREC),
    ),
    deviations=(
        "the paper's own figures rank against 99 sampled negatives and stand on another scale; "
        "only full rankings by others are shown",
        "negatives are drawn outside the user's training events; the reference draws outside the "
        "prefix, so that what the user takes next may be a negative",
        "the padding vector is 0; in the reference it is drawn once and never trained",
        "no row has an empty history; the reference also trains on each user's first event",
    ),
    causal=False,
    fixed_window=True,
    first_loss="bce",
)


class FMLPRec(GradientRecommender):
    """FMLP-Rec, trained on one row a prefix: a filter sees every position of its window.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: positions of a window, all of which the filters read.
        loss: "bce1" one sampled negative (the paper), or "ce" the full softmax, for a comparison
            with methods that have it.
        width: D.
        blocks: number of blocks.
        dropout: of embeddings and blocks.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD
    layout = "prefix"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        loss: Literal["bce1", "ce"] = "bce1",
        width: int = 64,
        blocks: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.loss_name = loss

        def block() -> nn.Module:
            return FMLPRecBlock(window, width, dropout)

        self.encoder = WindowEncoder(n_items, window, width, blocks, block, dropout)
        self.sampler: UniformNegatives | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has had, where the loss needs negatives outside it."""
        if self.loss_name == "bce1":
            self.sampler = UniformNegatives(training).to(self.device)

    def encode(self, batch: Batch) -> Tensor:
        """The state at the last item, (B, D)."""
        states: Tensor = self.encoder(batch.items, batch.lengths)
        return states

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The chosen loss of each row's target."""
        states = self.encode(batch)
        if self.loss_name == "ce":
            return {"total": chunked_cross_entropy(states, self.item_table(), batch.labels)}
        if self.sampler is None:
            raise RuntimeError("negatives need the training events: call prepare first")
        negatives = self.sampler.sample(batch.users, 1)
        scores = positive_and_negative_scores(states, self.item_table(), batch.labels, negatives)
        return {"total": binary_cross_entropy(*scores)}


class FMLPRecBlock(nn.Module):
    """The filter layer, then the feed-forward layer.

    Args:
        window: N.
        width: D.
        dropout: before each residual sum.
    """

    def __init__(self, window: int, width: int, dropout: float) -> None:
        super().__init__()
        self.filter = FilterLayer(LearnableFilter(window, width), width, dropout)
        self.feed_forward = FeedForward(width, dropout)

    def forward(self, states: Tensor, real: Tensor, last: bool) -> Tensor:
        """(B, N, D) to (B, N, D), or with `last` to (B, 1, D); padding is filtered like items."""
        result: Tensor = self.feed_forward(self.filter(states, last))
        return result
