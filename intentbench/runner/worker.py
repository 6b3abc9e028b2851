"""A trial in a process of its own, which can be stopped with all that it started.

The process leads a process group: a signal from the keyboard does not reach it, and killing the
group ends the processes of the trial too, whatever they ignore.
"""

import fcntl
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from intentbench.runner.forkserver import start_forkserver
from intentbench.runner.jobs import Job, Slot, run_in_slot

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

GRACE = 10.0
"""Seconds that a process may take to end after its trial has ended."""


class Worker:
    """A process that runs one trial; it starts at once.

    Args:
        job: what to run.
        slot: where.
        target: what runs it there, and gives the answer.

    Attributes:
        job: what runs.
        slot: where.
        answered: whether the trial has ended with an answer.
        answer: the record, or None if another runner is busy with the trial; of another target
            whatever it returned.
        reason: why the process was stopped before, "" where it was not.
    """

    def __init__(
        self, job: Job, slot: Slot, target: Callable[[Job, Slot], Any] = run_in_slot
    ) -> None:
        self.job = job
        self.slot = slot
        self.answered = False
        self.answer: Any = None
        self.reason = ""
        self._since = time.monotonic()  # no change of the clock moves it
        self._silent = False
        context = start_forkserver()
        self._results, sender = context.Pipe(duplex=False)
        # no daemon: a trial may have processes of its own
        self._process: BaseProcess = context.Process(target=_work, args=(sender, target, job, slot))
        try:
            self._process.start()
        except BaseException:  # interrupted half-way: nobody would know of the process
            if self._process.pid is not None:
                self.kill()
            raise
        sender.close()

    @property
    def pid(self) -> int:
        """Of the process and of its group."""
        assert self._process.pid is not None  # noqa: S101  # it has started
        return self._process.pid

    @property
    def seconds(self) -> float:
        """Since it started, or since it answered or can no longer."""
        return time.monotonic() - self._since

    @property
    def exitcode(self) -> int | None:
        """Of the process; the negative number of the signal that ended it."""
        return self._process.exitcode

    def handles(self) -> list[int | Connection]:
        """What becomes ready when there is something to look at."""
        if self.answered or self._silent:
            return [self._process.sentinel]
        return [self._process.sentinel, self._results]

    def ended(self) -> bool:
        """Whether the process has ended; takes its answer, and leaves nothing of it behind."""
        alive = self._process.is_alive()
        if not (self.answered or self._silent):
            try:
                if self._results.poll():
                    self.answer = self._results.recv()
                    self.answered = True
                    self._since = time.monotonic()
            except (EOFError, OSError):  # lost, perhaps while it answered: it will not any more
                self._silent = True
                self._since = time.monotonic()
        if alive and (self.answered or self._silent) and self.seconds > GRACE:
            self.kill()
        if not alive:
            self.kill()  # processes that it left behind
            self._results.close()
        return not alive

    def stop(self, reason: str) -> None:
        """End the trial, which has then failed."""
        self.reason = reason
        self.kill()

    def kill(self) -> None:
        """End the process and its group, without asking."""
        self._process.kill()
        with suppress(ProcessLookupError, PermissionError):  # gone; macOS: gone, not yet reaped
            os.killpg(self.pid, signal.SIGKILL)


def wait_for(workers: list[Worker], seconds: float) -> None:
    """Wait until a process has something to say, and no longer than stated."""
    wait([handle for worker in workers for handle in worker.handles()], seconds)


def end_all(workers: list[Worker]) -> None:
    """End all processes and wait for that."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        while not worker.ended():
            wait_for([worker], GRACE)


def group_memory(proc: Path = Path("/proc")) -> dict[int, int]:
    """Resident memory of every process group of this machine, bytes.

    Pages that processes share count for each of them.

    Args:
        proc: where the kernel (Linux) tells of its processes.
    """
    page, found = os.sysconf("SC_PAGE_SIZE"), dict[int, int]()
    for path in proc.glob("[0-9]*/stat"):
        try:
            # "pid (name) state ppid pgrp …"; a name may hold anything
            fields = path.read_bytes().rpartition(b") ")[2].split()
        except OSError:  # has ended meanwhile
            continue
        group, resident = int(fields[2]), int(fields[21])
        found[group] = found.get(group, 0) + resident * page
    return found


def _work(sender: Connection, target: Callable[[Job, Slot], Any], job: Job, slot: Slot) -> None:
    """What the process does."""
    os.setsid()
    _end_with_runner()
    sender.send(target(job, slot))


def _end_with_runner() -> None:
    """See to it that this process and its group end when the runner does, however it ends."""
    runner = parent_process()
    assert runner is not None  # noqa: S101  # this is a worker
    if hasattr(fcntl, "F_SETSIG"):  # Linux: the kernel kills, even where native code never returns
        fcntl.fcntl(runner.sentinel, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(runner.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(runner.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(runner.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
        if wait([runner.sentinel], 0):  # it ended before
            os.killpg(0, signal.SIGKILL)
    else:
        Thread(target=_kill_after, args=(runner.sentinel,), daemon=True).start()


def _kill_after(sentinel: int) -> None:
    wait([sentinel])
    os.killpg(0, signal.SIGKILL)
