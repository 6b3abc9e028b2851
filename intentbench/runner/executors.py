"""Trials on this machine: one fresh process each, in a pool that survives whatever they do."""

import faulthandler
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from pebble import ProcessExpired, ProcessPool

from datamodules.errors import RequestError
from intentbench.results.record import TrialRecord
from intentbench.results.store import LOG, read_record, write_record
from intentbench.runner.config import Trial, write_config
from intentbench.runner.forkserver import start_forkserver
from intentbench.runner.progress import Progress
from intentbench.runner.trial import run_trial, utc_now

LOCK = ".lock"
"""Held by the process that runs a trial; the system frees it when that process dies."""

POLL = 0.25
"""Seconds between looks at what the workers do."""


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


def plan_slots(devices: str, trials_per_device: int | None, trials: int) -> list[Slot]:
    """Divide the machine.

    Small models gain little from threads: on the CPU there are as many slots as cores, one thread
    each, or fewer slots with more threads where there are fewer trials than cores.

    Args:
        devices: "auto" (GPUs if there are any), "cpu", or numbers of GPUs as in "0,1".
        trials_per_device: slots of the CPU, or of each GPU (1 when None).
        trials: of the whole benchmark, also those done: a resumed run then has the same threads,
            and so the same rounding.

    Raises:
        RequestError: no such device, or a number below 1.
    """
    if trials_per_device is not None and trials_per_device < 1:
        raise RequestError("--trials-per-device: must be at least 1")
    cores = _usable_cores()
    names = _device_names(devices)
    if names:
        places = names * (trials_per_device or 1)
    else:
        places = [""] * max(1, min(trials_per_device or cores, trials))
    threads = max(1, cores // len(places))
    return [Slot(number, name, threads) for number, name in enumerate(places)]


def _device_names(devices: str) -> list[str]:
    """Values of CUDA_VISIBLE_DEVICES, one a GPU; none for the CPU."""
    if devices == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    present = [str(number) for number in range(torch.cuda.device_count())]
    names = visible.split(",") if visible else present
    if devices == "auto":
        return names[: len(present)]
    chosen = devices.split(",")
    for number in chosen:
        if number not in present:
            allowed = ", ".join(["auto", "cpu", *present])
            raise RequestError(f"--devices: no device {number!r} here; allowed: {allowed}")
    return [names[int(number)] for number in chosen]


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # respects containers and taskset; macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_local(
    jobs: list[Job], slots: list[Slot], timeout: float | None, progress: Progress
) -> Iterator[tuple[Job, TrialRecord]]:
    """Run trials until all have a record; whatever happens to one leaves the others alone.

    A trial that raises or hangs is recorded as failed. One whose process is lost (killed for
    memory, a crash in native code) is tried once more first.

    Args:
        jobs: what to run, in this order, but for those that wait for another.
        slots: places to run in.
        timeout: seconds a trial, None for no limit.
        progress: told what starts and finishes.

    Yields:
        Job and record of each trial as it finishes; all are on disk, except for failures that a
        full disk did not take.
    """
    waiting, elsewhere, lost = deque(jobs), list[Job](), set[Trial]()
    free, running = slots[::-1], dict[Future[TrialRecord | None], tuple[Job, Slot]]()
    pool = ProcessPool(max_workers=len(slots), max_tasks=1, context=start_forkserver())
    try:
        while waiting or running or elsewhere:
            busy = {job.folder for job in [*waiting, *elsewhere]}
            busy |= {job.folder for job, _ in running.values()}
            for job in [job for job in waiting if job.after not in busy][: len(free)]:
                waiting.remove(job)
                slot = free.pop()
                running[pool.schedule(run_in_slot, (job, slot), timeout=timeout)] = job, slot
                progress.started(job, slot.number)
            if running:
                done, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            else:
                time.sleep(POLL)
                done = set()
            progress.tick()
            for future in done:
                job, slot = running.pop(future)
                free.append(slot)
                record = _outcome(future, job, timeout, retry=job.trial not in lost)
                progress.finished(job, slot.number, record)
                if record is not None:
                    yield job, record
                elif isinstance(future.exception(), ProcessExpired):
                    lost.add(job.trial)
                    waiting.append(job)
                else:
                    elsewhere.append(job)
            ready = [job for job in elsewhere if not _is_locked(job.folder)]
            elsewhere = [job for job in elsewhere if job not in ready]
            waiting.extend(ready)
    finally:
        pool.stop()  # type: ignore[no-untyped-call]  # pebble types all but this
        pool.join()


def _outcome(
    future: Future[TrialRecord | None], job: Job, timeout: float | None, retry: bool
) -> TrialRecord | None:
    """The record of a finished process; None if it must be scheduled again."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, ProcessExpired):
        if retry:
            return None
        reason = f"its process was lost twice (exit code {error.exitcode})"
        if error.exitcode == -9:
            reason += "; killed, perhaps for want of memory"
    elif isinstance(error, FutureTimeoutError):
        reason = f"took longer than {timeout:g} s"
    else:
        reason = describe_error(error)
    record = job.failed(reason)
    with suppress(OSError):  # the disk may be full: then the run's exit status alone tells
        write_record(job.folder, record)
    return record


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


def _is_locked(folder: Path) -> bool:
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True
