"""The two sequence encoders of the field, over right-padded windows.

A causal mask alone hides padding that stands on the right, so no padding mask is needed, and a
row's states do not depend on how wide its batch is. Positions are counted from the first item.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from datamodules.types import PAD
from intentbench.nn.initialisation import init_normal, init_xavier

EncoderName = Literal["sasrec", "bert"]


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each position to itself and what precedes it.

    Args:
        width: D.
        heads: number of heads; must divide `width`.
        dropout: on the attention weights.
        project: whether the joined heads pass through one more layer W_o.
    """

    def __init__(self, width: int, heads: int, dropout: float, project: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of heads {heads}")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width) if project else nn.Identity()

    def forward(self, queries: Tensor, context: Tensor, last: Tensor | None = None) -> Tensor:
        """Attend from `queries` to `context` (B, L, D).

        Args:
            queries: (B, L, D), or (B, 1, D) with `last`.
            context: (B, L, D).
            last: (B,) position of the one query of each row; None: a query at every position.

        Returns:
            The shape of `queries`.
        """
        batch, length, width = context.shape
        shape = (batch, -1, self.heads, width // self.heads)
        visible = None
        if last is not None:
            visible = (torch.arange(length, device=last.device) <= last[:, None])[:, None, None]
        query = self.query(queries).view(shape).transpose(1, 2)  # (B, heads, L, D / heads)
        key, value = self.key_value(context).chunk(2, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            query,
            key.reshape(shape).transpose(1, 2),
            value.reshape(shape).transpose(1, 2),
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=last is None,
        )
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(queries.shape))
        return result


class SASRecBlock(nn.Module):
    """Block of the original SASRec (encoder `sasrec`).

        q = LN(h),  h = q + Attn(q, h, h),  h = FFN(LN(h)) + LN(h)

    Keys and values are not normalised, the residual adds the normalised query, and the heads are
    joined without an output layer, all as in the authors' code. FFN is two D x D layers with ReLU.

    Args:
        width: D.
        heads: number of heads.
        dropout: on attention weights and after each layer of the FFN.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-8)
        self.attention = CausalSelfAttention(width, heads, dropout, project=False)
        self.forward_norm = nn.LayerNorm(width, eps=1e-8)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )

    def forward(self, states: Tensor, last: Tensor | None = None) -> Tensor:
        """(B, L, D) to (B, L, D), or to (B, 1, D) at the positions `last` (B,) alone."""
        query = self.attention_norm(states if last is None else take_last(states, last))
        states = query + self.attention(query, states, last)
        states = self.forward_norm(states)
        result: Tensor = self.feed_forward(states) + states
        return result


class BertBlock(nn.Module):
    """Post-norm block of the S3-Rec lineage (encoder `bert`).

        h = LN(h + Drop(W_o MHA(h))),  h = LN(h + Drop(W_2 GELU(W_1 h))),  inner width 4 D

    Args:
        width: D.
        heads: number of heads.
        dropout: on attention weights and before each residual sum.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.forward_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, last: Tensor | None = None) -> Tensor:
        """(B, L, D) to (B, L, D), or to (B, 1, D) at the positions `last` (B,) alone."""
        queries = states if last is None else take_last(states, last)
        mixed = self.dropout(self.attention(queries, states, last))
        states = self.attention_norm(queries + mixed)
        result: Tensor = self.forward_norm(states + self.dropout(self.feed_forward(states)))
        return result


class SequenceEncoder(nn.Module):
    """Item and position embeddings, then causal blocks.

    `sasrec`: h = Dropout(√D E[s] + P), SASRec blocks, a final LN; Xavier-normal weights.
    `bert`: h = Dropout(LN(E[s] + P)), BERT blocks; N(0, 0.02) weights, biases 0.

    Args:
        n_items: V.
        window: longest window, the size of the position table.
        kind: which of the two.
        width: D.
        blocks: number of blocks.
        heads: number of heads.
        dropout: everywhere the papers have one.
    """

    def __init__(
        self,
        n_items: int,
        window: int,
        kind: EncoderName,
        width: int,
        blocks: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)
        self.positions = nn.Embedding(window, width)
        self.dropout = nn.Dropout(dropout)
        block = SASRecBlock if kind == "sasrec" else BertBlock
        self.blocks = nn.ModuleList(block(width, heads, dropout) for _ in range(blocks))
        self.scale = math.sqrt(width) if kind == "sasrec" else 1.0
        self.first_norm = nn.Identity() if kind == "sasrec" else nn.LayerNorm(width, eps=1e-12)
        self.last_norm = nn.LayerNorm(width, eps=1e-8) if kind == "sasrec" else nn.Identity()
        self.apply(init_xavier if kind == "sasrec" else init_normal)

    def forward(self, items: Tensor) -> Tensor:
        """States (B, L, D) of items (B, L); the state at position t has seen items up to t."""
        return self.attend(self.items(items))

    def attend(self, vectors: Tensor, last: Tensor | None = None) -> Tensor:
        """States of vectors (B, L, D) that stand in for the items' embeddings.

        Args:
            vectors: (B, L, D).
            last: (B,) positions; the states there are returned alone, at less cost.

        Returns:
            (B, L, D), or (B, 1, D) with `last`.
        """
        states = self.scale * vectors + self.positions.weight[: vectors.shape[1]]
        states = self.dropout(self.first_norm(states))
        for block in self.blocks[:-1]:
            states = block(states)
        result: Tensor = self.last_norm(self.blocks[-1](states, last))
        return result

    def last_state(self, items: Tensor, lengths: Tensor) -> Tensor:
        """States (B, D) after the last of each row's `lengths` (B,) items (B, L)."""
        return self.attend(self.items(items), (lengths - 1).clamp(min=0)).squeeze(1)


def take_last(states: Tensor, last: Tensor) -> Tensor:
    """The state at one position of each row: (B, L, D) and (B,) to (B, 1, D)."""
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))
