"""C17: settings of the Trainer that every method trained by gradients survives."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.types import SequenceBatch
from intentbench.contracts.gradients import same_draws, without_dropout
from intentbench.contracts.subject import Subject, quiet_trainer
from intentbench.models.base import GradientRecommender
from intentbench.runner.compiled import CompileLoss

STEPS = 2


class Steps(Callback):
    """Sees that gradients are finite at each step of the optimiser, and counts these."""

    def __init__(self) -> None:
        self.count = 0

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradients."""
        self.count += 1
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name


@pytest.mark.contract("C17a")
def test_steps_in_bf16(subject: Subject) -> None:
    assert _steps(subject, precision="bf16-mixed", limit_train_batches=STEPS) == STEPS


@pytest.mark.contract("C17b")
def test_steps_over_several_batches(subject: Subject) -> None:
    found = _steps(subject, accumulate_grad_batches=2, limit_train_batches=2 * STEPS)
    assert found == STEPS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.contract("C17c")
def test_compiled_loss_equals_the_plain_one(subject: Subject) -> None:
    """Over three batches of other shapes, and the gradients that they come to."""
    if not subject.card.gradient:
        pytest.skip("trained without gradients")
    torch.compiler.reset()
    model = subject.prepared(changes=without_dropout(subject))
    assert isinstance(model, GradientRecommender)
    model.eval()
    batches = list(subject.batches(model).train_dataloader())[:3]
    with same_draws():
        plain, slopes = _losses(model, batches)
        CompileLoss().on_fit_start(Trainer(logger=False), model)
        compiled, found = _losses(model, batches)
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert found.keys() == slopes.keys()
    for name, slope in slopes.items():
        assert float((found[name] - slope).norm()) <= 1e-3 * float(slope.norm()) + 1e-6, name


def _losses(
    model: GradientRecommender, batches: list[SequenceBatch]
) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of batches, and the gradient of their sum where there is one."""
    model.zero_grad()
    totals = [model.loss(batch)["total"] for batch in batches]
    torch.stack(totals).sum().backward()  # type: ignore[no-untyped-call]  # in torch
    named = model.named_parameters()
    return torch.stack(totals).tolist(), {
        name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None
    }


def _steps(subject: Subject, **options: object) -> int:
    """How many steps an epoch took; its loss must be finite."""
    if not subject.card.gradient:
        pytest.skip("trained without gradients")
    model, steps = subject.build(), Steps()
    trainer = quiet_trainer(1, callbacks=[steps], **options)
    trainer.fit(model, subject.batches(model))
    assert torch.as_tensor(trainer.callback_metrics["train/total"]).isfinite()
    return steps.count
