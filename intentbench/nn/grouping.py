"""Run an encoder on groups of similar length instead of one wide, mostly empty rectangle."""

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.types import Batch


def encode_groups(batch: Batch, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Encode each group of a batch at its own width and join the flattened states.

    Index the result with `batch.select` to get the states that matter: those at the real targets
    (T, D) of a training batch, the last one of each row (B, D) of an evaluation batch.

    Args:
        batch: any batch; rows are sorted by falling length, `groups` covers them.
        encode: (b, w) items -> (b, w, D) states. It must not look at padding on the right.

    Returns:
        (sum of b * w, D) states, row after row.
    """
    parts = [
        encode(batch.items[start:stop, :width]).flatten(0, 1) for start, stop, width in batch.groups
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def encode_last(batch: Batch, encode: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The last state of each row of a batch, each group encoded at its own width.

    Args:
        batch: any batch.
        encode: (b, w) items and (b,) lengths -> (b, D) states after the last item.

    Returns:
        (B, D).
    """
    return torch.cat(
        [
            encode(batch.items[start:stop, :width], batch.lengths[start:stop])
            for start, stop, width in batch.groups
        ]
    )
