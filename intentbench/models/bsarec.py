"""BSARec: an attentive inductive bias beyond self-attention (Shin et al., AAAI 2024).

    F(H) = LN(H + Drop(low + β² ⊙ (H - low))),    low = the first ⌊c/2⌋ + 1 frequencies of H
    A(H) = LN(H + Drop(W_o MHA(H)))                                                     causal
    H ← α F(H) + (1 - α) A(H),    H ← LN(H + Drop(W_2 GELU(W_1 H)))
    L = -h_N · e+ + log Σ_v exp(h_N · e_v)                      at the last position of a prefix

Attention alone smooths its inputs (a low-pass filter), so each block mixes it with a filter along
time that scales the high frequencies up or down, by a factor β² for each feature.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from datamodules.errors import RequestError
from datamodules.types import Batch, SequenceBatch
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.frequency import FeedForward, FilterLayer, FrequencyRescaler, WindowEncoder

_LOG = "BSARec repository, log of the released model; items seen score 0, they are not excluded"
_WEAREC = (
    "WEARec paper, table 1 (AAAI 2026), which reuses BSARec's own runs; BSARec's code scores items "
    "seen 0, it does not exclude them"
)

CARD = Card(
    title="BSARec",
    paper="Shin et al., An Attentive Inductive Bias for Sequential Recommendation beyond the "
    "Self-Attention, AAAI 2024, arXiv:2312.10325",
    code="github.com/yehjin-shin/BSARec @ 34036fd",
    tiny={
        "width": 32,
        "blocks": 2,
        "heads": 2,
        "alpha": 0.5,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.1008, _LOG),
        Published("beauty", "ndcg@10", 0.0611, _LOG),
        Published("beauty", "hit_rate@20", 0.1373, _LOG),
        Published("beauty", "ndcg@20", 0.0703, _LOG),
        Published("sports", "hit_rate@10", 0.0612, _WEAREC),
        Published("sports", "ndcg@10", 0.0360, _WEAREC),
        Published("sports", "hit_rate@20", 0.0858, _WEAREC),
        Published("sports", "ndcg@20", 0.0422, _WEAREC),
        Published("lastfm", "hit_rate@10", 0.0807, _LOG),
        Published("lastfm", "ndcg@10", 0.0435, _LOG),
        Published("ml-1m-sequences", "hit_rate@10", 0.2757, _WEAREC),
        Published("ml-1m-sequences", "ndcg@10", 0.1568, _WEAREC),
    ),
    deviations=(
        "the padding vector is 0 and no candidate; in the reference it is drawn, takes part in the "
        "softmax, and is trained by it",
        "no row has an empty history; the reference also trains on each user's first event",
        "a query at padding, whose every key is hidden, attends to all N positions: that is what "
        "the reference's additive mask of -10000 comes to",
        "at alpha 0 or 1 the branch without weight does not exist; the reference computes it for "
        "nothing",
    ),
    causal=False,
    fixed_window=True,
    first_loss="log_items",
)


class BSARec(GradientRecommender):
    """BSARec, trained on one row a prefix: a filter sees every position of its window.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: positions of a window, all of which the filters read.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        alpha: α, the filter's share; 0: self-attention alone, 1: the filter alone.
        cutoff: c, odd; ⌊c/2⌋ + 1 frequencies are low.
        dropout: of embeddings, attention and blocks.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.

    Raises:
        RequestError: `alpha` is no share, or `heads` does not divide `width`.
    """

    CARD = CARD
    layout = "prefix"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        alpha: float = 0.9,
        cutoff: int = 3,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 <= alpha <= 1 or width % heads:
            raise RequestError(
                f"BSARec: alpha {alpha} must lie in [0, 1], and heads {heads} divide width {width}"
            )
        super().__init__(n_items, n_users, learning_rate, weight_decay)

        def block() -> nn.Module:
            return BSARecBlock(window, width, heads, alpha, cutoff, dropout)

        self.encoder = WindowEncoder(n_items, window, width, blocks, block, dropout)

    def encode(self, batch: Batch) -> Tensor:
        """The state at the last item, (B, D)."""
        states: Tensor = self.encoder(batch.items, batch.lengths)
        return states

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Cross-entropy of each row's target over the catalogue."""
        states = self.encode(batch)
        return {"total": chunked_cross_entropy(states, self.item_table(), batch.labels)}


class BSARecBlock(nn.Module):
    """α F(H) + (1 - α) A(H), then the feed-forward layer.

    Args:
        window: N.
        width: D.
        heads: attention heads.
        alpha: α.
        cutoff: c.
        dropout: on attention weights and before each residual sum.
    """

    def __init__(
        self, window: int, width: int, heads: int, alpha: float, cutoff: int, dropout: float
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.attention = WindowAttention(width, heads, dropout) if alpha < 1 else None
        self.filter = None
        if alpha > 0:
            mixer = FrequencyRescaler(window, width, cutoff)
            self.filter = FilterLayer(mixer, width, dropout)
        self.feed_forward = FeedForward(width, dropout)

    def forward(self, states: Tensor, real: Tensor, last: bool) -> Tensor:
        """(B, N, D) to (B, N, D), or with `last` to (B, 1, D); `real` (B, N) is no padding."""
        branches: list[Tensor] = []
        if self.attention is not None:
            branches.append((1 - self.alpha) * self.attention(states, real, last))
        if self.filter is not None:
            branches.append(self.alpha * self.filter(states, last))
        result: Tensor = self.feed_forward(sum(branches[1:], branches[0]))
        return result


class WindowAttention(nn.Module):
    """LN(H + Drop(W_o MHA(H))) over left-padded windows: causal, and blind to padding.

    Args:
        width: D.
        heads: number of heads; must divide `width`.
        dropout: on the attention weights and before the residual sum.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, real: Tensor, last: bool) -> Tensor:
        """(B, N, D) to (B, N, D), or with `last` to (B, 1, D); `real` (B, N) is no padding."""
        width = states.shape[2]
        shape = (len(states), -1, self.heads, width // self.heads)
        own = states[:, -1:] if last else states
        query = self.query(own).view(shape).transpose(1, 2)  # (B, heads, N, D / heads)
        key, value = self.key_value(states).chunk(2, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            query,
            key.reshape(shape).transpose(1, 2),
            value.reshape(shape).transpose(1, 2),
            attn_mask=visible_keys(real, last)[:, None],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        mixed = self.out(mixed.transpose(1, 2).reshape(own.shape))
        result: Tensor = self.norm(own + self.dropout(mixed))
        return result


def visible_keys(real: Tensor, last: bool) -> Tensor:
    """Which positions each query sees: the real ones up to its own, or all if there is none.

    Args:
        real: (B, N) bool.
        last: whether the query at the last position is asked for alone.

    Returns:
        (B, N, N) bool, query by key; with `last` (B, 1, N).

    >>> visible_keys(torch.tensor([[False, True, True]]), last=False).int()
    tensor([[[1, 1, 1],
             [0, 1, 0],
             [0, 1, 1]]], dtype=torch.int32)
    """
    if last:
        return real[:, None] | ~real[:, -1:, None]
    window = real.shape[1]
    causal = torch.ones(window, window, dtype=torch.bool, device=real.device).tril()
    return (causal & real[:, None]) | ~real[:, :, None]
