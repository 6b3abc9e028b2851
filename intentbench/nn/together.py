"""One pass of an encoder over several sets of rows.

A method that contrasts a row with its view and its partner would run its encoder three times, each
time over a few groups of similar length. Together they make hardly more groups, and each is fuller:
fewer and larger operations for the same states.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from datamodules.rows import Groups, cut_groups

Rows = tuple[Tensor, Tensor]
"""Items (b, w), `PAD` on the right, and their lengths (b,)."""


def encode_together(
    sets: Sequence[Rows], encode: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """What `encode` makes of each row of each set, (b, D) a set.

    Args:
        sets: rows; the same ones may stand in several.
        encode: (b, w) items and (b,) lengths -> (b, D), as `SequenceEncoder.last_state`. It must
            not look at padding on the right.
    """
    lengths = torch.cat([own for _, own in sets])
    width = max(items.shape[1] for items, _ in sets)
    items = torch.cat([pad(own, (0, width - own.shape[1])) for own, _ in sets])
    order = lengths.argsort(descending=True, stable=True)
    items, lengths = items[order], lengths[order]
    groups: Groups = ((0, len(order), width),)
    if not lengths.is_cuda:  # a GPU is not asked for lengths
        groups = cut_groups(lengths.numpy())
    states = torch.cat([encode(items[i:j, :w], lengths[i:j]) for i, j, w in groups])
    return list(torch.split(states[order.argsort()], [len(own) for _, own in sets]))
