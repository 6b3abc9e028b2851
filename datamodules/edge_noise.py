"""Training pairs that nobody had, for studies of how much noise a method on a graph stands."""

from dataclasses import replace

import torch
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.prepared import TRAIN, PreparedDataset


def add_pairs(dataset: PreparedDataset, share: float, seed: int = 0) -> PreparedDataset:
    """A dataset with random pairs among its training events.

    They are drawn uniformly from the pairs of a user and an item that are in none of its parts,
    so that nothing held out is told. Timestamps and what else belongs to events are left out: the
    order of such a dataset means nothing.

    Args:
        dataset: what to add to.
        share: pairs to add, as a share of the training events (rounded).
        seed: of the draw; it has nothing to do with a trial's.

    Raises:
        RequestError: the share is negative, or there are not that many pairs left.
    """
    if share < 0:
        raise RequestError(f"added_pairs: a share of training events, 0 or more, not {share}")
    users = torch.repeat_interleave(torch.arange(dataset.n_users), dataset.offsets.diff())
    known = torch.unique(users * dataset.n_items + dataset.items - 1)
    count = round(share * int((dataset.split == TRAIN).sum()))
    total = dataset.n_users * dataset.n_items
    if count > total - len(known):
        raise RequestError(f"{dataset.meta.name}: {count} pairs cannot be added, too few are left")
    # the k-th pair that is not known: as many known ones stand before it as begin at or below k
    generator = torch.Generator().manual_seed(seed)
    chosen = _distinct(count, total - len(known), generator)
    free = known - torch.arange(len(known))
    added = chosen + torch.searchsorted(free, chosen, right=True)
    owner = torch.cat([users, added // dataset.n_items])
    items = torch.cat([dataset.items, (added % dataset.n_items + 1).to(dataset.items.dtype)])
    split = torch.cat([dataset.split, torch.full((count,), TRAIN, dtype=dataset.split.dtype)])
    order = torch.argsort(owner * 4 + split, stable=True)
    offsets = torch.cat(
        [
            torch.zeros(1, dtype=torch.int64),
            torch.bincount(owner, minlength=dataset.n_users).cumsum(0),
        ]
    )
    return replace(
        dataset,
        items=items[order],
        split=split[order],
        offsets=offsets,
        timestamps=None,
        actions=None,
        ratings=None,
        sessions=None,
    )


def _distinct(count: int, below: int, generator: torch.Generator) -> Tensor:
    """`count` different numbers of 0..below-1, uniformly, without listing all of them."""
    drawn: Tensor = torch.unique(torch.randint(below, (count,), generator=generator))
    while len(drawn) < count:
        more = torch.randint(below, (count - len(drawn),), generator=generator)
        drawn = torch.unique(torch.cat([drawn, more]))
    return drawn
