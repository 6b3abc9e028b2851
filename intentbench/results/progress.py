"""How far a trial is: a small file that its process keeps, for whoever looks on."""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

PROGRESS = "progress.json"
"""Lies in the trial's folder; what it says of an attempt that has ended is where that came to."""


@dataclass(frozen=True)
class TrialProgress:
    """What a running trial says of itself, after each epoch.

    Attributes:
        phase: "starting" (data and model are built), "training", or "testing" (ranks, latency,
            noise).
        epoch: training epochs done.
        max_epochs: epochs at most.
        fewest_left: epochs still to come if the validation metric never improves again.
        most_left: epochs still to come at most.
        metric: the validation metric that chooses the epoch.
        value: what it came to last; None before the first validation.
        best: the best so far; None likewise.
        seconds_per_epoch: mean wall time of an epoch with its validation.
        pid: the process.
        host: the machine.
        began: when this attempt began, in seconds since 1970.
        updated: when this was written, likewise.
    """

    phase: Literal["starting", "training", "testing"] = "starting"
    epoch: int = 0
    max_epochs: int = 0
    fewest_left: int = 0
    most_left: int = 0
    metric: str = ""
    value: float | None = None
    best: float | None = None
    seconds_per_epoch: float = 0.0
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    began: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)

    def seconds_left(self, now: float) -> tuple[float, float] | None:
        """Seconds of training still to come: if nothing improves any more, and at most.

        Args:
            now: seconds since 1970.

        Returns:
            None where it cannot be told: before the first epoch has ended, and after training.
        """
        if self.phase != "training" or not self.epoch:
            return None
        since = max(0.0, now - self.updated)  # the clock may have been set back
        least, most = (
            max(0.0, count * self.seconds_per_epoch - since)
            for count in (self.fewest_left, self.most_left)
        )
        return least, most

    def describe_left(self, now: float) -> str:
        """`seconds_left` for people, as in "40s-5m"; the phase where it cannot be told."""
        if self.phase != "training":
            return self.phase
        if (left := self.seconds_left(now)) is None:
            return ""
        least, most = map(describe_seconds, left)
        return most if least == most else f"{least}-{most}"

    def describe(self, now: float | None = None) -> str:
        """How far the trial is, in one line.

        Args:
            now: seconds since 1970; without it nothing is said of the time left.
        """
        if not self.epoch:
            return self.phase
        parts = [f"epoch {self.epoch}/{self.max_epochs}"]
        if self.value is not None and self.best is not None:
            parts.append(f"{self.metric} {self.value:.4f} (best {self.best:.4f})")
        if self.phase != "training":
            parts.append(self.phase)
        elif now is not None:
            parts.append(f"{self.seconds_per_epoch:.3g} s an epoch")
            parts.append(f"{self.describe_left(now)} left")
        return ", ".join(parts)


def write_progress(folder: Path, progress: TrialProgress) -> None:
    """Write `progress.json`, whole or not at all.

    It only feeds displays: it is not made safe from a power cut, and a disk that does not take it
    stops no trial.
    """
    temporary = folder / f".{PROGRESS}"
    with suppress(OSError):
        temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        temporary.replace(folder / PROGRESS)


def read_progress(folder: Path) -> TrialProgress | None:
    """What a trial says of itself; None where it says nothing, or nothing of this form."""
    try:
        said = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        return TrialProgress(**said) if "pid" in said else None
    except (OSError, ValueError, TypeError):
        return None


def describe_seconds(seconds: float) -> str:
    """A duration in few letters.

    >>> [describe_seconds(s) for s in (0.4, 59.6, 3540, 7500, 180_000)]
    ['0s', '1m', '59m', '2h05m', '2d02h']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h"
