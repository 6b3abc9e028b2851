"""Item-to-item matrices that are mostly zeros, and how a history is read out of them."""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from datamodules.types import PAD, TrainingData


def recency_weights(history: Tensor, gamma: float) -> Tensor:
    """γ^(n-j) for the j-th of n items: 1 for the last, and γ less for each step back.

    An item counts once, at its latest place: with γ = 1 the weights are the user's binary vector.

    Args:
        history: (B, H) items, oldest first, `PAD` on the right.
        gamma: 1 weighs all alike, 0 leaves the last one only.

    Returns:
        (B, H) weights, 0 at `PAD` and where the item comes again.

    >>> recency_weights(torch.tensor([[5, 3, 8, 3], [7, PAD, PAD, PAD]]), 0.5)
    tensor([[0.1250, 0.0000, 0.5000, 1.0000],
            [1.0000, 0.0000, 0.0000, 0.0000]])
    """
    known = history != PAD
    age = known.sum(1, keepdim=True) - 1 - torch.arange(history.shape[1], device=history.device)
    weights = torch.pow(gamma, age.clamp(min=0))  # clamped: γ to a negative power may overflow
    items, places = history.sort(dim=1, stable=True)
    repeated = items[:, :-1] == items[:, 1:]
    comes_again = torch.zeros_like(known).scatter_(1, places[:, :-1], repeated)
    return torch.where(known & ~comes_again, weights, 0.0)


def count_matrix(training: TrainingData, dtype: type[np.floating[Any]]) -> "csr_array[Any]":
    """X (N, V + 1): 1 where a user has an item among the training events, however often."""
    counts = csr_array(
        (
            np.ones(len(training.items), dtype),
            training.items.numpy().astype(np.int32),
            training.offsets.numpy(),
        ),
        shape=(training.n_users, training.n_items + 1),
        copy=True,  # merging duplicates writes into the offsets
    )
    counts.sum_duplicates()
    counts.data[:] = 1
    return counts


class ItemMatrix(nn.Module):
    """A sparse matrix C (V + 1, V + 1) of item rows, in buffers, as compressed rows.

    It is multiplied on the host, by SciPy: the result costs as many additions as the rows of a
    history hold values. (On a CPU that is 100 times as fast as `torch.sparse.mm`, whose right
    side must be dense; the compressed rows of torch are in beta.)

    Args:
        n_items: V.
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.offsets: Tensor
        self.columns: Tensor
        self.values: Tensor
        self.register_buffer("offsets", torch.zeros(n_items + 2, dtype=torch.int32))
        self.register_buffer("columns", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("values", torch.zeros(0))
        self.register_load_state_dict_pre_hook(_take_sizes)  # type: ignore[no-untyped-call]

    def fill(self, matrix: "csr_array[Any]") -> None:
        """Take the values of a SciPy matrix (V + 1, V + 1)."""
        device = self.offsets.device
        self.offsets = torch.from_numpy(matrix.indptr.astype(np.int32)).to(device)
        self.columns = torch.from_numpy(matrix.indices.astype(np.int32)).to(device)
        self.values = torch.from_numpy(matrix.data.astype(np.float32)).to(device)

    def read_out(self, items: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of rows, Σ_j w_j C[i_j, ·].

        Args:
            items: (B, H).
            weights: (B, H), 0 where there is no item.

        Returns:
            (B, V + 1) float32 on the device of `items`.
        """
        size = self.n_items + 1
        chosen = (weights != 0).cpu().numpy()
        bounds = np.concatenate([[0], chosen.sum(1).cumsum()])
        left = csr_array(
            (weights.cpu().numpy()[chosen], items.cpu().numpy()[chosen], bounds),
            shape=(len(items), size),
        )
        buffers = (self.values, self.columns, self.offsets)
        right = csr_array(tuple(buffer.cpu().numpy() for buffer in buffers), shape=(size, size))
        return torch.from_numpy((left @ right).toarray()).to(items.device)


def _take_sizes(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before loading: how many values there are is known to the checkpoint alone."""
    for name, buffer in module.named_buffers():
        if (stored := state.get(prefix + name)) is not None and name != "offsets":
            setattr(module, name, buffer.new_empty(stored.shape))
