"""An honest toy method of each kind, and offenders, each against one check."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from datamodules.types import PAD, Batch, EvaluationBatch, SequenceBatch, TrainingData
from intentbench.models.base import ClosedFormRecommender, GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.grouping import encode_groups

CARD = Card(
    title="Last item",
    paper="a toy",
    code="",
    tiny={"width": 8, "learning_rate": 0.05},
    first_loss="log_items",
)


class LastItem(GradientRecommender):
    """Scores what tends to follow the last item."""

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 16,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.inputs = nn.Embedding(n_items + 1, width)
        self.outputs = nn.Embedding(n_items + 1, width)
        for table in (self.inputs, self.outputs):
            nn.init.normal_(table.weight, std=0.1)

    def states(self, items: Tensor) -> Tensor:
        states: Tensor = self.inputs(items)
        return states

    def encode(self, batch: Batch) -> Tensor:
        return encode_groups(batch, self.states)[batch.select]

    def item_table(self) -> Tensor:
        return self.outputs.weight

    def logits(self, batch: Batch) -> Tensor:
        logits = self.encode(batch) @ self.item_table().T
        logits[:, PAD] = -torch.inf
        return logits

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return {"total": cross_entropy(self.logits(batch), batch.labels)}


class Counts(ClosedFormRecommender):
    """Scores by training counts."""

    CARD = Card("Counts", "a toy", "", tiny={}, gradient=False, deterministic=True)

    def __init__(self, n_items: int, n_users: int) -> None:
        super().__init__(n_items, n_users)
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(n_items + 1))

    def prepare(self, training: TrainingData) -> None:
        self.counts = torch.bincount(training.items, minlength=self.n_items + 1).float()
        self.counts[PAD] = -torch.inf

    def score(self, batch: EvaluationBatch) -> Tensor:
        return self.counts.repeat(len(batch.users), 1)


# C1, C2, C3 -----------------------------------------------------------------------------------


class PerCent(LastItem):
    CARD = replace(CARD, published=(Published("synthetic", "ndcg@10", 4.5, "a table"),))


class Misspelt(LastItem):
    """Its key is `mis_spelled`."""


class Untyped(LastItem):
    def __init__(self, n_items: int, n_users: int, width=8, learning_rate: float = 1e-2) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 (the offence)
        super().__init__(n_items, n_users, width, learning_rate)


class DeadArgument(LastItem):
    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 8,
        temperature: float = 1.0,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(n_items, n_users, width, learning_rate)
        self.temperature = temperature


# C4, C5 ---------------------------------------------------------------------------------------


class ScoresPadding(LastItem):
    def score(self, batch: EvaluationBatch) -> Tensor:
        return self.encode(batch) @ self.item_table().T


class NothingKnown(LastItem):
    """NaN where the history is empty: a mean over no items."""

    def encode(self, batch: Batch) -> Tensor:
        if isinstance(batch, SequenceBatch):
            return super().encode(batch)
        summed = (self.inputs(batch.items) * (batch.items != PAD)[:, :, None]).sum(1)
        mean: Tensor = summed / batch.lengths[:, None]
        return mean


class RecommendsHistory(LastItem):
    def predict_step(
        self, batch: EvaluationBatch, batch_idx: int, k: int = 20
    ) -> dict[str, Tensor]:
        best = self.score(batch).topk(k)
        return {"users": batch.users, "items": best.indices, "scores": best.values}


class BatchMean(LastItem):
    """Centres the queries of a batch."""

    def encode(self, batch: Batch) -> Tensor:
        queries = super().encode(batch)
        return queries - queries.mean(0)


class ReadsPadding(LastItem):
    """Takes the mean over the width of the batch, padding and all."""

    def encode(self, batch: Batch) -> Tensor:
        mean: Tensor = self.inputs(batch.items).mean(1)
        rows = batch.rows if isinstance(batch, SequenceBatch) else slice(None)
        return super().encode(batch) + mean[rows]


class PaddedLoss(LastItem):
    """Divides the loss by the cells of the batch, padding and all."""

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        total = super().loss(batch)["total"] * len(batch.labels) / batch.items.numel()
        return {"total": total}


class UserRow(LastItem):
    """Prefers the item whose number is the user's row, and does not say so."""

    def score(self, batch: EvaluationBatch) -> Tensor:
        scores = super().score(batch)
        scores[torch.arange(len(scores)), 1 + batch.users % self.n_items] += 1
        return scores


# C6, C7 ---------------------------------------------------------------------------------------


class SeesTarget(LastItem):
    def score(self, batch: EvaluationBatch) -> Tensor:
        scores = super().score(batch)
        scores[torch.arange(len(scores)), batch.target] += 1
        scores[:, PAD] = -torch.inf
        return scores


class CountsHeldOut(Counts):
    """Counts all events of the dataset, not those it is given."""

    def prepare(self, training: TrainingData) -> None:
        dataset = self.trainer.datamodule.dataset  # type: ignore[attr-defined]  # Lightning sets it
        super().prepare(TrainingData(dataset.items.long(), dataset.offsets, dataset.n_items))


class SeesLaterInputs(LastItem):
    def states(self, items: Tensor) -> Tensor:
        states = super().states(items)
        return states + states.mean(1, keepdim=True)


class DrawsWhileScoring(LastItem):
    def score(self, batch: EvaluationBatch) -> Tensor:
        torch.rand(())
        return super().score(batch)


class ChangesBatch(LastItem):
    def encode(self, batch: Batch) -> Tensor:
        batch.users.zero_()
        return super().encode(batch)


class CountsCalls(LastItem):
    def __init__(
        self, n_items: int, n_users: int, width: int = 8, learning_rate: float = 0.01
    ) -> None:
        super().__init__(n_items, n_users, width, learning_rate)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def score(self, batch: EvaluationBatch) -> Tensor:
        self.calls += 1
        return super().score(batch)


# C8, C9 ---------------------------------------------------------------------------------------


class UnusedParameter(LastItem):
    def __init__(
        self, n_items: int, n_users: int, width: int = 8, learning_rate: float = 0.01
    ) -> None:
        super().__init__(n_items, n_users, width, learning_rate)
        self.unused = nn.Parameter(torch.zeros(width))


class InfiniteGradient(LastItem):
    """Adds |x|^1/2 at x = 0, where its slope is infinite."""

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        zeros = self.inputs.weight[PAD] - self.inputs.weight[PAD]
        return {"total": super().loss(batch)["total"] + zeros.abs().sqrt().sum()}


class FrozenInName(LastItem):
    CARD = replace(CARD, frozen=("outputs.weight",))


class SumsLoss(LastItem):
    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return {"total": super().loss(batch)["total"] * len(batch.labels)}


class LearnsNothing(LastItem):
    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return {"total": cross_entropy(self.logits(batch), batch.labels.roll(1))}


# C10, C11, C12 --------------------------------------------------------------------------------


class Unseeded(LastItem):
    def __init__(
        self, n_items: int, n_users: int, width: int = 8, learning_rate: float = 0.01
    ) -> None:
        super().__init__(n_items, n_users, width, learning_rate)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.inputs.weight, generator=generator)


class IgnoresSeed(Counts):
    CARD = replace(Counts.CARD, deterministic=False)


class Accumulates(Counts):
    """Adds the counts of each `prepare` to those of the one before, in an attribute."""

    def prepare(self, training: TrainingData) -> None:
        super().prepare(training)
        self.total = getattr(self, "total", 0) + self.counts
        self.counts = self.total.clone()


class OutsideState(Counts):
    """Keeps its counts in an attribute, which no checkpoint has."""

    def prepare(self, training: TrainingData) -> None:
        super().prepare(training)
        self.kept, self.counts = self.counts, torch.zeros_like(self.counts)

    def score(self, batch: EvaluationBatch) -> Tensor:
        kept: Tensor = getattr(self, "kept", self.counts)
        return kept.repeat(len(batch.users), 1)


class AnnealsOutsideState(LastItem):
    """Counts its steps in an attribute and lets the loss depend on it."""

    steps = 0

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        self.steps += 1
        return {"total": super().loss(batch)["total"] / self.steps}


# C13 ------------------------------------------------------------------------------------------


class FirstBatchOnly(LastItem):
    """Ranks the first batch: all users where one process does it, not where several do."""

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        if batch_idx == 0:
            super().test_step(batch, batch_idx)


def keyed(classes: Iterable[type[Any]]) -> dict[str, type[Any]]:
    return {_snake(cls.__name__): cls for cls in classes}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


METHODS = keyed([LastItem, Counts])
"""The honest ones."""
