"""Trials on this machine: one fresh process each, in a pool that survives whatever they do."""

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress

import torch
from pebble import ProcessExpired, ProcessPool

from datamodules.errors import RequestError
from intentbench.results.record import TrialRecord
from intentbench.results.store import write_record
from intentbench.runner.config import Trial
from intentbench.runner.forkserver import start_forkserver
from intentbench.runner.jobs import Job, Slot, describe_error, is_locked, run_in_slot
from intentbench.runner.progress import Progress

POLL = 0.25
"""Seconds between looks at what the workers do."""


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
            ready = [job for job in elsewhere if not is_locked(job.folder)]
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
