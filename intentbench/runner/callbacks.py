"""What a trial observes of itself while it trains: recall, epochs, seconds, validations."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from intentbench.metrics.users import SETS, mean_metric
from intentbench.results.progress import TrialProgress, read_progress, write_progress

if TYPE_CHECKING:
    from intentbench.metrics.collection import RankMetric

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
        folder: its `progress.json` is kept up to date, once an epoch.
        monitor: name of the validation metric, without "val/".

    Attributes:
        seconds: wall time of all training epochs.
        epochs: how many there were.
        best: metrics of the best validation.
        best_epoch: its epoch, counted from 0; -1 before the first.
        curve: the monitored metric at each validation of the fit.
        before: seconds of the fit in earlier attempts, where it goes on from one.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        self.folder = folder
        self.monitor = monitor
        self.seconds = 0.0
        self.epochs = 0
        self.best: dict[str, float] = {}
        self.best_epoch = -1
        self.curve: list[float] = []
        self.before = 0.0
        self._started: float | None = None
        self._fit_began = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that training has begun."""
        self._fit_began = time.perf_counter()
        self._tell(trainer, phase="training")

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
        fewest, most = epochs_left(trainer, self.epochs)
        self._tell(
            trainer,
            epoch=self.epochs,
            fewest_left=fewest,
            most_left=most,
            value=self.curve[-1] if self.curve else None,
            best=self.best.get(self.monitor),
            seconds_per_epoch=self._spent() / self.epochs,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on from a checkpoint has to know."""
        return {
            "seconds": self.seconds,
            "epochs": self.epochs,
            "best": dict(self.best),
            "best_epoch": self.best_epoch,
            "curve": list(self.curve),
            "before": self._spent(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that what follows is no training."""
        self._tell(trainer, phase="testing")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the best metrics; of equals the earliest, as `ModelCheckpoint` does."""
        found = validation_metrics(trainer.callback_metrics)
        if trainer.state.fn == "fit":
            self.curve.append(found[self.monitor])
        if found[self.monitor] > self.best.get(self.monitor, -1.0):
            self.best, self.best_epoch = found, trainer.current_epoch

    def _spent(self) -> float:
        return self.before + time.perf_counter() - self._fit_began

    def _tell(self, trainer: Trainer, **changes: Any) -> None:
        if trainer.is_global_zero:
            state = read_progress(self.folder) or TrialProgress()
            known: dict[str, Any] = {"max_epochs": trainer.max_epochs, "metric": self.monitor}
            write_progress(self.folder, replace(state, **known, **changes, updated=time.time()))

    def _stop(self, module: LightningModule) -> None:
        if self._started is not None:
            self.seconds += _now(module) - self._started
            self._started = None


def epochs_left(trainer: Trainer, done: int) -> tuple[int, int]:
    """Epochs still to come: if the monitored metric never improves again, and at most.

    Args:
        trainer: at the end of an epoch.
        done: epochs trained.
    """
    if trainer.should_stop:
        return 0, 0
    most = (trainer.max_epochs or done) - done
    stopping = trainer.early_stopping_callback
    if not isinstance(stopping, EarlyStopping):
        return most, most
    every = trainer.check_val_every_n_epoch or 1
    validations = stopping.patience - stopping.wait_count
    return min(most, validations * every - done % every), most


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
