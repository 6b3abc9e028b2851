"""What the tests of InDiRec share: planted data, presets, and a method after its first E-step."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.models.indirec import InDiRec

PRESETS: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parents[2] / "benchmarks/models/indirec.yaml").read_text(encoding="utf-8")
)
SMALL: dict[str, Any] = {
    "window": 8,
    "width": 16,
    "blocks": 1,
    "clusters": 4,
    "steps": 4,
    "dropout": 0.2,
}
VIEWS = ("generated", "encoded", "random", "member", "dropout")


@cache
def cycles(**options: Any) -> SequenceDataModule:
    """Fifty users who walk round the cycle of their intent; 4 intents of 10 items."""
    usual: dict[str, Any] = {"layout": "prefix", "window": 8, "targets": "every", "batch_size": 64}
    return SequenceDataModule(planted_cycles(), **usual | options)


def build(data: SequenceDataModule | None = None, **arguments: Any) -> InDiRec:
    """A method after its first E-step, in training mode."""
    data = data or cycles()
    torch.manual_seed(0)
    model = InDiRec(data.n_items, data.n_users, **SMALL | arguments)
    model.prepare(data.training())
    e_step(model)
    return model


@torch.no_grad()
def e_step(model: InDiRec) -> None:
    model.eval()
    model.on_epoch()
    model.train()


def first_batch(data: SequenceDataModule | None = None) -> SequenceBatch:
    return next(iter((data or cycles()).train_dataloader()))


def terms_of(model: InDiRec, batch: SequenceBatch, seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return model.loss(batch)
