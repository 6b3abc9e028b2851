"""A trial as work: where it runs, and what the process that runs it does."""

import faulthandler
import logging
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from intentbench.results.record import TrialRecord
from intentbench.results.store import LOG, read_record, write_record
from intentbench.runner.config import Trial, write_config
from intentbench.runner.trial import run_trial, utc_now

LOCK = ".lock"
"""Held by the process that runs a trial; the system frees it when that process dies."""


@dataclass(frozen=True)
class Slot:
    """A place where one trial at a time runs.

    Attributes:
        number: counted from 0.
        device: value of CUDA_VISIBLE_DEVICES, "" for the CPU.
        threads: torch's threads.
    """

    number: int
    device: str
    threads: int


@dataclass(frozen=True)
class Job:
    """A trial that is to be run.

    Attributes:
        trial: what.
        folder: of the trial.
        prepared: folder of the prepared dataset.
        blank: its record should it fail.
        replaces: `finished` of the record that this run replaces, "" where there is none; any
            other record was made meanwhile by another runner, and stands.
        after: folder of a trial that must have ended before; None for none.
    """

    trial: Trial
    folder: Path
    prepared: Path
    blank: TrialRecord = field(hash=False)
    replaces: str = ""
    after: Path | None = None

    def failed(self, reason: str) -> TrialRecord:
        """The record of a failure."""
        return replace(self.blank, reason=reason, finished=utc_now())


def run_in_slot(job: Job, slot: Slot) -> TrialRecord | None:
    """What a worker process does: take the trial's lock, keep to its slot, run, record.

    Returns:
        The record; None if another runner is busy with the trial.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(job.folder / LOCK, blocking=False):
            found = read_record(job.folder)
            if found is not None and found.finished != job.replaces:
                return found
            _enter(slot, job.folder / LOG)
            try:
                write_config(job.folder, job.trial)
                return run_trial(job.folder, job.prepared, "gpu" if slot.device else "cpu")
            except Exception as error:
                logging.getLogger(__name__).exception("the trial failed")
                record = job.failed(describe_error(error))
                write_record(job.folder, record)
                return record
    except Timeout:
        return None


def describe_error(error: BaseException) -> str:
    """An error in one line: its type, and the first line of its message."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _enter(slot: Slot, log: Path) -> None:
    """Bind this process to its slot and send all that it prints to the trial's log."""
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.device
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # deterministic matrix products on CUDA
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)
    torch.set_num_threads(slot.threads)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, sys.stdout.fileno())
    os.dup2(target, sys.stderr.fileno())
    os.write(target, f"--- attempt of {utc_now()}, {slot}\n".encode())
    os.close(target)
    faulthandler.enable()


def is_locked(folder: Path) -> bool:
    """Whether some process runs the trial of a folder at this moment."""
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True
