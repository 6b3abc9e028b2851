"""Datasets that the checks are made on, built and changed in memory."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.prepared import TEST, TRAIN, VALID, Meta, PreparedDataset, compute_fingerprint

ACTIONS = ("buy", "cart", "view")
"""Behaviours of events, those of the synthetic data."""

N_CATEGORIES = 4

FIRST_SECOND = 1_704_067_200
"""When each user begins: 2024-01-01 00:00 UTC."""


def build_dataset(name: str, sequences: list[list[int]], n_items: int) -> PreparedDataset:
    """A dataset of these sequences, split leave-one-out.

    Events are a minute apart, the behaviour of an event and the category of an item follow from the
    item's number: for methods that read them, and told by the item alone.

    Args:
        name: stands in messages.
        sequences: items of each user, oldest first; those of fewer than three only train.
        n_items: V.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    items = torch.tensor([item for row in sequences for item in row], dtype=torch.int32)
    split = torch.full((len(items),), TRAIN, dtype=torch.uint8)
    ends = offsets[1:][lengths >= 3]
    split[ends - 1] = TEST
    split[ends - 2] = VALID
    recipe = {"split": "leave_one_out"}
    place = torch.arange(len(items)) - torch.repeat_interleave(offsets[:-1], lengths)
    timestamps = FIRST_SECOND + 60 * place
    actions = (items % len(ACTIONS)).to(torch.int16)
    features = {
        "item.category.values": torch.arange(n_items, dtype=torch.int32) % N_CATEGORIES + 1,
        "item.category.offsets": torch.arange(-1, n_items + 1).clamp(min=0),
    }
    tensors = {"items": items, "split": split, "offsets": offsets, **features}
    tensors |= {"timestamps": timestamps, "actions": actions}
    statistics = {
        "users": len(sequences),
        "items": n_items,
        "interactions": len(items),
        "density": len(items) / (len(sequences) * n_items),
    }
    meta = Meta(
        name,
        compute_fingerprint(tensors, recipe),
        recipe,
        "successive",
        statistics,
        {},
        item_features=("category",),
        actions=ACTIONS,
    )
    return PreparedDataset(meta, items, split, offsets, timestamps, actions, features=features)


def planted_cycles(n_users: int = 50, n_cycles: int = 4, length: int = 10) -> PreparedDataset:
    """Users who walk round a cycle of items of their own intent: nothing is left to chance.

    The last item tells the next; the items of a user tell the intent, hence which items are left;
    every item is about as popular as any other. No item repeats within a user.

    Args:
        n_users: N; user u has intent u % n_cycles.
        n_cycles: K, the number of intents.
        length: items of a cycle, V = n_cycles * length.
    """
    random = np.random.default_rng(0)
    sequences = []
    for user in range(n_users):
        begin, events = random.integers(length), random.integers(5, length)
        first = 1 + user % n_cycles * length
        sequences.append([int(first + (begin + step) % length) for step in range(events)])
    return build_dataset("planted cycles", sequences, n_cycles * length)


def take_events(dataset: PreparedDataset, users: list[NDArray[np.int64]]) -> PreparedDataset:
    """A dataset of these events.

    Args:
        dataset: where they come from; its catalogue and features stay.
        users: for each user of the new dataset, numbers of events.
    """
    counts = torch.tensor([len(events) for events in users])
    events = torch.from_numpy(np.concatenate(users))
    fields = ("items", "split", "timestamps", "actions", "ratings", "sessions")
    taken: dict[str, Any] = {
        name: tensor[events]
        for name in fields
        if isinstance(tensor := getattr(dataset, name), Tensor)
    }
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return replace(dataset, offsets=offsets, **taken)


def events_of_users(dataset: PreparedDataset) -> list[NDArray[np.int64]]:
    """The numbers of each user's events."""
    return np.split(np.arange(len(dataset.items)), dataset.offsets[1:-1].numpy())


def change_held_out(dataset: PreparedDataset) -> PreparedDataset:
    """The same dataset, but that every validation and test item is another one."""
    held_out = dataset.split != TRAIN
    other = dataset.items % dataset.n_items + 1
    return replace(dataset, items=torch.where(held_out, other, dataset.items))
