"""A trial that was cut short goes on at its last whole epoch.

While a trial trains, `.last.ckpt` in its folder holds all that training goes on from: weights,
Adam's moments, random numbers, what callbacks have counted, and the best epoch's weights so far.
It is written at ends of epochs, no more often than every `EVERY` seconds, and goes once the trial
has its record. With the same code and the same torch on a device of the same kind a resumed
training takes the steps that the other would have taken; where one of these differs it starts anew.
"""

import logging
import time
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from intentbench.results.store import CHECKPOINT, DAMAGED
from intentbench.runner.config import Trial

LAST = ".last.ckpt"
"""The file's name, beside the best epoch's checkpoint; hidden, for it goes nowhere else."""

_NEW = ".last.ckpt.new"

FORMAT = "1"
"""Version of the file."""

EVERY = 120.0
"""Seconds between two writings at least: what a cut costs at most, and an epoch."""

_log = logging.getLogger(__name__)


def describe_conditions(trial: Trial, trainer: Trainer, folder: Path) -> dict[str, str]:
    """What must be the same for a training to go on."""
    return {
        "format": FORMAT,
        "trial": trial.name,
        "code": trial.code,
        "torch": str(torch.__version__),
        "device": trainer.strategy.root_device.type,
        "folder": str(folder.resolve()),  # Lightning knows the best checkpoint by its path
    }


class KeepLast(Checkpoint):
    """Writes `.last.ckpt`.

    It is a checkpoint callback, for these Lightning calls after all others and after the method:
    what it writes holds the counts of the whole epoch. It stands behind `ModelCheckpoint`.

    Args:
        folder: of the trial.
        conditions: see `describe_conditions`.
    """

    def __init__(self, folder: Path, conditions: dict[str, str]) -> None:
        self.folder = folder
        self.conditions = conditions
        self._written = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, unless this was the last epoch or the file is new."""
        over = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if over or time.monotonic() - self._written < EVERY:
            return
        fresh = self.folder / _NEW
        try:
            trainer.save_checkpoint(fresh)
            fresh.replace(self.folder / LAST)
        except (OSError, RuntimeError) as error:  # torch raises either on a full disk
            _log.warning("%s: cannot be written (%s); training goes on", self.folder / LAST, error)
        self._written = time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the conditions, and the best epoch's checkpoint as it stands now.

        The file itself may be replaced by a later epoch before the next writing: weights and
        counts of the same moment have to come back together.
        """
        best = self.folder / CHECKPOINT
        checkpoint["conditions"] = self.conditions
        if best.exists():
            checkpoint["best"] = torch.load(best, map_location="cpu", weights_only=True)


def find_last(folder: Path, conditions: dict[str, str]) -> Path | None:
    """The checkpoint that a trial can go on from, its best epoch's put back beside it; else None.

    Args:
        folder: of the trial.
        conditions: of this attempt.
    """
    path = folder / LAST
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["conditions"]
    except FileNotFoundError:
        return None
    except (*DAMAGED, UnpicklingError) as error:
        _log.warning("%s: cannot be read (%s); training starts anew", path, error)
        return None
    other = [name for name, value in conditions.items() if found.get(name) != value]
    if other:
        _log.warning("%s: of another %s; training starts anew", path, ", ".join(other))
        return None
    if "best" in state:
        torch.save(state["best"], folder / CHECKPOINT)
    _log.warning("goes on after epoch %d", state["epoch"] + 1)
    return path


def forget_last(folder: Path) -> None:
    """Remove what a finished trial needs no more."""
    for name in (LAST, _NEW):
        (folder / name).unlink(missing_ok=True)
