"""The layer that scores the catalogue: its own weights and biases, or a map to the item table."""

import torch
from torch import Tensor, nn

from datamodules.types import PAD


class ItemOutput(nn.Module):
    """FC_item, as a query and a table whose products are the scores.

    Args:
        n_items: V.
        width: D of the states.
        tied: an item table (V + 1, D') to score with; None: weights and biases of its own.
    """

    def __init__(self, n_items: int, width: int, tied: nn.Embedding | None = None) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD) if tied is None else tied
        self.map = None if tied is None else nn.Linear(width, tied.embedding_dim)
        self.bias = nn.Parameter(torch.zeros(n_items + 1)) if tied is None else None

    @property
    def dtype(self) -> torch.dtype:
        """Of the table."""
        return self.items.weight.dtype

    def forward(self, states: Tensor) -> Tensor:
        """Queries of states (…, D): [h, 1], whose last factor carries the biases, or the map's."""
        if self.map is not None:
            mapped: Tensor = self.map(states)
            return mapped
        return torch.cat([states, torch.ones_like(states[..., :1])], -1)

    def table(self) -> Tensor:
        """(V + 1, D + 1) weights and biases, or the tied table."""
        if self.bias is None:
            return self.items.weight
        return torch.cat([self.items.weight, self.bias[:, None]], 1)
