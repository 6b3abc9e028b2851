"""Trials of other run folders among the runs at home: copied whole or not at all, conflicts named.

A trial arrives as it leaves its worker: `result.json` last. What is at home stays unless the caller
prefers otherwise.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.metrics.users import mean_metric
from intentbench.results.lock import LOCK
from intentbench.results.record import TrialRecord
from intentbench.results.store import (
    CHECKPOINT,
    RANKS,
    RESULT,
    RecordError,
    load_noise_ranks,
    load_ranks,
    read_record,
    trial_folder,
    write_atomic,
)

Integers = NDArray[np.integer]
Preference = Literal["home", "theirs", "newest"]

TOLERANCE = 1e-9
"""By how much a record's metric may differ from that of its ranks: sums round by version."""


@dataclass
class Merged:
    """What came of a merge.

    Attributes:
        counts: of "copied", "replaced", "equal", "failed there", "conflicts" and "damaged".
        lines: what a person must know, one a trial.
    """

    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was left behind that a person may want."""
        return not (self.counts["conflicts"] or self.counts["damaged"])

    def say(self, kind: str, folder: Path, reason: str) -> None:
        """Count a trial and name it."""
        self.counts[kind] += 1
        self.lines.append(f"{folder}: {reason}")


def merge_runs(
    sources: list[Path],
    into: Path,
    prefer: Preference = "home",
    checkpoints: bool = False,
    dry_run: bool = False,
) -> Merged:
    """Copy finished trials into the runs at home.

    Args:
        sources: folders of runs.
        into: root of all runs at home.
        prefer: which of two records of one trial stays that differ in ranks or in code.
        checkpoints: whether the trained models come too, also of trials that home has without.
        dry_run: write nothing.

    Raises:
        RequestError: a source is no folder, or is the folder at home.
        OSError: the disk is full or may not be written; what is there is whole.
    """
    for source in sources:
        if not source.is_dir():
            raise RequestError(f"{source}: no such folder of runs")
        if source.resolve() == into.resolve():
            raise RequestError(f"{source}: is the folder that others are merged into")
    merged = Merged()
    data, taken = _fingerprints(into), dict[Path, Path]()
    for theirs in (path.parent for source in sources for path in sorted(source.rglob(RESULT))):
        record = _read(theirs, merged)
        if record is None:
            continue
        home = trial_folder(into, record.dataset, record.label, record.trial)
        known = data.setdefault(record.dataset, {record.data_fingerprint})
        if record.data_fingerprint not in known:
            reason = f"made from other data ({record.data_fingerprint[:12]}); not taken"
            merged.say("conflicts", theirs, f"{reason}: {into} has {min(known)[:12]}")
            continue
        verdict = _compare(record, theirs, taken.get(home, home), prefer, merged)
        if verdict == "equal" and checkpoints and _adds_checkpoint(theirs, taken.get(home, home)):
            merged.lines.append(f"{theirs}: home lacks its checkpoint; theirs taken")
            verdict = "replaced"
        takes = verdict in ("copied", "replaced")
        if takes and not dry_run and not _copy(theirs, home, checkpoints):
            merged.say("conflicts", theirs, "is being run at home at this moment; not taken")
        elif verdict:
            merged.counts[verdict] += 1
            if takes:
                taken[home] = theirs if dry_run else home
    return merged


def trial_files(folder: Path, checkpoints: bool) -> Iterator[Path]:
    """Files of a trial, relative, its record last; without links, hidden and damaged files."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.is_symlink() or not path.is_file() or hidden or inside == Path(RESULT):
            continue
        if path.suffix != ".damaged" and (checkpoints or path.suffix != ".ckpt"):
            yield inside
    yield Path(RESULT)


def _read(folder: Path, merged: Merged) -> TrialRecord | None:
    """A finished trial that is whole; None, and named, otherwise."""
    try:
        record = read_record(folder)
        if record is None:
            return None
        if folder.resolve().parts[-3:] != (record.dataset, record.label, record.trial):
            raise RecordError(f"is of {record.dataset}/{record.label}/{record.trial}")
        if record.status != "done":
            merged.say("failed there", folder, f"failed there: {record.reason}")
            return None
        _check_types(record)
        _check_ranks(folder, record)
    except (RequestError, TypeError, AttributeError, ValueError, KeyError) as error:
        merged.say("damaged", folder, f"damaged, not taken: {error}")
        return None
    return record


def _check_types(record: TrialRecord) -> None:
    """Refuse what comparing and naming trials cannot work with."""
    texts = (record.data_fingerprint, record.code, record.finished or "")
    if not all(isinstance(text, str) for text in texts):
        raise RequestError("data_fingerprint, code and finished of its record must be texts")
    if not isinstance(record.environment, dict):
        raise RequestError("environment of its record must have keys and values")


def _check_ranks(folder: Path, record: TrialRecord) -> None:
    """Refuse ranks that cannot be read, or from which other metrics follow than were recorded."""
    ranks = load_ranks(folder)
    shape = ranks["rank"].shape
    if len(shape) != 1 or shape == (0,) or any(a.shape != shape for a in ranks.values()):
        raise RequestError(f"{folder / RANKS}: not three lists of one length")
    if any(array.dtype.kind not in "iu" for array in ranks.values()):
        raise RequestError(f"{folder / RANKS}: not whole numbers")
    if not record.metrics:
        raise RequestError("its record has no metrics")
    history = record.protocol.get("history", "")
    _check_metrics(record.metrics, ranks["user"], ranks["rank"], history, "")
    if not record.noise:
        return
    noisy = load_noise_ranks(folder)
    if noisy.shape != (len(record.noise), len(ranks["rank"])) or noisy.dtype.kind not in "iu":
        raise RequestError("its ranks under noise do not fit its record")
    for entry, rank in zip(record.noise, noisy, strict=True):
        where = f" under noise ({entry['kind']} {entry['rate']:g})"
        _check_metrics(entry["metrics"], ranks["user"], rank, history, where)


def _check_metrics(
    metrics: Mapping[str, float], user: Integers, rank: Integers, history: str, where: str
) -> None:
    """Refuse metrics that do not follow from ranks."""
    for name, stated in metrics.items():
        found = mean_metric(name, user, rank, history)
        if not abs(found - stated) <= TOLERANCE:  # also of NaN
            raise RequestError(
                f"{name}{where} is {found:.6f} by its ranks, {stated:.6f} by its record"
            )


def _compare(
    record: TrialRecord, theirs: Path, home: Path, prefer: Preference, merged: Merged
) -> str:
    """What to do with a trial: "copied", "replaced", "equal"; "" where home stays, and is said."""
    try:
        ours = read_record(home)
    except RecordError:
        merged.lines.append(f"{home}: the record at home is damaged; replaced")
        return "replaced"
    if ours is None or ours.status != "done":
        return "copied" if ours is None else "replaced"
    try:
        differs = "other ranks" if not _same_ranks(record, theirs, ours, home) else ""
    except RequestError:
        merged.lines.append(f"{home}: the ranks at home are damaged; replaced")
        return "replaced"
    differs = differs or ("the same ranks by other code" if record.code != ours.code else "")
    if not differs:
        return "equal"
    newer = (record.finished or "") > (ours.finished or "")
    line = f"{differs} there ({_where(record)}) than at home ({_where(ours)})"
    if prefer == "theirs" or (prefer == "newest" and newer):
        merged.lines.append(f"{theirs}: {line}; theirs taken")
        return "replaced"
    if prefer == "newest":
        merged.lines.append(f"{theirs}: {line}; home is newer and stays")
        merged.counts["older there"] += 1
        return ""
    merged.say("conflicts", theirs, f"{line}; home stays")
    return ""


def _adds_checkpoint(theirs: Path, home: Path) -> bool:
    return (theirs / CHECKPOINT).is_file() and not (home / CHECKPOINT).exists()


def _same_ranks(record: TrialRecord, theirs: Path, ours: TrialRecord, home: Path) -> bool:
    pairs = [(load_ranks(theirs), load_ranks(home))]
    if bool(record.noise) != bool(ours.noise):
        return False
    if record.noise:
        pairs.append(({"rank": load_noise_ranks(theirs)}, {"rank": load_noise_ranks(home)}))
    return all(np.array_equal(a[name], b[name]) for a, b in pairs for name in a)


def _where(record: TrialRecord) -> str:
    """Machine, device and time of a record."""
    found = record.environment
    device = found.get("device", "")
    machine = found.get("cpu", "unknown machine") if device in ("", "cpu") else device
    return f"{machine}, {(record.finished or 'time unknown')[:19]}, code {record.code[:8]}"


def _copy(theirs: Path, home: Path, checkpoints: bool) -> bool:
    """Copy a trial; False where a runner is busy with it.

    What the folder held goes first, its record before all: no moment shows a record of one run
    beside ranks of another.
    """
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / LOCK, blocking=False):
            (home / RESULT).unlink(missing_ok=True)
            for old in home.iterdir():
                if old.is_dir() and not old.is_symlink():
                    shutil.rmtree(old)
                elif old.name != LOCK:
                    old.unlink()
            for name in trial_files(theirs, checkpoints):
                write_atomic(home / name, (theirs / name).read_bytes())
            return True
    except Timeout:
        return False


def _fingerprints(into: Path) -> dict[str, set[str]]:
    """Dataset to the fingerprints of the data that trials at home are about."""
    found: dict[str, set[str]] = {}
    for path in into.rglob(RESULT):
        try:
            record = read_record(path.parent)
        except RecordError:
            continue
        if record is not None:
            found.setdefault(record.dataset, set()).add(record.data_fingerprint)
    return found
