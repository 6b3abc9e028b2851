"""What TensorBoard is told of a trial, so that trials compare in its HPARAMS tab."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from intentbench.results.progress import TrialProgress, write_progress
from intentbench.results.record import TrialRecord

EVENTS = "events"
"""Folder of a trial's events, below the trial's own."""

Plain = bool | int | float | str


@rank_zero_only
def begin_attempt(folder: Path) -> None:
    """Say that an attempt at a trial has begun."""
    write_progress(folder, TrialProgress())


@rank_zero_only
def forget_events(folder: Path) -> None:
    """Remove what an earlier attempt told TensorBoard, where this one does not go on from it."""
    shutil.rmtree(folder / EVENTS, ignore_errors=True)


@rank_zero_only
def log_outcome(logger: Logger | None, record: TrialRecord, step: int) -> None:
    """Write a trial's hyperparameters, test metrics ("test/…") and cost ("cost/…").

    Lightning's `log_hyperparams` writes a description of the experiment into every run, of which
    TensorBoard reads the first alone: arguments that only other methods have, and all metrics but
    one, would not be shown. Without any it gathers both from all runs.

    Args:
        logger: of the trial's Trainer; no other than a TensorBoardLogger is told.
        record: of the trial.
        step: of the last training batch, where curves end.
    """
    if not isinstance(logger, TensorBoardLogger):
        return
    metrics = {f"test/{name}": value for name, value in record.metrics.items()}
    costs = {f"cost/{name}": value for name, value in asdict(record.cost).items()}
    logger.log_metrics({**metrics, **costs}, step)
    summary = hparams_pb(flat_hyperparameters(record), trial_id=record.trial)
    logger.experiment._get_file_writer().add_summary(summary)  # as Lightning does
    logger.finalize("success")


def flat_hyperparameters(record: TrialRecord) -> dict[str, Plain]:
    """What tells a trial from others, as TensorBoard takes it: "arguments/width": 64 and the like.

    Plain values stay what they are; lists and None become JSON.
    """
    blocks = {
        "arguments": record.arguments,
        "data": record.data,
        "training": record.training,
    }
    names = ("dataset", "label", "method", "seed")
    return {name: getattr(record, name) for name in names} | _flatten(blocks)


def _flatten(block: Mapping[str, Any], prefix: str = "") -> dict[str, Plain]:
    found: dict[str, Plain] = {}
    for name, value in block.items():
        if isinstance(value, Mapping):
            found |= _flatten(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = value if isinstance(value, Plain) else json.dumps(value)
    return found
