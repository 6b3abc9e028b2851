"""What a person sees of a running grid: a table of slots on a terminal, else a line a trial."""

import json
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from intentbench.results.record import TrialRecord
from intentbench.runner.callbacks import PROGRESS
from intentbench.runner.config import Trial


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
        console: where to write; a terminal gets a live table besides the lines.
        total: trials to run.
        slots: how many run at once.
    """

    console: Console
    total: int
    slots: int
    _finished: int = 0
    _seconds: float = 0.0
    _running: dict[int, tuple[Running, float]] = field(default_factory=dict)
    _live: Live | None = None

    def __enter__(self) -> Self:
        """Show the table, on a terminal."""
        if self.console.is_terminal:
            self._live = Live(self._table(), console=self.console, auto_refresh=False)
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
            self._running.clear()
            self._live.update(Table.grid(), refresh=True)
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
        self._seconds += seconds
        count = f"{self._finished}/{self.total}"
        if record.status == "failed":
            self._print(
                f"FAILED {describe_job(job)} after {seconds:.1f} s [{count}]: {record.reason}"
            )
            return
        name = record.training["monitor"]
        # Not every metric that may be monitored is published on every dataset.
        value = f", {name} {record.metrics[name]:.4f}" if name in record.metrics else ""
        self._print(
            f"done   {describe_job(job)} in {seconds:.1f} s{value} [{count}, {self._remaining()}]"
        )

    def tick(self) -> None:
        """Show how far the running trials are."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _remaining(self) -> str:
        left = self.total - self._finished
        if not left:
            return "all done"
        seconds = left * self._seconds / self._finished / min(self.slots, left)
        return f"about {timedelta(seconds=round(seconds))} left"

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(title=f"{self._finished} of {self.total} trials finished")
        for name in ("slot", "trial", "epoch", "best", "time"):
            table.add_column(name)
        for slot, (job, started) in sorted(self._running.items()):
            epoch, best = _read_progress(job.folder)
            spent = timedelta(seconds=round(time.monotonic() - started))
            table.add_row(str(slot), describe_job(job), epoch, best, str(spent))
        return table


def describe_job(job: Running) -> str:
    """Dataset, row and seed of a trial, for people."""
    trial = job.trial
    return f"{trial.dataset} {trial.label} seed {trial.seed}"


def _read_progress(folder: Path) -> tuple[str, str]:
    """Epoch and best validation so far of a trial, as text."""
    try:
        state = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "", ""
    best = f"{state['metric']} {state['best']:.4f}" if state["best"] is not None else ""
    return f"{state['epoch']}/{state['max_epochs']}", best
