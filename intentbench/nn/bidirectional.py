"""A bidirectional encoder over right-padded windows: BERT blocks in which every position sees all.

Without a causal mask the padding on the right must be hidden from attention, so rows come with
their lengths. Positions are counted from the first item, as in BERT4Rec's code.
"""

import torch
from torch import Tensor, nn

from datamodules.types import PAD
from intentbench.nn.initialisation import init_normal
from intentbench.nn.transformer import CausalSelfAttention


class BidirectionalBlock(nn.Module):
    """Post-norm BERT block.

        h = LN(h + Drop(W_o MHA(h))),  h = LN(h + Drop(W_2 GELU(W_1 h))),  inner width 4 D

    Args:
        width: D.
        heads: number of heads.
        dropout: before each residual sum.
        attention_dropout: on the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(width, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.forward_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, lengths: Tensor, places: Tensor | None = None) -> Tensor:
        """(B, L, D) to (B, L, D), or to (B, S, D) at the positions `places` (B, S) alone."""
        queries = states if places is None else take(states, places)
        # every query sees what the row's last position sees: all of the row and no padding
        mixed = self.dropout(self.attention(queries, states, lengths - 1))
        states = self.attention_norm(queries + mixed)
        result: Tensor = self.forward_norm(states + self.dropout(self.feed_forward(states)))
        return result


class BidirectionalEncoder(nn.Module):
    """Item and position embeddings, then blocks: h = Dropout(LN(E[s] + P)); weights N(0, 0.02).

    Args:
        n_tokens: rows of the embedding table after that of `PAD`: the items, then other tokens.
        window: longest window, the size of the position table.
        width: D.
        blocks: number of blocks.
        heads: number of heads; must divide `width`.
        dropout: of embeddings and before each residual sum.
        attention_dropout: on the attention weights.
    """

    def __init__(
        self,
        n_tokens: int,
        window: int,
        width: int,
        blocks: int,
        heads: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(n_tokens + 1, width, padding_idx=PAD)
        self.positions = nn.Embedding(window, width)
        self.first_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            BidirectionalBlock(width, heads, dropout, attention_dropout) for _ in range(blocks)
        )
        self.apply(init_normal)

    def forward(self, items: Tensor, lengths: Tensor, places: Tensor | None = None) -> Tensor:
        """States of items (B, L), of which the first `lengths` (B,), at least one, are real.

        Args:
            items: (B, L), `PAD` on the right.
            lengths: (B,).
            places: (B, S) positions; the states there are returned alone, at less cost.

        Returns:
            (B, L, D), or (B, S, D) with `places`.
        """
        states: Tensor = self.first_norm(
            self.items(items) + self.positions.weight[: items.shape[1]]
        )
        states = self.dropout(states)
        for block in self.blocks[:-1]:
            states = block(states, lengths)
        result: Tensor = self.blocks[-1](states, lengths, places)
        return result


def take(states: Tensor, places: Tensor) -> Tensor:
    """The states at some positions of each row: (B, L, D) and (B, S) to (B, S, D)."""
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))


def append(items: Tensor, lengths: Tensor, item: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Put one more item after each row; a row that exceeds the window loses its oldest.

    Args:
        items: (B, L), `PAD` on the right.
        lengths: (B,), 0 in an empty row.
        item: (B,) what is appended.
        window: longest row.

    Returns:
        Items (B, min(L + 1, window)) and lengths (B,).
    """
    width = min(items.shape[1] + 1, window)
    dropped = (lengths + 1 - width).clamp(min=0)
    column = torch.arange(width, device=items.device)
    source = (column + dropped[:, None]).clamp(max=items.shape[1] - 1)
    longer = lengths + 1 - dropped
    at_end = column == (longer - 1)[:, None]
    return torch.where(at_end, item[:, None], items.gather(1, source)), longer
