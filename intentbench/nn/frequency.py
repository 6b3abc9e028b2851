"""Filters along time, and the window encoder of the methods that use them (FMLP-Rec, BSARec).

With the discrete Fourier transform X_f = N^(-1/2) Σ_t x_t e^(-2πi f t / N) of each feature over the
N positions of a window, a filter weighs frequencies and transforms back. By the convolution theorem
that is a circular convolution: the output at every position reads **every** position, padding
included. So windows always have N positions, short histories are padded on the left, and only the
last position may be trained on: any other would see what follows it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from datamodules.types import PAD
from intentbench.nn.initialisation import init_normal


def last_items(items: Tensor, lengths: Tensor, window: int) -> Tensor:
    """The last `window` items of each row, `PAD` on the left, so that the last item stands last.

    Args:
        items: (B, L), `PAD` on the right.
        lengths: (B,) items of each row; may be 0.
        window: N.

    Returns:
        (B, N).

    >>> last_items(torch.tensor([[5, 3, 8], [7, PAD, PAD]]), torch.tensor([3, 1]), 2)
    tensor([[3, 8],
            [0, 7]])
    """
    column = torch.arange(window, device=items.device) + (lengths - window)[:, None]
    return torch.where(column >= 0, items.gather(1, column.clamp(min=0)), PAD)


class LearnableFilter(nn.Module):
    """FMLP-Rec's filter: irfft(W ⊙ rfft(H)), one complex weight a frequency and feature.

    Args:
        window: N.
        width: D.
    """

    def __init__(self, window: int, width: int) -> None:
        super().__init__()
        self.window = window
        self.weight = nn.Parameter(0.02 * torch.randn(window // 2 + 1, width, 2))

    def forward(self, states: Tensor, last: bool = False) -> Tensor:
        """(B, N, D) to (B, N, D), or with `last` to (B, 1, D) at the last position alone."""
        weight = torch.view_as_complex(self.weight)
        if last:  # one output of a convolution: a sum with its kernel, without any transform
            kernel: Tensor = torch.fft.irfft(weight, n=self.window, dim=0)
            return (states * kernel.flip(0)).sum(1, keepdim=True)
        spectrum = torch.fft.rfft(states, dim=1, norm="ortho")
        filtered: Tensor = torch.fft.irfft(weight * spectrum, n=self.window, dim=1, norm="ortho")
        return filtered


class FrequencyRescaler(nn.Module):
    """BSARec's filter: low + β² ⊙ (H - low), low the first ⌊c/2⌋ + 1 frequencies of H.

    The low-pass filter has no weights, so it is one matrix over time, cheaper than two transforms.

    Args:
        window: N.
        width: D.
        cutoff: c.

    Attributes:
        low_pass: (N, N), symmetric.
        root_beta: (D,) β, called sqrt_beta in the reference code: its square is the factor.
    """

    low_pass: Tensor

    def __init__(self, window: int, width: int, cutoff: int) -> None:
        super().__init__()
        spectrum = torch.fft.rfft(torch.eye(window, dtype=torch.float64), dim=0)
        spectrum[cutoff // 2 + 1 :] = 0
        low_pass = torch.fft.irfft(spectrum, n=window, dim=0)
        self.register_buffer("low_pass", low_pass.float(), persistent=False)
        self.root_beta = nn.Parameter(torch.randn(width))

    def forward(self, states: Tensor, last: bool = False) -> Tensor:
        """(B, N, D) to (B, N, D), or with `last` to (B, 1, D) at the last position alone."""
        low = (self.low_pass[-1:] if last else self.low_pass) @ states
        own = states[:, -1:] if last else states
        return low + self.root_beta.square() * (own - low)


class FilterLayer(nn.Module):
    """LN(H + Drop(filter(H))).

    Args:
        mixer: `LearnableFilter` or `FrequencyRescaler`.
        width: D.
        dropout: on the filter's output.
    """

    def __init__(self, mixer: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, last: bool = False) -> Tensor:
        """(B, N, D) to (B, N, D), or with `last` to (B, 1, D) at the last position alone."""
        own = states[:, -1:] if last else states
        result: Tensor = self.norm(own + self.dropout(self.mixer(states, last)))
        return result


class FeedForward(nn.Module):
    """LN(h + Drop(W_2 GELU(W_1 h))), inner width 4 D (S3-Rec lineage).

    Args:
        width: D.
        dropout: before the residual sum.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """(…, D) to (…, D)."""
        result: Tensor = self.norm(states + self.dropout(self.layers(states)))
        return result


class WindowEncoder(nn.Module):
    """The state at the last position of left-padded windows of N items.

    h = Dropout(LN(E[s] + P)), then the blocks; N(0, 0.02) weights, biases 0 (S3-Rec lineage). The
    last block computes its last position alone, which is all that is read and all that is trained.

    Args:
        n_items: V.
        window: N.
        width: D.
        blocks: number of blocks.
        make_block: makes a block: states (B, N, D), real (B, N) bool and whether the last position
            is wanted alone, to states (B, N, D) or (B, 1, D).
        dropout: of the embeddings.
    """

    def __init__(
        self,
        n_items: int,
        window: int,
        width: int,
        blocks: int,
        make_block: Callable[[], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        self.window = window
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)
        self.positions = nn.Embedding(window, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(make_block() for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.apply(init_normal)

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """States (B, D) after the last of `lengths` (B,) items (B, L), `PAD` on their right."""
        items = last_items(items, lengths, self.window)
        real = items != PAD
        states = self.dropout(self.norm(self.items(items) + self.positions.weight))
        for block in self.blocks[:-1]:
            states = block(states, real, False)
        last: Tensor = self.blocks[-1](states, real, True)
        return last.squeeze(1)
