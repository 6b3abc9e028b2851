"""What stood on a published page before: cells that another result has replaced.

`ranks/<name>/history.json` is a list that only grows, oldest first. An entry says what a cell was
and what it was replaced by; each leads to the next of its cell, and the last to what stands now.
Entries hold times of trials and none of publishing: the same archive and tables give the same list.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import RequestError
from intentbench.reports.cells import Ranks, Result, Table
from intentbench.results.record import TrialRecord

HISTORY = "history.json"

FIELDS = (
    "dataset",
    "label",
    "seed",
    "trial",
    "code",
    "digest",
    "metrics",
    "finished",
    "replaced_by",
)
"""Of an entry. `replaced_by` has trial, code and digest, or is null where the cell was taken away;
a `digest` of "" is a trial that failed."""

Entry = dict[str, Any]
Place = tuple[str, str, int]
"""Dataset, label and seed of a cell."""


def digest_trial(record: TrialRecord, ranks: Ranks | None) -> str:
    """sha256 (16 hex digits) of what a trial gives a page: ranks, under noise too, and intents.

    Args:
        record: of the trial.
        ranks: its arrays, sorted by user and key; None where it failed, which gives "".
    """
    if ranks is None:
        return ""
    content = hashlib.sha256(json.dumps(record.intents, sort_keys=True).encode())
    for name in ("user", "key", "rank", *(("noise",) if record.noise else ())):
        content.update(name.encode() + np.asarray(ranks[name]).astype("<i8").tobytes())
    return content.hexdigest()[:16]


def extend_history(
    history: Sequence[Entry], old: Iterable[Result], tables: Iterable[Table]
) -> list[Entry]:
    """The history after tables take the place of a published archive.

    A cell counts as replaced where the name of its trial, its code, its ranks, its ranks under
    noise or its intents differ, or where it is gone. One that had failed had no number to replace.

    Args:
        history: as it was published.
        old: what the archive holds.
        tables: what it will hold.
    """
    old = list(old)
    now = _standing(tables) if old else {}
    added = []
    for record, ranks in sorted(old, key=lambda result: _place(result[0])):
        if ranks is None:
            continue
        was, by = _identity(record, ranks), now.get(_place(record))
        if was != by:
            entry = {
                **was,
                "dataset": record.dataset,
                "label": record.label,
                "seed": record.seed,
                "metrics": record.metrics,
                "finished": record.finished,
                "replaced_by": by,
            }
            added.append(entry)
    return [*history, *added]


def render_history(history: Sequence[Entry]) -> bytes:
    """The file's content."""
    return (json.dumps(history, indent=1, sort_keys=True) + "\n").encode()


def read_history(folder: Path) -> list[Entry]:
    """The history of published ranks; empty where nothing was replaced.

    Args:
        folder: `leaderboards/ranks/<name>`.

    Raises:
        RequestError: the file is damaged.
    """
    path = folder / HISTORY
    try:
        history: list[Entry] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: no readable history ({error})") from None
    if not isinstance(history, list) or not all(
        isinstance(entry, dict) and set(entry) == set(FIELDS) for entry in history
    ):
        raise RequestError(f"{path}: no history: expected entries of {', '.join(FIELDS)}")
    return history


def history_line(history: Sequence[Entry]) -> str:
    """What a page says of it; "" where nothing was replaced."""
    if not history:
        return ""
    what = "1 result was" if len(history) == 1 else f"{len(history)} results were"
    return f"{what} replaced or taken away since first published; see `{HISTORY}` beside the ranks."


def check_history(history: Sequence[Entry], tables: Iterable[Table]) -> list[str]:
    """Whether each entry leads to the next one of its cell, and the last to what stands now.

    So an entry cannot be left out, nor a published result be exchanged beside its history. That
    all entries of a cell are gone shows in their number on the page; that this was changed, too, is
    for the version control to show.

    Returns:
        What does not fit, a line each.
    """
    standing: dict[Place, Mapping[str, str] | None] = dict(_standing(tables))
    findings = []
    for number, entry in reversed(list(enumerate(history, 1))):
        place = (entry["dataset"], entry["label"], entry["seed"])
        by = entry["replaced_by"]
        # what was gone, or had failed, may have come back as anything
        if by is not None and by["digest"] and by != standing.get(place):
            where = f"{place[0]}: {place[1]}, seed {place[2]}"
            findings.append(
                f"{HISTORY}: entry {number} ({where}) says that trial {by['trial']} of code "
                f"{by['code']} came next, which is not what follows it"
            )
        standing[place] = {name: entry[name] for name in ("trial", "code", "digest")}
    return findings[::-1]


def _place(record: TrialRecord) -> Place:
    return record.dataset, record.label, record.seed


def _identity(record: TrialRecord, ranks: Ranks | None) -> dict[str, str]:
    return {
        "trial": record.trial,
        "code": record.code,
        "digest": digest_trial(record, ranks),
    }


def _standing(tables: Iterable[Table]) -> dict[Place, dict[str, str]]:
    """Every trial of tables, done or failed."""
    found = {}
    for table in tables:
        for cell in table.cells:
            for number, record in enumerate(cell.records):
                ranks = {"user": table.user, "key": table.key, "rank": cell.ranks[number]}
                if cell.noise is not None:
                    ranks["noise"] = cell.noise[number]
                found[_place(record)] = _identity(record, ranks)
            for record in cell.failed:
                found[_place(record)] = _identity(record, None)
    return found
