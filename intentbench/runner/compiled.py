"""The loss through torch.compile, for `training.compile`."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class CompileLoss(Callback):
    """Compiles a method's `loss` for the time of a fit.

    The loss alone: Lightning's hooks around it count and log, which would make the compiler start
    over at each step. Shapes are dynamic, as batches are trimmed to their longest row.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the compiled loss in front of the method's own."""
        pl_module.loss = torch.compile(pl_module.loss, dynamic=True)  # type: ignore[assignment,arg-type]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it away: a model can be copied and saved again."""
        vars(pl_module).pop("loss", None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Likewise."""
        vars(pl_module).pop("loss", None)
