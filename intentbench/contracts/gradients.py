"""Gradients of training steps whose random draws do not depend on how a batch is cut: C16.

Dropout is off and no edge is dropped. What is drawn otherwise is replaced by a pattern along the
last dimension, the same for every row: a row then gets the same masks, noise and negatives whether
it comes alone or in a batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any
from unittest import mock

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from intentbench.contracts.subject import Subject, quiet_trainer
from intentbench.models import DIVISIBLE
from intentbench.models.base import GradientRecommender, Recommender

STEPS = 2
"""The first batch is a full one; the second has what is left."""

SHARE = 0.3
"""Rows of half a batch, of all there are."""

WHOLE = {"cadirec": {"mask_ratio": 1.0}}
"""Arguments of a method that draws among all positions of a batch: here it takes all of them."""


def without_dropout(subject: Subject) -> dict[str, Any]:
    """The arguments that turn off dropout, of neurons and of edges, and draws of a whole batch."""
    names = signature(subject.cls).parameters
    changes: dict[str, Any] = {name: 0.0 for name in names if name.endswith("dropout")}
    if "keep" in names:
        changes["keep"] = 1.0
    if "base_arguments" in names:
        changes["base_arguments"] = {**(subject.card.tiny.get("base_arguments") or {}), "keep": 1.0}
    return changes | WHOLE.get(subject.key, {})


def is_divisible(key: str, cls: type[Recommender]) -> bool:
    """Whether a method says that processes may share its batches."""
    return cls.CARD.gradient and (key in DIVISIBLE or getattr(cls, "divisible", False))


class KeepGradients(Callback):
    """Keeps the gradients of each step, after processes have averaged them."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take away what would make two runs differ in their second step: the first one."""
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 0.0
        assert isinstance(pl_module, GradientRecommender)
        pl_module.learning_rate = 0.0  # methods that set the rate themselves start from it

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy them."""
        named = pl_module.named_parameters()
        self.steps.append({n: p.grad.clone() for n, p in named if p.grad is not None})


def step_gradients(
    subject: Subject, strategy: Strategy | str = "auto", devices: int = 1
) -> list[dict[str, Tensor]]:
    """The gradients of the first steps, at the first weights.

    Args:
        subject: the method.
        strategy: of the Trainer.
        devices: processes.
    """
    model = subject.build(changes=without_dropout(subject))
    rows = subject.batches(model).train_dataloader().sampler.count
    batches = subject.batches(model, batch_size=2 * int(SHARE * rows))
    kept = KeepGradients()
    trainer = quiet_trainer(
        1, strategy=strategy, devices=devices, callbacks=[kept], limit_train_batches=STEPS
    )
    with same_draws():
        trainer.fit(model, batches)
    return kept.steps


@contextmanager
def same_draws() -> Iterator[None]:
    """Replace torch's draws from the global generator, for all rows alike."""
    originals = {name: getattr(torch, name) for name in ("rand", "randn", "randint")}

    def drawn(name: str, *args: Any, **options: Any) -> Tensor:
        found: Tensor = originals[name](*args, **options)
        if options.get("generator") is not None:
            return found
        column = torch.arange(found.shape[-1] if found.ndim > 1 else 1, device=found.device)
        share = ((0.3 + 0.618034 * column) % 1).expand(found.shape)
        if name == "rand":
            return share.to(found.dtype, copy=True)
        if name == "randn":
            return torch.erfinv((2 * share - 1).clamp(-0.99, 0.99)).to(found.dtype, copy=True)
        low, high = (0, int(args[0])) if not isinstance(args[1], int) else args[:2]
        numbers: Tensor = low + share * (high - low)
        return numbers.to(found.dtype, copy=True)

    def like(name: str, tensor: Tensor) -> Tensor:
        return drawn(name, tensor.shape, dtype=tensor.dtype, device=tensor.device)

    with (
        mock.patch.object(torch, "rand", lambda *a, **o: drawn("rand", *a, **o)),
        mock.patch.object(torch, "randn", lambda *a, **o: drawn("randn", *a, **o)),
        mock.patch.object(torch, "randint", lambda *a, **o: drawn("randint", *a, **o)),
        mock.patch.object(torch, "rand_like", lambda t: like("rand", t)),
        mock.patch.object(torch, "randn_like", lambda t: like("randn", t)),
    ):
        yield
