"""What a trial observes of itself while it trains: recall, epochs, seconds, validations."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from intentbench.metrics.users import SETS, mean_metric

if TYPE_CHECKING:
    from intentbench.metrics.collection import RankMetric

PROGRESS = "progress.json"
"""The file that tells the parent process how far a trial is."""


RECALLS = ("recall@10", "recall@20")
"""Validation metrics that `UserRecall` adds to those of every method."""


class UserRecall(Callback):
    """Logs the share of a user's validation targets among the first k, mean over users.

    With one target a user it is the hit rate. Lightning calls this hook of callbacks before the
    module's own, which resets the ranks; `compute` keeps its result until then, so processes gather
    their ranks once.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `RECALLS`."""
        table = cast("RankMetric", pl_module.val_ranks).compute()
        for name in RECALLS:
            pl_module.log(f"val/{name}", mean_metric(name, table.user, table.rank, SETS))


class EpochWatch(Callback):
    """Times training epochs without their validation, and keeps what validations came to.

    Args:
        folder: gets `progress.json` after each epoch; no durability, it only feeds the display.
        monitor: name of the validation metric, without "val/".

    Attributes:
        seconds: wall time of all training epochs.
        epochs: how many there were.
        best: metrics of the best validation.
        best_epoch: its epoch, counted from 0; -1 before the first.
        curve: the monitored metric at each validation of the fit.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        self.folder = folder
        self.monitor = monitor
        self.seconds = 0.0
        self.epochs = 0
        self.best: dict[str, float] = {}
        self.best_epoch = -1
        self.curve: list[float] = []
        self._started: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget how far an earlier attempt came."""
        (self.folder / PROGRESS).unlink(missing_ok=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = _now(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: Lightning validates inside the training epoch."""
        self._stop(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock where nothing was validated, and report."""
        self._stop(pl_module)
        self.epochs += 1
        state = {
            "epoch": self.epochs,
            "max_epochs": trainer.max_epochs,
            "metric": self.monitor,
            "best": self.best.get(self.monitor),
        }
        temporary = self.folder / f".{PROGRESS}"
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self.folder / PROGRESS)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the best metrics; of equals the earliest, as `ModelCheckpoint` does."""
        found = validation_metrics(trainer.callback_metrics)
        if trainer.state.fn == "fit":
            self.curve.append(found[self.monitor])
        if found[self.monitor] > self.best.get(self.monitor, -1.0):
            self.best, self.best_epoch = found, trainer.current_epoch

    def _stop(self, module: LightningModule) -> None:
        if self._started is not None:
            self.seconds += _now(module) - self._started
            self._started = None


def validation_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """The validation metrics among everything that Lightning logged, without "val/"."""
    return {
        name.removeprefix("val/"): float(value)
        for name, value in metrics.items()
        if name.startswith("val/")
    }


def _now(module: LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()
