"""The training of a trial, up to its best epoch."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset, load_prepared
from datamodules.sequence import SequenceDataModule
from intentbench.models.base import Recommender
from intentbench.models.pretrained import PretrainedRecommender
from intentbench.models.takes import TakesDataset
from intentbench.results.store import (
    CHECKPOINT,
    read_record,
)
from intentbench.runner.build import build_data, build_model, build_trainer
from intentbench.runner.callbacks import EpochWatch, validation_metrics
from intentbench.runner.config import Trial, read_config
from intentbench.runner.events import begin_attempt, forget_events
from intentbench.runner.resuming import KeepLast, describe_conditions, find_last
from intentbench.runner.signs import SignWatch

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained trial, at its best epoch; the test part has not been looked at.

    Attributes:
        trial: what it is.
        config: as read.
        data: its data module.
        model: trained.
        trainer: that trained it.
        validation: the best epoch's validation means.
        earlier: seconds that the model took that it started from.
    """

    trial: Trial
    config: dict[str, Any]
    data: SequenceDataModule
    model: Recommender
    trainer: Trainer
    validation: dict[str, float]
    earlier: float


def fit_trial(
    folder: Path,
    prepared: Path | None = None,
    accelerator: str = "auto",
    base: Path | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> Fitted:
    """Train the trial whose `config.yaml` lies in a folder, up to its best epoch.

    Args:
        folder: of the trial.
        prepared: folder of the prepared dataset; None looks it up by name.
        accelerator: "cpu", "gpu" or "auto".
        base: folder of the trial that it starts from; None finds it among the runs.
        callbacks: called after those of every trial.
        resume: go on from where an earlier attempt was cut short, and see to it that a later one
            can; see `intentbench.runner.resuming`.

    Raises:
        RequestError: the dataset, or a text, is not the one that the trial is named for.
        Exception: whatever the method raises.
    """
    begin_attempt(folder)
    config = read_config(folder)
    trial = Trial.from_config(config)
    seed_everything(trial.seed, workers=True, verbose=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
    data = build_data(config, load_prepared(prepared) if prepared else None)
    if data.dataset.fingerprint != trial.fingerprint:
        raise RequestError(
            f"{trial.dataset}: prepared data has fingerprint {data.dataset.fingerprint[:16]}, the "
            f"trial is about {trial.fingerprint[:16]}; run the benchmark again to make new trials"
        )
    model = build_model(config)
    if isinstance(model, TakesDataset):
        _check_reads(model, trial, data.dataset)
    earlier = 0.0
    if trial.pretrained:
        earlier = _load_pretrained(model, trial, base or folder.parents[1] / trial.pretrained)
    elif isinstance(model, PretrainedRecommender) and model.frozen:
        _log.warning("no `pretrained` row: the encoder stays as it was drawn, at random")
    trainer = build_trainer(config, folder, accelerator)
    every: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning
    every.extend(callbacks)
    last = None
    if resume:
        conditions = describe_conditions(trial, trainer, folder)
        last = find_last(folder, conditions)
        every.append(KeepLast(folder, conditions))
    if last is None:
        forget_events(folder)
    validation = train_to_best(trainer, model, data, folder, last)
    return Fitted(trial, config, data, model, trainer, validation, earlier)


def _check_reads(model: TakesDataset, trial: Trial, dataset: PreparedDataset) -> None:
    """Refuse texts that have changed since the trial got its name."""
    found = model.reads(dataset, trial.arguments)
    if trial.reads not in ("", found):
        raise RequestError(
            f"{trial.label}: reads {found}, the trial is about {trial.reads}; run the benchmark "
            "again to make new trials"
        )


def _load_pretrained(model: Recommender, trial: Trial, place: Path) -> float:
    """Give the method the checkpoint that it starts from; the seconds that making it took."""
    record = read_record(place)
    if record is None or record.status != "done" or not (place / CHECKPOINT).exists():
        raise RequestError(f"{trial.label}: starts from {trial.pretrained}, which has not finished")
    if not isinstance(model, PretrainedRecommender):
        raise RequestError(f"{trial.label}: {trial.method} starts from no other method")
    state = torch.load(place / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
    model.load_encoder(state)
    return record.cost.seconds


def find_watches(trainer: Trainer) -> tuple[EpochWatch, SignWatch]:
    """The callbacks that watch every trial."""
    callbacks: list[object] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning
    epochs = next(c for c in callbacks if isinstance(c, EpochWatch))
    signs = next(c for c in callbacks if isinstance(c, SignWatch))
    return epochs, signs


def train_to_best(
    trainer: Trainer,
    model: Recommender,
    data: SequenceDataModule,
    folder: Path,
    last: Path | None = None,
) -> dict[str, float]:
    """Train, return to the best epoch, and give its validation metrics.

    Args:
        trainer: of `build_trainer`.
        model: untrained.
        data: what it learns from and is validated on.
        folder: where the best checkpoint lies.
        last: the checkpoint to go on from; None begins.
    """
    trainer.fit(model, data, ckpt_path=last, weights_only=True)
    checkpoint = folder / CHECKPOINT
    if best := find_watches(trainer)[0].best:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["state_dict"])
        return best
    # A method without gradient steps ends its only epoch before Lightning would validate.
    trainer.validate(model, data, verbose=False)
    trainer.save_checkpoint(checkpoint, weights_only=True)
    return validation_metrics(trainer.callback_metrics)
