"""Random edits of item sequences: crop, mask, reorder, substitute, insert.

Each takes right-padded items (B, L), their lengths (B,) and uniform noise, and returns new items
and lengths; nothing is changed in place and nothing is drawn inside: the same noise gives the same
edit. Ratios follow the code of CoSeRec and ICLRec: counts are rounded down.

Noise may be wider than the items, so that the draw need not depend on how a batch was trimmed.
"""

import torch
from torch import Tensor

from datamodules.types import PAD

Edited = tuple[Tensor, Tensor]


def crop(items: Tensor, lengths: Tensor, ratio: float, noise: Tensor) -> Edited:
    """Keep ⌊ratio n⌋ items in a row, at least one (one of an empty row is none).

    Args:
        items: (B, L).
        lengths: (B,).
        ratio: η, the share that is kept.
        noise: (B,) in [0, 1), where the kept part begins.
    """
    kept = (ratio * lengths).long().clamp(min=1).minimum(lengths)
    begin = (noise * (lengths - kept + 1)).long()
    column = torch.arange(items.shape[1], device=items.device)
    moved = items.gather(1, (begin[:, None] + column).clamp(max=items.shape[1] - 1))
    return torch.where(column < kept[:, None], moved, PAD), kept


def mask(
    items: Tensor, lengths: Tensor, ratio: float, noise: Tensor, token: int | None = None
) -> Edited:
    """Take away ⌊ratio n⌋ items.

    Args:
        items: (B, L).
        lengths: (B,).
        ratio: γ < 1, the share that is taken away.
        noise: (B, N), N ≥ L: the places with the smallest noise are taken.
        token: what stands there then. None: nothing does, and the gap is closed. (ICLRec's code
            writes the padding id there and hides it from attention, so the item vanishes too.)
    """
    order = _ranks(lengths, noise[:, : items.shape[1]])
    taken = order < (ratio * lengths).long()[:, None]
    if token is not None:
        return torch.where(taken, token, items), lengths
    kept = ~taken & (torch.arange(items.shape[1], device=items.device) < lengths[:, None])
    places = (~kept).long().argsort(stable=True, dim=1)
    return torch.where(kept, items, PAD).gather(1, places), kept.sum(1)


def reorder(items: Tensor, lengths: Tensor, ratio: float, noise: Tensor) -> Edited:
    """Shuffle ⌊ratio n⌋ items that stand in a row.

    Args:
        items: (B, L).
        lengths: (B,).
        ratio: β, the share that is shuffled.
        noise: (B, N), N ≥ L + 1: the first column says where the part begins, the rest shuffles.
    """
    count = (ratio * lengths).long()
    begin = (noise[:, 0] * (lengths - count + 1)).long()
    column = torch.arange(items.shape[1], device=items.device)
    inside = (column >= begin[:, None]) & (column < (begin + count)[:, None])
    # inside the part the keys lie in [begin, begin + count): it stays where it was
    key = begin[:, None] + noise[:, 1 : items.shape[1] + 1] * count[:, None]
    places = torch.where(inside, key, column).argsort(stable=True, dim=1)
    return items.gather(1, places), lengths


def substitute(
    items: Tensor, lengths: Tensor, ratio: float, noise: Tensor, similar: Tensor
) -> Edited:
    """Replace ⌊ratio n⌋ items by similar ones.

    Args:
        items: (B, L).
        lengths: (B,).
        ratio: the share that is replaced, at least one item of a row that has any.
        noise: (B, N), N ≥ L.
        similar: (V + 1,) the item that stands for each item; `PAD` for itself.
    """
    count = (ratio * lengths).long().clamp(min=1)
    order = _ranks(lengths, noise[:, : items.shape[1]])
    return torch.where(order < count[:, None], similar[items], items), lengths


def insert(
    items: Tensor, lengths: Tensor, ratio: float, noise: Tensor, similar: Tensor, window: int
) -> Edited:
    """Put a similar item before each of ⌊ratio n⌋ items; the last `window` items are kept.

    Args:
        items: (B, L).
        lengths: (B,).
        ratio: the share of items that get one, at least one of a row that has any.
        noise: (B, N), N ≥ L.
        similar: (V + 1,) the item that is put before each item.
        window: longest row; the result is min(2 L, window) wide.
    """
    count = (ratio * lengths).long().clamp(min=1)
    order = _ranks(lengths, noise[:, : items.shape[1]])
    chosen = order < count[:, None]
    width = min(2 * items.shape[1], window)
    longer = lengths + (chosen & (order < lengths[:, None])).sum(1)
    dropped = (longer - width).clamp(min=0)[:, None]  # the oldest
    place = torch.arange(items.shape[1], device=items.device) + chosen.cumsum(1) - dropped
    real = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
    result = items.new_full((len(items), width + 2), PAD)  # two more columns: a bin for the rest
    bin_ = torch.full_like(place, width + 1)
    own = torch.where(real & (place >= 0), place, bin_)
    before = torch.where(real & chosen & (place >= 1), place - 1, bin_)
    result.scatter_(1, before, similar[items]).scatter_(1, own, items)
    return result[:, :width], longer - dropped.squeeze(1)


def _ranks(lengths: Tensor, noise: Tensor) -> Tensor:
    """Rank of each place's noise among the real places of its row; padding ranks last. (B, L)."""
    column = torch.arange(noise.shape[1], device=noise.device)
    return torch.where(column < lengths[:, None], noise, 2.0).argsort(1).argsort(1)
