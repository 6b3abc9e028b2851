"""One training of a search, in a process of its own: validation alone, reported as it goes."""

import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from intentbench.results.store import LOG
from intentbench.runner.callbacks import validation_metrics
from intentbench.runner.config import write_config
from intentbench.runner.fit import fit_trial
from intentbench.runner.jobs import Job, Slot, describe_error, enter_slot

PRUNER = MedianPruner(n_startup_trials=5, n_warmup_steps=5, n_min_trials=4)
"""Ends a training whose best validation so far is below the median of the others' at its epoch: not
before the sixth epoch, nor before five trainings have ended by themselves."""


@dataclass(frozen=True)
class Answer:
    """What a training came to.

    Attributes:
        state: how it ended.
        value: the monitored metric on validation at the best epoch; nan without one.
        reason: of a failure, in one line.
        seconds: wall time.
    """

    state: Literal["complete", "pruned", "failed"]
    value: float = math.nan
    reason: str = ""
    seconds: float = 0.0


class PruneWatch(Callback):
    """Reports each validation to a study, and ends the training where the pruner says so.

    Args:
        trial: of the study.
        metric: name of the validation metric, without "val/".
    """

    def __init__(self, trial: optuna.trial.Trial, metric: str) -> None:
        self.trial = trial
        self.metric = metric

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch, counted from 0.

        Raises:
            optuna.TrialPruned: it is not worth going on.
        """
        if trainer.state.fn != "fit":  # methods without epochs are validated once, after the fit
            return
        value = validation_metrics(trainer.callback_metrics)[self.metric]
        self.trial.report(value, step=trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def open_storage(place: str) -> BaseStorage:
    """The storage of studies: a database where the place is a URL, else a journal file."""
    if "://" in place:
        return RDBStorage(place)
    # Optuna's lock is a link to the path that it is given: a relative one may lead nowhere
    return JournalStorage(JournalFileBackend(str(Path(place).resolve())))


def run_attempt(place: str, study: str, trial_id: int, job: Job, slot: Slot) -> Answer:
    """Train what a study asks for; what a worker process does.

    Args:
        place: of the study's storage.
        study: its name.
        trial_id: of the trial in the storage.
        job: the training; `after` is the folder of the trial that it starts from.
        slot: where it runs.

    Returns:
        How it ended: an error is an answer too.
    """
    started = time.perf_counter()
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        enter_slot(slot, job.folder / LOG)
        answer = _train(place, study, trial_id, job, "gpu" if slot.device else "cpu")
    except optuna.TrialPruned:
        answer = Answer("pruned")
    except Exception as error:
        logging.getLogger(__name__).exception("the training failed")
        answer = Answer("failed", reason=describe_error(error))
    return replace(answer, seconds=round(time.perf_counter() - started, 2))


def _train(place: str, study: str, trial_id: int, job: Job, accelerator: str) -> Answer:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    loaded = optuna.load_study(
        study_name=study, storage=open_storage(place), sampler=RandomSampler(0), pruner=PRUNER
    )
    metric = job.trial.training.monitor
    watch = PruneWatch(optuna.trial.Trial(loaded, trial_id), metric)
    write_config(job.folder, job.trial)
    fitted = fit_trial(job.folder, job.prepared, accelerator, job.after, [watch])
    value = fitted.validation[metric]
    if not math.isfinite(value):
        return Answer("failed", reason=f"{metric} on validation is {value}")
    return Answer("complete", value)
