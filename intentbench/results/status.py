"""What the trials below a folder are up to: read from their folders alone, also while they run."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from datamodules.errors import RequestError
from intentbench.results.lock import LOCK, is_locked
from intentbench.results.progress import TrialProgress, read_progress
from intentbench.results.store import CONFIG, RESULT, RecordError, read_record

State = Literal["done", "failed", "running", "interrupted", "damaged"]
STATES: tuple[State, ...] = ("done", "failed", "running", "interrupted", "damaged")
"""An "interrupted" trial has begun, has no result, and nothing runs it."""


@dataclass(frozen=True)
class TrialStatus:
    """A trial, as its folder shows it.

    Attributes:
        folder: of the trial.
        dataset: the name of the folder above its row's.
        label: of its row.
        seed: None where neither record nor configuration can be read.
        state: one of `STATES`.
        reason: why it failed, or what is wrong with its record; else "".
        progress: how far the attempt is, or came, that has no result yet; None where it did not
            say.
    """

    folder: Path
    dataset: str
    label: str
    seed: int | None
    state: State
    reason: str = ""
    progress: TrialProgress | None = None


def read_status(root: Path) -> list[TrialStatus]:
    """The trials below a folder, in the order of their paths.

    Args:
        root: a run folder, or a part of one down to a trial's own folder.

    Raises:
        RequestError: there is no such folder.
    """
    if not root.is_dir():
        raise RequestError(f"{root}: no such folder of runs")
    found = (_read_trial(folder) for folder in _trial_folders(root.resolve()))
    return [status for status in found if status is not None]


def _trial_folders(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        if {CONFIG, RESULT, LOCK} & set(files):
            folders.clear()  # nothing of a trial's own is another trial
            yield Path(place)
        folders.sort()


def _read_trial(folder: Path) -> TrialStatus | None:
    """One trial; None where a folder holds nothing but a lock that is free."""
    # The lock comes first: a trial that ends meanwhile has its result before it frees its lock.
    running = is_locked(folder)
    state: State = "running" if running else "interrupted"
    seed, reason = None, ""
    try:
        record = read_record(folder)
    except (RecordError, OSError) as error:
        record, reason = None, str(error).partition("; ")[0]
        state = "running" if running else "damaged"
    if record is not None and not running:
        state, seed, reason = record.status, record.seed, record.reason
    elif not running and not reason and not (folder / CONFIG).exists():
        return None
    else:
        seed = _read_seed(folder)
    return TrialStatus(
        folder=folder,
        dataset=folder.parents[1].name,
        label=folder.parent.name,
        seed=seed,
        state=state,
        reason="" if running else reason,
        progress=read_progress(folder) if state in ("running", "interrupted") else None,
    )


def _read_seed(folder: Path) -> int | None:
    try:
        config: Any = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        return int(config["seed_everything"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return None
