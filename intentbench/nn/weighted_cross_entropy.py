"""Cross-entropy over the whole catalogue in which targets count differently.

Logits are made a chunk of targets at a time and made again on the way back: memory is one chunk, at
the cost of a third product. Where all targets count alike, `nn.cross_entropy` is cheaper.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from datamodules.types import PAD
from intentbench.nn import cross_entropy
from intentbench.nn.processes import pool_mean


def weighted_cross_entropy(
    states: Tensor, table: Tensor, targets: Tensor, weights: Tensor
) -> Tensor:
    """Σ w ℓ / Σ w, with ℓ = -h·e+ + log Σ_{v≥1} exp(h·e_v).

    Args:
        states: (T, D) query vectors h.
        table: (V + 1, D) item vectors e; row 0 is `PAD`, no candidate.
        targets: (T,) items 1..V.
        weights: (T,) not negative.
    """
    rows = max(1, cross_entropy.CHUNK_CELLS // len(table))
    parts = zip(*(torch.split(part, rows) for part in (states, targets, weights)), strict=True)
    total = torch.stack(
        [
            checkpoint(_chunk, *part, table, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    ).sum()
    weight = weights.sum()
    return pool_mean(total / weight.clamp(min=torch.finfo(total.dtype).tiny), weight)


def _chunk(states: Tensor, targets: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    logits = states @ table.T
    logits[:, PAD] = -torch.inf
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return (weights * losses).sum()
