"""A trial as work: where it runs, and what the process that runs it does."""

import faulthandler
import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from zipfile import ZipFile

import torch
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

from datamodules.errors import RequestError
from intentbench.results.lock import LOCK
from intentbench.results.printable import printable
from intentbench.results.record import TrialRecord
from intentbench.results.store import (
    DAMAGED,
    LOG,
    NOISE_RANKS,
    RANKS,
    RESULT,
    RecordError,
    load_noise_ranks,
    load_ranks,
    read_record,
    write_record,
)
from intentbench.runner.config import Trial, write_config
from intentbench.runner.distributed import LostProcessError
from intentbench.runner.trial import run_trial, utc_now


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
        return replace(self.blank, reason=printable(reason), finished=utc_now())


def run_in_slot(job: Job, slot: Slot) -> TrialRecord | None:
    """What a worker process does: take the trial's lock, keep to its slot, run, record.

    Returns:
        The record; None if another runner is busy with the trial.
    """
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(job.folder / LOCK, blocking=False):
            try:
                found = read_finished(job.folder)
            except RequestError:
                found = None
                set_aside(job.folder)
            if found is not None and found.finished != job.replaces:
                return found
            # checkpoint and ranks are about to change: the old record would be a wrong one
            (job.folder / RESULT).unlink(missing_ok=True)
            try:
                enter_slot(slot, job.folder / LOG)
                write_config(job.folder, job.trial)
                return run_trial(job.folder, job.prepared, "gpu" if slot.device else "cpu")
            except LostProcessError as error:  # this process is lost likewise: tried once more
                logging.getLogger(__name__).error("%s", error)
                os.kill(os.getpid(), error.signal)
                raise
            except Exception as error:
                logging.getLogger(__name__).exception("the trial failed")
                return record_failure(job, describe_error(error))
    except Timeout:
        return None
    except OSError as error:  # the folder cannot be made or locked
        return record_failure(job, describe_error(error))


def record_failure(job: Job, reason: str) -> TrialRecord:
    """Record that a trial failed, unless it recorded itself before it was lost.

    A full disk does not take the record: then the run's exit status alone tells.

    Args:
        job: what was run.
        reason: in one line; see `describe_error`.

    Returns:
        The record of the trial.
    """
    with suppress(RecordError, OSError):
        found = read_record(job.folder)
        if found is not None and found.finished != job.replaces:
            return found
    record = job.failed(reason)
    with suppress(OSError):
        write_record(job.folder, record)
    return record


def read_finished(folder: Path) -> TrialRecord | None:
    """The record of a trial, None where it has not finished.

    Raises:
        RequestError: the record or the ranks beside it are damaged, or the record is another
            trial's.
    """
    record = read_record(folder)
    if record is None:
        return None
    if record.trial != folder.name:
        raise RecordError(f"{folder / RESULT}: is the record of trial {record.trial}")
    if record.status == "done":
        load_ranks(folder)
        if record.noise:
            load_noise_ranks(folder)
    return record


def set_aside(folder: Path) -> None:
    """Keep what is damaged beside what will replace it, as `result.json.damaged` and the like."""
    for name in (RESULT, RANKS, NOISE_RANKS):
        with suppress(FileNotFoundError):
            (folder / name).replace(folder / f"{name}.damaged")


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint, a zip file, is there and every part of it fits its checksum."""
    try:
        with ZipFile(checkpoint) as parts:
            return parts.testzip() is None
    except DAMAGED:
        return False


def describe_error(error: BaseException) -> str:
    """An error in one line: its type, and the first line of its message."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def enter_slot(slot: Slot, log: Path) -> None:
    """Bind this process to its slot and send all that it prints to the trial's log."""
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.device
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # deterministic matrix products on CUDA
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)
    torch.set_num_threads(slot.threads)
    threadpool_limits(slot.threads, user_api="blas")  # what NumPy and SciPy have loaded already
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, sys.stdout.fileno())
    os.dup2(target, sys.stderr.fileno())
    os.write(target, f"--- attempt of {utc_now()}, {slot}\n".encode())
    os.close(target)
    faulthandler.enable()
