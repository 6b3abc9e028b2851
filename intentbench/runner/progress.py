"""What a person sees of a running grid: a table of slots on a terminal, else plain lines."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from intentbench.results.progress import TrialProgress, describe_seconds, read_progress
from intentbench.results.record import TrialRecord
from intentbench.runner.config import Trial

REFRESH = 0.25
"""Seconds between two pictures of the table, at least."""

HEARTBEAT = 60.0
"""Seconds after which a log hears of the running trials again."""


class Running(Protocol):
    """What progress needs to know of a job."""

    @property
    def trial(self) -> Trial:
        """What runs."""

    @property
    def folder(self) -> Path:
        """Where it runs."""


@dataclass
class Progress:
    """Follows a grid; a context manager.

    Args:
        console: where to write plain lines; a terminal gets a live table besides.
        total: trials to run.
        slots: how many run at once.
    """

    console: Console
    total: int
    slots: int
    _finished: int = 0
    _failed: int = 0
    _failure: str = ""
    _seconds: list[float] = field(default_factory=list)
    _running: dict[int, tuple[Running, float]] = field(default_factory=dict)
    _live: Live | None = None
    _shown: float = -REFRESH
    _told: float = 0.0

    def __enter__(self) -> Self:
        """Show the table, on a terminal."""
        self._told = time.monotonic()
        # rich also calls a file a terminal where FORCE_COLOR is set, as in CI
        if self.console.is_interactive and self.console.file.isatty():
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the table."""
        if self._live is not None:
            self._live.stop()

    def started(self, job: Running, slot: int) -> None:
        """A trial has been given to a slot."""
        self._running[slot] = (job, time.monotonic())
        if self._live is None:
            self._print(f"start  {describe_job(job)}")

    def finished(self, job: Running, slot: int, record: TrialRecord | None) -> None:
        """A trial has left its slot: with a record, or (None) to be run again later."""
        _, started = self._running.pop(slot)
        seconds = time.monotonic() - started
        if record is None:
            self._print(f"later  {describe_job(job)}: process lost, or busy in another runner")
            return
        self._finished += 1
        if record.status == "failed":
            self._failed += 1
            self._failure = f"{describe_job(job)}: {record.reason}"
            self._print(
                f"FAILED {describe_job(job)} after {seconds:.1f} s [{self._count()}]: "
                f"{record.reason}"
            )
            return
        if 2 * seconds >= record.cost.seconds:  # else another runner made it
            self._seconds.append(seconds)
        name = record.training["monitor"]
        # Not every metric that may be monitored is published on every dataset.
        value = f", {name} {record.metrics[name]:.4f}" if name in record.metrics else ""
        self._print(f"done   {describe_job(job)} in {seconds:.1f} s{value} [{self._count()}]")

    def tick(self) -> None:
        """Show how far the running trials are."""
        now = time.monotonic()
        if self._live is not None:
            if now - self._shown >= REFRESH:
                self._shown = now
                self._live.update(self._picture(), refresh=True)
        elif now - self._told >= HEARTBEAT:
            self._told = now
            for slot, (job, started) in sorted(self._running.items()):
                state = read_progress(job.folder)
                reached = state.describe(time.time()) if state else "starting"
                spent = describe_seconds(now - started)
                self._print(
                    f"at     {describe_job(job)}, slot {slot} for {spent}: {reached} "
                    f"[{self._count()}]"
                )

    def _count(self) -> str:
        failed = [f"{self._failed} failed"] if self._failed else []
        return ", ".join([f"{self._finished}/{self.total}", *failed, self._remaining()])

    def _remaining(self) -> str:
        """Time left of the grid, in words.

        A trial to come takes as long as those that are done did on average. As long as none is,
        those that run say how long they take at most.
        """
        if self._finished == self.total:
            return "all done"
        clock, now = time.monotonic(), time.time()
        spent, bounds = [], []
        for job, started in self._running.values():
            state = read_progress(job.folder)
            spent.append(clock - started)
            bounds.append(state.seconds_left(now) if state else None)
        known = [(s, b) for s, b in zip(spent, bounds, strict=True) if b is not None]
        if not self._seconds and not known:
            return "time left unknown"
        seconds = self._seconds or [before + most for before, (_, most) in known]
        mean = sum(seconds) / len(seconds)
        left = [
            max(mean - s, 0.0) if b is None else min(max(mean - s, b[0]), b[1])
            for s, b in zip(spent, bounds, strict=True)
        ]
        coming = self.total - self._finished - len(left)
        wall = max((sum(left) + coming * mean) / min(self.slots, coming + len(left)), *left, 0.0)
        return f"{'about' if self._seconds else 'at most'} {describe_seconds(wall)} left"

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.update(self._picture())  # drawn again below the line
        self.console.print(line)

    def _picture(self) -> Group:
        lines = [Text(f"trials {self._count()}", style="bold", no_wrap=True, overflow="ellipsis")]
        if self._failure:
            text = f"last failure: {self._failure}"
            lines.append(Text(text, style="red", no_wrap=True, overflow="ellipsis"))
        return Group(*lines, self._table())

    def _table(self) -> Table:
        """A row a slot; of names, which may be long, as much as fits."""
        states = {slot: read_progress(job.folder) for slot, (job, _) in self._running.items()}
        metrics = {state.metric for state in states.values() if state and state.metric}
        metric = metrics.pop() if len(metrics) == 1 else "now"
        numbers = {"seed": 4, "epoch": 7, metric: 7, "best": 6, "s/epoch": 7, "left": 8}
        table = Table(
            Column("slot", justify="right"),
            Column("dataset"),
            Column("row"),
            *(
                Column(name, justify="right", no_wrap=True, min_width=width)
                for name, width in numbers.items()  # columns that jump are hard to read
            ),
            box=None,
            pad_edge=False,
            collapse_padding=True,
        )
        now = time.time()
        for slot, (job, _) in sorted(self._running.items()):
            names = [
                Text(name, no_wrap=True, overflow="ellipsis")
                for name in (job.trial.dataset, job.trial.label)
            ]
            cells = _describe_epochs(states[slot], now)
            table.add_row(str(slot), *names, str(job.trial.seed), *cells)
        return table


def describe_job(job: Running) -> str:
    """Dataset, row and seed of a trial, for people."""
    trial = job.trial
    return f"{trial.dataset} {trial.label} seed {trial.seed}"


def _describe_epochs(state: TrialProgress | None, now: float) -> tuple[str, str, str, str, str]:
    """Cells of a running trial: epoch, metric, best, seconds of an epoch, time left."""
    if state is None:
        return "", "", "", "", "starting"
    return (
        f"{state.epoch}/{state.max_epochs}" if state.max_epochs else "",
        f"{state.value:.4f}" if state.value is not None else "",
        f"{state.best:.4f}" if state.best is not None else "",
        f"{state.seconds_per_epoch:.3g}" if state.epoch else "",
        state.describe_left(now),
    )
