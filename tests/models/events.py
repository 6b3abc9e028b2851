"""What the tests of methods that read events share: a small dataset with ties, and its batches."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from datamodules.prepared import TRAIN, PreparedDataset
from datamodules.sequence import SequenceDataModule
from datamodules.types import EvaluationBatch, SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.models.events import EventRecommender
from intentbench.nn.event_inputs import EventInputs

FIELDS = {"action": "behaviour", "drift": "drift:category", "category": "values:category:4"}

N_ITEMS = 20

LENGTHS = (14, 11, 9, 9, 6, 4)

TINY: dict[str, Any] = {
    "fields": FIELDS,
    "item_width": 8,
    "field_width": 4,
    "width": 16,
    "dropout": 0.0,
    "window": 10,
}


def event_data() -> PreparedDataset:
    """Users with items at random, about a third of them with the time of the event before."""
    random = torch.Generator().manual_seed(0)
    sequences = [torch.randint(1, N_ITEMS + 1, (n,), generator=random).tolist() for n in LENGTHS]
    data = build_dataset("events", sequences, N_ITEMS)
    gaps = torch.randint(1, 4000, data.items.shape, generator=random)
    tied = torch.rand(data.items.shape, generator=random) < 0.3
    times = 1_700_000_000 + torch.where(tied, 0, gaps).cumsum(0)
    actions = torch.randint(0, 3, data.items.shape, generator=random).to(torch.int16)
    ratings = torch.randint(1, 6, data.items.shape, generator=random).float()
    return replace(data, timestamps=times, actions=actions, ratings=ratings)


def batches(data: PreparedDataset, **options: Any) -> SequenceDataModule:
    """Its batches, in windows of ten."""
    return SequenceDataModule(data, **{"window": 10, **options})


def training_batch(data: PreparedDataset, **options: Any) -> SequenceBatch:
    """The first training batch."""
    return next(iter(batches(data, **options).train_dataloader()))


def test_batch(data: PreparedDataset, **options: Any) -> EvaluationBatch:
    """The test targets."""
    return next(iter(batches(data, **options).test_dataloader()))


test_batch.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test


def events_of(model: EventRecommender, data: PreparedDataset, user: int) -> EventInputs:
    """The first ten events of a user as one rectangle (1, L), as the model sees them."""
    model.take(data)
    begin, end = data.offsets[user : user + 2].tolist()
    rows = torch.arange(begin, min(end, begin + 10))[None]
    known = model.known(torch.device("cpu"))
    return known.inputs(known.table.items[rows], rows)


def change_after(data: PreparedDataset, user: int, position: int) -> PreparedDataset:
    """Other items, behaviours, times and ratings for all of a user's events after a position."""
    begin, end = data.offsets[user : user + 2].tolist()
    later = torch.zeros(len(data.items), dtype=torch.bool)
    later[begin + position + 1 : end] = True
    assert data.timestamps is not None
    assert data.actions is not None
    assert data.ratings is not None
    return replace(
        data,
        items=torch.where(later, data.items % N_ITEMS + 1, data.items),
        timestamps=torch.where(later, data.timestamps + 86_400 + 5000, data.timestamps),
        actions=torch.where(later, (data.actions + 1) % 3, data.actions).to(torch.int16),
        ratings=torch.where(later, data.ratings % 5 + 1, data.ratings),
    )


def without_training_after(data: PreparedDataset, user: int, position: int) -> PreparedDataset:
    """A dataset whose statistics of training leave out a user's events after a position."""
    split = data.split.clone()
    begin, end = data.offsets[user : user + 2].tolist()
    split[begin + position + 1 : end] = 3
    assert (split == TRAIN).any()
    return replace(data, split=split)


def gradients(model: EventRecommender, loss: Tensor) -> dict[str, bool]:
    """Whether each parameter gets a gradient that is not zero."""
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {
        name: parameter.grad is not None and bool(parameter.grad.any())
        for name, parameter in model.named_parameters()
    }
