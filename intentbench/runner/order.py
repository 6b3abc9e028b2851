"""In which order trials run: the longest first, by what trials of their rows took before.

A long trial that starts late keeps a single slot busy while the others stand idle. Longest first
takes at most 4/3 of the best time where no trial waits for another (Graham 1969).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from intentbench.results.store import RESULT, RecordError, read_record
from intentbench.runner.jobs import Job
from intentbench.runner.progress import describe_job

Row = tuple[str, str]
"""Dataset and label."""


def past_seconds(jobs: Iterable[Job]) -> dict[Row, float]:
    """What a trial of each row took, by the newest that is done, of whatever seed and arguments.

    Args:
        jobs: of the rows asked about; what their rows start from is looked up too.

    Returns:
        Seconds, without those of the trial that it started from; rows without a past are left out.
    """
    rows: dict[Row, Path] = {}
    base_of: dict[Row, Row] = {}
    for job in jobs:
        row = _row(job.folder)
        rows[row] = job.folder.parent
        if job.after is not None:
            base_of[row] = _row(job.after)
            rows[base_of[row]] = job.after.parent
    whole = {row: seconds for row, place in rows.items() if (seconds := _newest(place)) is not None}
    return {
        row: max(0.0, seconds - whole.get(base_of[row], 0.0)) if row in base_of else seconds
        for row, seconds in whole.items()
    }


def order_jobs(jobs: Sequence[Job], past: Mapping[Row, float]) -> list[Job]:
    """Sort trials: first what the longest chain of trials hangs on.

    A row without a past counts as endless, and so goes first: it may be the longest. What others
    start from goes before them. Equals stay in the order of the grid.

    Args:
        jobs: in the order of the grid.
        past: see `past_seconds`.
    """
    followers: dict[Path, list[Job]] = {}
    for job in jobs:
        if job.after is not None:
            followers.setdefault(job.after, []).append(job)

    def weigh(job: Job) -> tuple[float, int]:
        """Seconds, and trials, from the start of this one to the end of what follows it."""
        then = [weigh(other) for other in followers.get(job.folder, ())]
        own = estimate_seconds(job, past)
        return (
            own + max((seconds for seconds, _ in then), default=0.0),
            1 + max((trials for _, trials in then), default=0),
        )

    return sorted(jobs, key=weigh, reverse=True)


def estimate_seconds(job: Job, past: Mapping[Row, float]) -> float:
    """What a trial will take; infinite where its row has no past."""
    return past.get(_row(job.folder), math.inf)


def describe_order(
    jobs: Sequence[Job], states: Mapping[Path, str], past: Mapping[Row, float], slots: int | None
) -> Iterator[str]:
    """What would run, a line a trial, and how long all of it would take.

    Args:
        jobs: in their order.
        states: of the folder of each.
        past: see `past_seconds`.
        slots: how many run at once; None where that is not known.
    """
    estimates = [estimate_seconds(job, past) for job in jobs]
    for job, seconds in zip(jobs, estimates, strict=True):
        took = f"about {seconds:.1f} s" if seconds < math.inf else "no past"
        yield f"{states[job.folder]:8}{describe_job(job)}  {took}  {job.folder}"
    known = [seconds for seconds in estimates if seconds < math.inf]
    span = timedelta(seconds=round(sum(known) / min(slots or 1, len(jobs))))
    where = "one after the other" if slots is None else f"in {slots} slot{'s' * (slots > 1)}"
    line = f"{len(jobs)} trials {where}: about {span}"
    if len(known) < len(jobs):
        line += f", and what {len(jobs) - len(known)} without a past take"
    yield line


def _row(folder: Path) -> Row:
    return folder.parents[1].name, folder.parent.name


def _newest(place: Path) -> float | None:
    """Seconds of the newest trial in the folder of a row."""
    done = []
    for path in sorted(place.glob(f"*/{RESULT}")):
        try:
            record = read_record(path.parent)
        except (RecordError, OSError):
            continue
        if record is not None and record.status == "done":
            done.append((record.finished, record.trial, record.cost.seconds))
    return max(done)[2] if done else None
