"""A method under test: how the checks build, train and question it."""

from collections.abc import Mapping
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from datamodules.prepared import PreparedDataset
from datamodules.sequence import SequenceDataModule
from datamodules.types import EvaluationBatch, SequenceBatch
from intentbench.metrics.collection import RankTable
from intentbench.models.base import GradientRecommender, Recommender
from intentbench.models.card import Card
from intentbench.models.takes import TakesDataset

FILLED = ("n_items", "n_users", "window")
"""Arguments that the runner fills in from the data module."""

WINDOW = 8
"""Inputs of a row: fewer than most users have, so that windows are cut."""

BATCH = {"all": 16, "prefix": 128, "pair": 128}
"""Training rows a step: several steps an epoch, of rows of several lengths."""


class Subject:
    """A method, the arguments of its Card's `tiny`, and a dataset.

    Args:
        key: of the method.
        cls: its class.
        data: the dataset of all checks that need no other.
    """

    def __init__(self, key: str, cls: type[Recommender], data: PreparedDataset) -> None:
        self.key = key
        self.cls = cls
        self.data = data

    @property
    def card(self) -> Card:
        """The method's Card."""
        return self.cls.CARD

    @property
    def window(self) -> int:
        """Inputs of a row: the Card's, or else `WINDOW`."""
        return int(self.card.tiny.get("window", WINDOW))

    def filled(self, data: PreparedDataset | None = None) -> dict[str, Any]:
        """What the runner fills in, as far as the method takes it."""
        data = data or self.data
        values = (data.n_items, data.n_users, self.window)
        names = signature(self.cls).parameters
        return {name: value for name, value in zip(FILLED, values, strict=True) if name in names}

    def build(
        self,
        data: PreparedDataset | None = None,
        seed: int = 0,
        changes: Mapping[str, Any] | None = None,
    ) -> Recommender:
        """The method with the arguments of `CARD.tiny`, its weights drawn from a seed."""
        seed_everything(seed, workers=True, verbose=False)
        return self.cls(**{**self.filled(data), **self.card.tiny, **(changes or {})})

    def batches(
        self, model: Recommender, data: PreparedDataset | None = None, **options: Any
    ) -> SequenceDataModule:
        """The data module that suits the method; options as in `SequenceDataModule`."""
        settings = {
            "layout": model.layout,
            "window": model.hparams.get("window", self.window),
            "batch_size": BATCH[model.layout],
            "pad_to_window": self.card.fixed_window,
            **options,
        }
        return SequenceDataModule(data or self.data, **settings)

    def fit(
        self,
        epochs: int = 2,
        data: PreparedDataset | None = None,
        seed: int = 0,
        changes: Mapping[str, Any] | None = None,
    ) -> Recommender:
        """A method trained by Lightning's own Trainer."""
        model = self.build(data, seed, changes)
        quiet_trainer(epochs).fit(model, self.batches(model, data, seed=seed))
        return model

    @cached_property
    def trained(self) -> Recommender:
        """The method after two epochs, in evaluation mode. Shared: checks must not train it."""
        return self.fit().eval()

    def prepared(self, seed: int = 0, changes: Mapping[str, Any] | None = None) -> Recommender:
        """The method as it is before its first step: shown the training events, E-step done."""
        model = self.build(seed=seed, changes=changes)
        show_events(model, self.data)
        model.prepare(self.data.training())
        if isinstance(model, GradientRecommender):
            with torch.no_grad():
                model.eval().on_epoch()
            model.train()
        return model

    def score(
        self, model: Recommender, data: PreparedDataset | None = None, **options: Any
    ) -> Tensor:
        """Scores (N, V + 1) for what comes after all events of each user, by user."""
        loader = self.batches(model, data, **options).predict_dataloader()
        show_events(model, data or self.data)
        scores = score_all(model, list(loader))
        show_events(model, self.data)  # which checks that score batches themselves go by
        return scores

    def test(self, model: Recommender, data: PreparedDataset | None = None) -> RankTable:
        """The ranks of the test targets."""
        quiet_trainer(1).test(model, self.batches(model, data), verbose=False)
        assert model.table is not None
        return model.table

    def training_batch(self, model: Recommender, **options: Any) -> SequenceBatch:
        """The first training batch."""
        return next(iter(self.batches(model, **options).train_dataloader()))


def show_events(model: Recommender, data: PreparedDataset) -> None:
    """Show a dataset to a method that reads more of events than batches hold."""
    if isinstance(model, TakesDataset):
        model.take(data)


def quiet_trainer(epochs: int, **options: Any) -> Trainer:
    """A Trainer on the CPU that only trains: no files, no bar, no validation."""
    settings = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **options,
    }
    return Trainer(**settings)


def score_all(model: Recommender, batches: list[EvaluationBatch]) -> Tensor:
    """Scores of all batches, their rows sorted by (user, key)."""
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model.score(batch) for batch in batches])
    users = torch.cat([batch.users for batch in batches])
    keys = torch.cat([batch.key for batch in batches])
    return scores[torch.argsort(users * (int(keys.max()) + 2) + keys)]


def same_state(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two states are equal, bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def same_ranks(first: RankTable, second: RankTable) -> bool:
    """Whether two tables hold the same users, keys and ranks."""
    return all(
        (getattr(first, name) == getattr(second, name)).all() for name in ("user", "key", "rank")
    )
