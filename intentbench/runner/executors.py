"""Trials on this machine: one fresh process each, in slots that survive whatever they do."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator

import torch

from datamodules.errors import RequestError
from intentbench.results.lock import is_locked
from intentbench.results.record import TrialRecord
from intentbench.runner.config import Trial
from intentbench.runner.jobs import Job, Slot, record_failure
from intentbench.runner.progress import Progress
from intentbench.runner.worker import Worker, end_all, group_memory, wait_for

POLL = 0.25
"""Seconds between looks at what the workers do."""


def plan_slots(
    devices: str, trials_per_device: int | None, trials: int, processes: int = 1
) -> list[Slot]:
    """Divide the machine.

    Small models gain little from threads: on the CPU there are as many slots as cores, one thread
    each, or fewer slots with more threads where there are fewer trials than cores.

    Args:
        devices: "auto" (GPUs if there are any), "cpu", or numbers of GPUs as in "0,1".
        trials_per_device: slots of the CPU, or of each GPU (1 when None).
        trials: of the whole benchmark, also those done: a resumed run then has the same threads,
            and so the same rounding.
        processes: that a trial may have: a slot has a GPU for each.

    Raises:
        RequestError: no such device, one named twice, a number below 1, or fewer GPUs than
            processes.
    """
    if trials_per_device is not None and trials_per_device < 1:
        raise RequestError("--trials-per-device: must be at least 1")
    cores = _usable_cores()
    names = _device_names(devices)
    if names and len(names) < processes:
        raise RequestError(
            f"training.processes: {processes} processes need as many GPUs, there are {len(names)}; "
            "use fewer, or --devices cpu"
        )
    last = len(names) - processes + 1
    names = [",".join(names[first : first + processes]) for first in range(0, last, processes)]
    per_device = trials_per_device or (1 if names else max(1, cores // processes))
    places = (names or [""]) * per_device  # 0, 1, 0, 1: few trials spread over devices
    places = places[: max(1, trials)]
    threads = max(1, cores // len(places))
    return [Slot(number, name, threads) for number, name in enumerate(places)]


def _device_names(devices: str) -> list[str]:
    """Values of CUDA_VISIBLE_DEVICES, one a GPU; none for the CPU."""
    if devices == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    present = [str(number) for number in range(torch.cuda.device_count())]
    names = [name.strip() for name in visible.split(",")] if visible else present
    if devices == "auto":
        return names[: len(present)]
    chosen = [number.strip() for number in devices.split(",")]
    for number in chosen:
        if number not in present:
            allowed = ", ".join(["auto", "cpu", *present])
            raise RequestError(f"--devices: no device {number!r} here; allowed: {allowed}")
        if chosen.count(number) > 1:
            raise RequestError(
                f"--devices: {number} is named twice; for several trials on a device use "
                "--trials-per-device"
            )
    return [names[int(number)] for number in chosen]


def _usable_cores() -> int:
    """Cores that this process may use, in whole: affinity and a container's share counted."""
    from joblib import cpu_count  # loaded by the runner alone, not in workers

    return max(1, int(cpu_count()))


def run_local(
    jobs: list[Job],
    slots: list[Slot],
    timeout: float | None,
    progress: Progress,
    memory: int | None = None,
) -> Iterator[tuple[Job, TrialRecord]]:
    """Run trials until all have a record; whatever happens to one leaves the others alone.

    A trial that raises, or passes a limit, is recorded as failed. One whose process is lost
    (killed by the system, a crash in native code) is tried once more first.

    Args:
        jobs: what to run, in this order, but for those that wait for another.
        slots: places to run in.
        timeout: seconds a trial, None for no limit.
        progress: told what starts and finishes.
        memory: bytes that a trial's processes may hold together, None for no limit.

    Yields:
        Job and record of each trial as it finishes; all are on disk, except for failures that a
        full disk did not take.
    """
    waiting, elsewhere, lost = deque(jobs), list[Job](), set[Trial]()
    free, running = slots[::-1], list[Worker]()
    try:
        while waiting or running or elsewhere:
            busy = {job.folder for job in [*waiting, *elsewhere]}
            busy |= {worker.job.folder for worker in running}
            for job in [job for job in waiting if job.after not in busy][: len(free)]:
                waiting.remove(job)
                running.append(Worker(job, free.pop()))
                progress.started(job, running[-1].slot.number)
            if running:
                wait_for(running, POLL)
            else:
                time.sleep(POLL)
            progress.tick()
            keep_limits(running, timeout, memory)
            for worker in [worker for worker in running if worker.ended()]:
                running.remove(worker)
                free.append(worker.slot)
                job = worker.job
                record = _outcome(worker, retry=job.trial not in lost)
                progress.finished(job, worker.slot.number, record)
                if record is not None:
                    yield job, record
                elif worker.answered:
                    elsewhere.append(job)
                else:
                    lost.add(job.trial)
                    waiting.append(job)
            ready = [job for job in elsewhere if not is_locked(job.folder)]
            elsewhere = [job for job in elsewhere if job not in ready]
            waiting.extend(ready)
    finally:
        end_all(running)


def keep_limits(running: list[Worker], timeout: float | None, memory: int | None) -> None:
    """Stop the trials that have passed a limit."""
    held = group_memory() if memory and running else {}
    for worker in running:
        if worker.answered or worker.reason:
            continue
        if timeout and worker.seconds > timeout:
            worker.stop(f"took longer than {timeout:g} s")
        elif memory and (used := held.get(worker.pid, 0)) > memory:
            worker.stop(f"held {used / 2**20:.0f} MiB of memory, limit {memory / 2**20:.0f} MiB")


def _outcome(worker: Worker, retry: bool) -> TrialRecord | None:
    """The record of an ended process; None if its trial must be scheduled again."""
    if worker.answered:
        answer: TrialRecord | None = worker.answer
        return answer
    reason = worker.reason
    if not reason:
        if retry:
            return None
        reason = f"its process was lost twice (exit code {worker.exitcode})"
        if worker.exitcode == -signal.SIGKILL:
            reason += "; killed, perhaps for want of memory"
    return record_failure(worker.job, reason)
