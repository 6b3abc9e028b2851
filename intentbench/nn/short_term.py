"""Short-term interest: what the events of a personal time window say (IntentRec, Eq. 1).

    pos(k) = min { i ≤ k : T_k - T_i ≤ H },   S_k = Enc(F_pos(k), …, F_k)

`Enc` is one attention block whose position k attends to pos(k) … k, its output at k: that encodes
the windows of all k at once, and exactly. Two blocks under the same band would not, as position i
of the window has itself looked back H further.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from intentbench.nn.time_encoding import Position, TimeEncoding


def band(times: Tensor, horizon: float | None, count: int | None = None) -> Tensor:
    """Which inputs the window of each position holds.

    Args:
        times: (B, L) int64 seconds.
        horizon: H ≥ 0 seconds, closed at both ends; inf or None: no limit in time.
        count: events at most, k itself included; None: no limit in number.

    Returns:
        (B, L, L) bool, true at [k, i] where pos(k) ≤ i ≤ k. Every k sees itself.
    """
    length = times.shape[1]
    place = torch.arange(length, device=times.device)
    behind = place[:, None] - place  # k - i
    inside = (behind >= 0).expand(len(times), -1, -1)
    if count is not None:
        inside = inside & (behind < count)
    if horizon is not None:
        # whole seconds: a comparison with a float would round those of half a year and more
        limit = horizon if math.isinf(horizon) else math.floor(horizon)
        near = inside & (times[:, :, None] - times[:, None, :] <= limit)
        first = near.long().argmax(-1)  # pos(k): from there on all is inside, even if times fall
        inside = inside & (place >= first[..., None])
    return inside


class BandedBlock(nn.Module):
    """A post-norm Transformer block whose attention keeps to a band.

    Args:
        width: D.
        heads: attention heads; must divide `width`.
        dropout: on attention weights and before each residual sum.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of heads {heads}")
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.forward_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, inside: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D); `inside` (B, L, L) as `band` gives it."""
        batch, length, width = states.shape
        split = self.project(states).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=inside[:, None],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        mixed = self.dropout(self.out(mixed.transpose(1, 2).reshape(states.shape)))
        states = self.attention_norm(states + mixed)
        result: Tensor = self.forward_norm(states + self.dropout(self.feed_forward(states)))
        return result


class ShortTerm(nn.Module):
    """S_k: a layer, LN, time, one banded block.

    The place in the row is left out, which would tell of what lies before the window.

    Args:
        inputs: width of F.
        width: of S.
        position: whether time is added; see `TimeEncoding`.
        heads: attention heads.
        dropout: see `BandedBlock`.
        horizon: H in seconds, None for no limit.
        count: events at most, None for no limit.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        position: Position,
        heads: int,
        dropout: float,
        horizon: float | None,
        count: int | None,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.count = count
        self.enter = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.time = TimeEncoding(width, "time" if "time" in position else "none", 0)
        self.block = BandedBlock(width, heads, dropout)

    def forward(self, features: Tensor, times: Tensor, codes: Tensor) -> Tensor:
        """S (B, L, `width`) of features (B, L, `inputs`).

        Args:
            features: F.
            times: (B, L) int64 seconds.
            codes: (B, L, 3) as in `TimeEncoding`.
        """
        states = self.norm(self.enter(features)) + self.time(codes)
        result: Tensor = self.block(states, band(times, self.horizon, self.count))
        return result
