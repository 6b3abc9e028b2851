"""Transformers that see the whole window, for methods that denoise item vectors.

Rows are right-padded. Each position attends to every real item of its row and to no padding, so
that a row's states do not depend on how wide its batch is. A row without items attends to its
first cell, and is finite.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention, softmax

from intentbench.nn.transformer import take_last


class PreNormBlock(nn.Module):
    """Pre-norm block without order (DiffuRec).

        h = h + Drop(MHA(LN(h))),  h = Drop(h + Drop(W_2 Drop(GELU(W_1 LN(h))))),  inner width 4 D

    Positions have no embedding here: the states of a row are a set.

    Args:
        width: D.
        heads: number of heads; must divide `width`.
        drop: dropout on attention weights, inside the feed-forward layers and after each part.
    """

    def __init__(self, width: int, heads: int, drop: float) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads = heads
        self.drop = drop
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width, eps=1e-12)
        wide, narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        activation = nn.GELU(approximate="tanh")
        self.feed_forward = nn.Sequential(
            wide, activation, nn.Dropout(drop), narrow, nn.Dropout(drop)
        )
        self.dropout = nn.Dropout(drop)
        for layer in (self.out, wide, narrow):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, states: Tensor, lengths: Tensor, last_only: bool = False) -> Tensor:
        """States of the same rows, one block on.

        Args:
            states: (B, L, D).
            lengths: (B,) real positions of each row.
            last_only: whether the last real position of each row is all that is wanted.

        Returns:
            (B, L, D), or (B, 1, D).
        """
        context = self.attention_norm(states)
        asked = context
        if last_only:
            last = (lengths - 1).clamp(min=0)
            states, asked = take_last(states, last), take_last(context, last)
        states = states + self.dropout(self._attend(asked, context, lengths))
        result: Tensor = self.dropout(states + self.feed_forward(self.forward_norm(states)))
        return result

    def _attend(self, queries: Tensor, context: Tensor, lengths: Tensor) -> Tensor:
        batch, _, width = context.shape
        shape = (batch, -1, self.heads, width // self.heads)
        key, value = self.key_value(context).chunk(2, dim=-1)
        mixed = scaled_dot_product_attention(
            self.query(queries).view(shape).transpose(1, 2),
            key.reshape(shape).transpose(1, 2),
            value.reshape(shape).transpose(1, 2),
            attn_mask=visible_keys(context.shape[1], lengths)[:, None, None],
            dropout_p=self.drop if self.training else 0.0,
        )
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(queries.shape))
        return result


class DisentangledBlock(nn.Module):
    """Post-norm block with relative positions (DeBERTa, He et al. 2021; no outer products of both).

        A_ij = (q_i·k_j + q_i·kʳ_{i-j} + k_j·qʳ_{i-j}) / √(3 d),   kʳ = W_r R,  qʳ = W_q R + b
        h = LN(h + Drop(W_o softmax(A) V)),  h = LN(h + Drop(W_2 GELU(W_1 h))),  inner width 2 D

    with d the width of a head. Both tables are read at i - j, as in the code of the transformers
    library.

    Args:
        width: D.
        heads: number of heads; must divide `width`.
        drop: dropout on attention weights, on the table of positions and before each residual sum.
    """

    def __init__(self, width: int, heads: int, drop: float) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # a bias would leave the softmax as it is
        self.value = nn.Linear(width, width)
        self.position_key = nn.Linear(width, width, bias=False)
        self.position_query = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.forward_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(drop)

    def forward(self, states: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
        """States (B, L, D) of the same rows, one block on.

        Args:
            states: (B, L, D).
            positions: (2 L - 1, D) vectors of the distances -(L - 1) … L - 1.
            visible: (B, L) bool, the keys that may be attended to.
        """
        batch, length, width = states.shape
        shape = (-1, length, self.heads, width // self.heads)
        query, key, value = (
            layer(states).view(shape) for layer in (self.query, self.key, self.value)
        )
        place = torch.arange(length, device=states.device)
        distance = place[:, None] - place + length - 1  # row of `positions` for (i, j)
        table = self.dropout(positions)
        far_key, far_query = (
            layer(table)[distance].view(length, *shape[1:])
            for layer in (self.position_key, self.position_query)
        )
        scores = torch.einsum("bihd,bjhd->bhij", query, key)
        scores = scores + torch.einsum("bihd,ijhd->bhij", query, far_key)
        scores = scores + torch.einsum("bjhd,ijhd->bhij", key, far_query)
        scores = scores / math.sqrt(3 * shape[3])
        weights = softmax(scores.masked_fill(~visible[:, None, None], -torch.inf), dim=-1)
        weights = dropout(weights, self.dropout.p, self.training)
        mixed = torch.einsum("bhij,bjhd->bihd", weights, value).reshape(batch, length, width)
        states = self.attention_norm(states + self.dropout(self.out(mixed)))
        result: Tensor = self.forward_norm(states + self.dropout(self.feed_forward(states)))
        return result


class DisentangledEncoder(nn.Module):
    """Blocks that share one table of relative positions.

    Args:
        window: longest row.
        width: D.
        blocks: number of blocks.
        heads: number of heads.
        drop: dropout.
    """

    def __init__(self, window: int, width: int, blocks: int, heads: int, drop: float) -> None:
        super().__init__()
        self.window = window
        self.positions = nn.Embedding(2 * window - 1, width)  # distances -(N - 1) … N - 1
        self.blocks = nn.ModuleList(DisentangledBlock(width, heads, drop) for _ in range(blocks))

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """States (B, L, D) of vectors (B, L, D), rows of `lengths` (B,) real positions."""
        length = vectors.shape[1]
        positions = self.positions.weight[self.window - length : self.window + length - 1]
        visible = visible_keys(length, lengths)
        for block in self.blocks:
            vectors = block(vectors, positions, visible)
        return vectors


def visible_keys(width: int, lengths: Tensor) -> Tensor:
    """(B, width) bool: the real positions of rows of `lengths` (B,), of an empty row the first."""
    return torch.arange(width, device=lengths.device) < lengths.clamp(min=1)[:, None]


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"width {width} is no multiple of heads {heads}")
