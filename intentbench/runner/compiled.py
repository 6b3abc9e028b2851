"""The loss through torch.compile, for `training.compile`."""

from functools import wraps
from typing import TYPE_CHECKING, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.types import SequenceBatch

if TYPE_CHECKING:
    from intentbench.models.base import GradientRecommender


class CompileLoss(Callback):
    """Compiles a method's `loss` for the time of a fit.

    The loss alone: Lightning's hooks around it count and log, which would make the compiler start
    over at each step. Shapes are dynamic, as batches are trimmed to their longest row. A part that
    the compiler cannot do (it fails on some autograd functions with a backward of their own) runs
    as it is, with a line in the log.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the compiled loss in front of the method's own."""
        method = cast("GradientRecommender", pl_module)
        compiled = torch.compile(method.loss, dynamic=True)

        @wraps(method.loss)
        def loss(batch: SequenceBatch) -> dict[str, Tensor]:
            with torch._dynamo.config.patch(suppress_errors=True):
                return compiled(batch)

        method.loss = loss  # type: ignore[method-assign]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it away: a model can be copied and saved again."""
        vars(pl_module).pop("loss", None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Likewise."""
        vars(pl_module).pop("loss", None)
