"""What the tests of methods around one on the graph share."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import seed_everything
from numpy.typing import NDArray
from torch import Tensor

from datamodules.prepared import PreparedDataset
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import quiet_trainer, same_ranks, same_state
from intentbench.metrics.collection import RankTable
from intentbench.models import load_method, method_table
from intentbench.models.base import Recommender
from intentbench.models.graph import GraphRecommender
from intentbench.models.graph_text import TextGraphRecommender

R = TypeVar("R", bound=Recommender)

BASES = [key for key in ("lightgcn", "sgl", "simgcl", "dccf", "bigcf") if key in method_table()]
"""Methods on the graph."""

NARROW: dict[str, Any] = {"width": 8, "layers": 2, "l2": 1e-3}
"""Arguments that each of them takes."""

TEXTS: dict[str, Any] = {"text": "gaussian", "profile_width": 6}


def pairs(dataset: PreparedDataset | None = None, batch_size: int = 64) -> SequenceDataModule:
    """Training pairs of a small dataset."""
    return SequenceDataModule(dataset or planted_cycles(), layout="pair", batch_size=batch_size)


def first_batch(data: SequenceDataModule) -> SequenceBatch:
    """Its first training batch."""
    return next(iter(data.train_dataloader()))


def build(cls: type[R], seed: int = 0, **arguments: Any) -> R:
    """A method for `pairs`, its weights drawn from a seed."""
    seed_everything(seed, workers=True, verbose=False)
    data = pairs()
    return cls(n_items=data.n_items, n_users=data.n_users, **arguments)


def ready(cls: type[R], **arguments: Any) -> R:
    """The same, shown the texts and the training events."""
    model = build(cls, **arguments)
    if take := getattr(model, "take", None):
        take(pairs().dataset)
    model.prepare(pairs().training())
    return model


def trained(make: Callable[[], R], epochs: int = 2) -> tuple[R, RankTable, dict[str, float]]:
    """A method after a few epochs, its ranks, and the terms of its loss in the last epoch."""
    model, data = make(), pairs()
    trainer = quiet_trainer(epochs)
    trainer.fit(model, data)
    terms = {name: float(value) for name, value in trainer.callback_metrics.items()}
    quiet_trainer(1).test(model, data, verbose=False)
    assert model.table is not None
    return model, model.table, terms


def assert_is_its_base(cls: type[TextGraphRecommender], base: str, **arguments: Any) -> None:
    """Trained alike, an add-on and its base method are equal, bit for bit."""
    given = {"base": base, "base_arguments": NARROW, **TEXTS, **arguments}
    base_cls: Any = load_method(base)
    alone, alone_ranks, alone_terms = trained(lambda: build(base_cls, **NARROW))
    around, around_ranks, around_terms = trained(lambda: build(cls, **given))
    assert around_terms == alone_terms
    assert "train/bpr" in around_terms
    assert same_state(around.base.state_dict(), alone.state_dict())
    assert same_ranks(around_ranks, alone_ranks)


def dense_graph(data: SequenceDataModule) -> NDArray[np.float64]:
    """Â (n, n) of the training pairs."""
    training = data.training()
    n = data.n_users + data.n_items
    joined = np.zeros((n, n))
    users, items = training.users.numpy(), data.n_users - 1 + training.items.numpy()
    joined[users, items] = joined[items, users] = 1
    root = np.sqrt(np.maximum(joined.sum(1), 1))
    dense: NDArray[np.float64] = joined / root[:, None] / root
    return dense


def propagated(data: SequenceDataModule, nodes: Tensor, layers: int) -> Tensor:
    """Σ_l Â^l E⁰ (n, D), in float64."""
    dense = torch.from_numpy(dense_graph(data))
    total = moved = nodes.detach().double()
    for _ in range(layers):
        moved = dense @ moved
        total = total + moved
    return total


def slow_nce(anchor: Tensor, candidates: Tensor, own: int, temperature: float) -> float:
    """InfoNCE of one anchor (D,) with its row of the candidates (C, D)."""
    cosines = [
        float(anchor @ row / (anchor.square().sum() + 1e-8).sqrt() / (row @ row + 1e-8).sqrt())
        for row in candidates
    ]
    masses = np.exp(np.array(cosines) / temperature)
    return float(-np.log(masses[own] / masses.sum()))


def scores_of(model: GraphRecommender[Any] | TextGraphRecommender) -> Tensor:
    """All scores (N, V + 1), as a checkpoint has them."""
    base = model.base if isinstance(model, TextGraphRecommender) else model
    return base.user_table @ base.item_vectors.T
