"""What is published beside a page: every rank and record that it was computed from.

Layout of `ranks/<name>/`: `board.json` (the plan), and for each dataset `<dataset>.npz` (user and
key of each target, and popularity of its item where the page was made beside the data) and
`<dataset>/<label>.npz` (ranks, seeds x targets, and those under noise, seeds x settings x targets)
with `<label>.json` (its records). A rank takes two bytes before compression where the catalogue
allows.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import RequestError
from intentbench.reports.cells import Cell, Ranks, Result, Table, build_tables, read_results
from intentbench.reports.history import (
    HISTORY,
    extend_history,
    read_history,
    render_history,
)
from intentbench.reports.plan import Plan
from intentbench.results.record import parse_record
from intentbench.results.store import (
    DAMAGED,
    narrow_ranks,
    read_arrays,
    read_record,
    save_noise_ranks,
    save_ranks,
    trial_folder,
    write_record,
)

BOARD = "board.json"
FORMAT = 1
"""Version of the layout."""


def is_archive(folder: Path) -> bool:
    """Whether a folder holds published ranks (and not runs)."""
    return (folder / BOARD).is_file()


def read_trials(folder: Path) -> list[Result]:
    """The trials of a folder of runs, or of published ranks.

    Raises:
        RequestError: it is neither, or cannot be read.
    """
    return read_archive(folder)[2] if is_archive(folder) else read_results(folder)


def write_archive(folder: Path, name: str, plan: Plan, tables: Iterable[Table]) -> None:
    """Write ranks and records; what the folder held before is replaced as a whole.

    Results that stood there and are not among the new ones go into its history.

    Args:
        folder: `leaderboards/ranks/<name>`.
        name: of the leaderboard.
        plan: of the benchmark.
        tables: all of it.

    Raises:
        RequestError: what the folder held before cannot be read or is something else, or a name
            would lead elsewhere.
        OSError: the disk is full or may not be written.
    """
    tables = tuple(tables)
    records = [r for table in tables for cell in table.cells for r in (*cell.records, *cell.failed)]
    try:
        for part in [name, *(n for r in records for n in (r.dataset, r.label, r.trial))]:
            _check_name(part)
    except ValueError as error:
        raise RequestError(f"{folder}: {error}; nothing was published") from None
    restore_aside(folder)
    if folder.is_dir() and any(folder.iterdir()) and not is_archive(folder):
        raise RequestError(
            f"{folder}: is there and holds no leaderboard ranks; choose another name, or move it"
        )
    old = read_archive(folder)[2] if is_archive(folder) else []
    history = extend_history(read_history(folder), old, tables)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with ThreadPoolExecutor() as pool:  # compressing takes longest, and many at a time
            for table in tables:
                _write_table(fresh, table, pool)
        board = {"format": FORMAT, "name": name, "plan": plan.to_json()}
        _write(fresh / BOARD, (json.dumps(board, indent=1, sort_keys=True) + "\n").encode())
        if history:
            _write(fresh / HISTORY, render_history(history))
        os.sync()  # all files at once: thousands, synced one by one, take minutes
        _put_in_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Replace a folder: at every moment the old one or the new one is there, whole."""
    aside = _aside(folder)
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    try:
        fresh.rename(folder)
    except OSError:
        restore_aside(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def restore_aside(folder: Path) -> None:
    """Put published ranks back that a publishing moved aside and was killed before it ended."""
    if not folder.exists() and _aside(folder).exists():
        _aside(folder).rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def read_archive(folder: Path) -> tuple[str, Plan, list[Result]]:
    """Read published ranks and records.

    Returns:
        Name of the leaderboard, its plan, and its trials.

    Raises:
        RequestError: the folder is none of these, or a file in it is missing or damaged.
    """
    try:
        board = json.loads((folder / BOARD).read_text(encoding="utf-8"))
        if board["format"] != FORMAT:
            raise ValueError(f"format {board['format']}, this version reads {FORMAT}")
        read_targets = cache(read_arrays)  # of a dataset, shared by its rows
        results = [
            result
            for path in sorted(folder.glob("*/*.json"))
            for result in _read_cell(path, read_targets)
        ]
        for name in [
            board["name"],
            *(n for r, _ in results for n in (r.dataset, r.label, r.trial)),
        ]:
            _check_name(name)
        return board["name"], Plan.from_json(board["plan"]), results
    except (*DAMAGED, TypeError) as error:
        raise RequestError(f"{folder}: no readable leaderboard ranks ({error})") from None


def _check_name(name: str) -> None:
    """Names become parts of paths: an archive of somebody else's must not write elsewhere."""
    if not name or name.startswith(".") or not {"/", "\\", "\0"}.isdisjoint(name):
        raise ValueError(f"{name!r} is no name")


def restore_trials(folder: Path, runs: Path) -> tuple[int, int]:
    """Put published trials back among the runs, so that a benchmark goes on where it stood.

    A restored trial has its record and its ranks; checkpoint, events and log stay where it ran.
    Whatever the runs hold already is left alone.

    Args:
        folder: `leaderboards/ranks/<name>`.
        runs: root of all runs.

    Returns:
        How many trials were restored, and how many were there.

    Raises:
        RequestError: see `read_archive`; or the trials could not be shown on a page, such as where
            ranks do not give the recorded metrics. Nothing is restored then.
        OSError: the disk is full or may not be written.
    """
    results = read_archive(folder)[2]
    try:
        build_tables(results)  # all that a page checks, before anything is written
    except RequestError as error:
        raise RequestError(f"{folder}: {error}; nothing was restored") from None
    restored = present = 0
    for record, ranks in results:
        place = trial_folder(runs, record.dataset, record.label, record.trial)
        known = read_record(place)
        if known is not None and (known.status == "done" or ranks is None):
            present += 1
            continue
        if ranks is not None:
            place.mkdir(parents=True, exist_ok=True)
            save_ranks(place, ranks["user"], ranks["key"], ranks["rank"])
            if record.noise:
                save_noise_ranks(place, ranks["noise"])
        write_record(place, record)
        restored += 1
    return restored, present


def _write_table(folder: Path, table: Table, pool: Executor) -> None:
    targets = {"user": table.user.astype(np.int32), "key": table.key.astype(np.int32)}
    if table.popularity is not None:
        targets["popularity"] = table.popularity.astype(np.int32)
    _write(folder / f"{table.dataset}.npz", _compressed(**targets))
    for _ in pool.map(partial(_write_cell, folder / table.dataset), table.cells):
        pass  # errors are raised here


def _write_cell(folder: Path, cell: Cell) -> None:
    records = [json.loads(record.to_json()) for record in cell.records + cell.failed]
    text = json.dumps(records, indent=1, sort_keys=True) + "\n"
    _write(folder / f"{cell.label}.json", text.encode())
    if cell.records:
        ranks = {"rank": narrow_ranks(cell.ranks)}
        if cell.noise is not None:
            ranks["noise"] = narrow_ranks(cell.noise)
        _write(folder / f"{cell.label}.npz", _compressed(**ranks))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _read_cell(path: Path, read_targets: Callable[[Path], Ranks]) -> list[Result]:
    records = [parse_record(json.dumps(raw)) for raw in json.loads(path.read_text("utf-8"))]
    done = [record for record in records if record.status == "done"]
    results: list[Result] = [(record, None) for record in records if record.status != "done"]
    if done:
        targets = read_targets(path.parent.with_name(path.parent.name + ".npz"))
        arrays = read_arrays(path.with_suffix(".npz"))
        ranks = arrays["rank"]
        if any(
            ranks.shape != (len(done), len(targets[name])) for name in {"user", "key", *targets}
        ):
            raise ValueError(f"{path.with_suffix('.npz').name}: shape {ranks.shape}")
        for number, (record, rank) in enumerate(zip(done, ranks, strict=True)):
            found = {**targets, "rank": rank}
            if record.noise:
                found["noise"] = arrays["noise"][number]
            results.append((record, found))
    return results


def _compressed(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
