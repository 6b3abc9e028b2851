"""What the trials of a folder are up to, as text and as plain values."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from intentbench.results.printable import printable
from intentbench.results.progress import describe_seconds
from intentbench.results.status import STATES, TrialStatus

TROUBLE = tuple(state for state in STATES if state != "done")
"""States whose trials are named one by one."""

HINTS = {
    "interrupted": ", the same `intentbench run` goes on with them",
    "damaged": ", the same `intentbench run` sets them aside and runs them again",
}
"""What to do about trials in a state."""


def render_status(runs: Path, trials: Sequence[TrialStatus], now: float) -> str:
    """Totals, a line a row, and a line for each trial that is not done.

    Args:
        runs: the folder, as a person named it.
        trials: below it.
        now: seconds since 1970.
    """
    return "".join(f"{line}\n" for line in _lines(runs, trials, now))


def describe_json(trials: Sequence[TrialStatus], now: float) -> dict[str, Any]:
    """The same as plain values: "totals", "rows", and for each state but "done" its trials.

    Args:
        trials: of a folder.
        now: seconds since 1970.
    """
    rows = [
        {"dataset": dataset, "row": label, **_count(members)}
        for (dataset, label), members in _rows(trials).items()
    ]
    named: dict[str, Any] = {
        state: [_plain(t, now) for t in trials if t.state == state] for state in TROUBLE
    }
    return {"totals": {"trials": len(trials), **_count(trials)}, "rows": rows, **named}


def _lines(runs: Path, trials: Sequence[TrialStatus], now: float) -> Iterator[str]:
    totals = _count(trials)
    present = [state for state in STATES if totals[state]]
    counts = ", ".join(f"{totals[state]} {state}" for state in present)
    plural = "" if len(trials) == 1 else "s"
    yield f"{runs}: {len(trials)} trial{plural}{': ' if trials else ''}{counts}"
    if not trials:
        return
    rows = _rows(trials)
    widths = [max(map(len, names)) for names in zip(*rows, ("dataset", "row"), strict=True)]
    widths += [len(state) for state in present]
    yield ""
    yield _align(["dataset", "row", *present], widths)
    for names, members in rows.items():
        found = _count(members)
        yield _align([*names, *(str(found[state] or "") for state in present)], widths)
    for state in present:
        if state in TROUBLE:
            yield f"\n{state}{HINTS.get(state, '')}:"
            yield from (f"  {_describe(t, now)}" for t in trials if t.state == state)


def _count(trials: Sequence[TrialStatus]) -> dict[str, int]:
    states = [trial.state for trial in trials]
    return {state: states.count(state) for state in STATES}


def _rows(trials: Sequence[TrialStatus]) -> dict[tuple[str, str], list[TrialStatus]]:
    rows: dict[tuple[str, str], list[TrialStatus]] = {}
    for trial in trials:
        rows.setdefault((trial.dataset, trial.label), []).append(trial)
    return rows


def _align(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    names = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join([*names, *numbers]).rstrip()


def _describe(trial: TrialStatus, now: float) -> str:
    seed = "?" if trial.seed is None else trial.seed
    name, state = f"{trial.dataset} {trial.label} seed {seed}", trial.progress
    if trial.state in ("failed", "damaged"):
        return f"{name}: {printable(trial.reason)}"
    if trial.state == "interrupted":
        return f"{name}: {state.describe() if state else 'starting'}"
    if state is None:
        return f"{name}: starting"
    since = describe_seconds(max(0.0, now - state.began))
    return f"{name}: {state.describe(now)}; for {since}, pid {state.pid} on {state.host}"


def _plain(trial: TrialStatus, now: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dataset": trial.dataset,
        "row": trial.label,
        "seed": trial.seed,
        "folder": str(trial.folder),
    }
    if trial.reason:
        found["reason"] = trial.reason
    if trial.progress is not None:
        found |= asdict(trial.progress)
        for name in ("began", "updated"):
            moment = datetime.fromtimestamp(found[name], UTC)
            found[name] = moment.isoformat(timespec="seconds")
    if trial.progress is not None and trial.state == "running":
        found["seconds_left"] = trial.progress.seconds_left(now)
    return found
