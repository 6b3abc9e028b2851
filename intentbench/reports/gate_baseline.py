"""The baseline of a regression gate: ranks of accepted runs, in one file to be committed.

The file is an npz without pickle: `meta` (JSON as bytes: data fingerprint, protocol, rows, seeds
and metrics of each dataset, and how deep imported lists go), `<d>.user` and `<d>.key` (the targets
of dataset d) and `<d>.<r>.rank` (seeds x targets of its row r). It has no path, no machine and no
date; the same runs give the same bytes.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.reports.archive import read_trials
from intentbench.reports.cells import (
    Cell,
    Result,
    Table,
    build_tables,
    shared_protocol,
)
from intentbench.results.external import DEPTH, require_metric
from intentbench.results.record import TrialRecord
from intentbench.results.store import DAMAGED, narrow_ranks, read_arrays, write_atomic

FORMAT = 1
"""Version of the file."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Change:
    """What accepting new runs does to one row of a baseline.

    Attributes:
        dataset: where.
        label: of the row.
        metric: of the means.
        old: mean so far; None where the row is new.
        new: mean from now on; None where the row is gone.
        seeds: from now on.
    """

    dataset: str
    label: str
    metric: str
    old: float | None
    new: float | None
    seeds: int


def read_tables(folder: Path) -> tuple[Table, ...]:
    """The tables of a folder of runs, or of published ranks.

    Raises:
        RequestError: it is neither, or its trials do not belong together.
    """
    return build_tables(read_trials(folder))


def judged_cells(table: Table) -> list[Cell]:
    """The rows that a gate judges: finished ones, without the ceiling."""
    return [cell for cell in table.cells if cell.records and not cell.is_oracle]


def write_baseline(path: Path, tables: Iterable[Table]) -> None:
    """Write the finished trials of all rows but the ceiling.

    Raises:
        OSError: the disk is full or may not be written.
    """
    datasets: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for d, table in enumerate(table for table in tables if judged_cells(table)):
        cells = judged_cells(table)
        arrays[f"{d}.user"] = table.user.astype(np.int32)
        arrays[f"{d}.key"] = table.key.astype(np.int32)
        for r, cell in enumerate(cells):
            arrays[f"{d}.{r}.rank"] = narrow_ranks(cell.ranks)
        first = cells[0].any_record
        datasets.append(
            {
                "dataset": table.dataset,
                "data_fingerprint": first.data_fingerprint,
                "protocol": shared_protocol(first),
                "rows": [_describe(cell) for cell in cells],
            }
        )
    meta = json.dumps({"format": FORMAT, "datasets": datasets}, sort_keys=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, meta=np.frombuffer(meta.encode(), dtype=np.uint8), **arrays)
    write_atomic(path, buffer.getvalue())


def read_baseline(path: Path) -> tuple[Table, ...]:
    """The tables of a baseline.

    Args:
        path: a file of `write_baseline`, or a folder of published ranks or of runs.

    Raises:
        RequestError: there is none, or it is damaged.
    """
    if path.is_dir():
        tables = read_tables(path)
    elif path.exists():
        tables = _read_file(path)
    else:
        raise RequestError(f"{path}: no such baseline; --update writes one")
    if not any(judged_cells(table) for table in tables):
        raise RequestError(f"{path}: no finished trial in this baseline")
    return tables


def update_baseline(runs: Path, path: Path, metric: str | None = None) -> list[Change]:
    """Accept runs as the new baseline; what the file held before is replaced as a whole.

    Args:
        runs: folder of runs or of published ranks.
        path: of the file.
        metric: of the means that are told; None for that which a page tests.

    Returns:
        What has changed, a row each.

    Raises:
        RequestError: a trial of the runs has failed, none has finished, the path is a folder, the
            old file is damaged, or lists that were imported are too short to give the metric.
        OSError: the disk is full or may not be written.
    """
    if path.is_dir():
        raise RequestError(f"{path}: a folder; --update writes a single file, such as gate.npz")
    tables = read_tables(runs)
    failed = [
        f"{table.dataset}/{cell.label} (seed {record.seed})"
        for table in tables
        for cell in table.cells
        for record in cell.failed
    ]
    if failed:
        raise RequestError(
            f"{runs}: failed trials cannot become a baseline: {', '.join(failed)}; run them again, "
            "or delete their folders to leave them out"
        )
    if not any(judged_cells(table) for table in tables):
        raise RequestError(f"{runs}: no finished trial; run the benchmark first")
    before = _means(read_baseline(path), metric) if path.exists() else {}
    after = _means(tables, metric)
    write_baseline(path, tables)
    changes = []
    for place in sorted(before | after):
        (name, old, _), (now, new, seeds) = (
            found.get(place, ("", None, 0)) for found in (before, after)
        )
        changes.append(Change(*place, now or name, old, new, seeds))
    return changes


def _means(
    tables: Iterable[Table], metric: str | None
) -> dict[tuple[str, str], tuple[str, float | None, int]]:
    """Metric, mean and number of seeds of each dataset and label."""
    found: dict[tuple[str, str], tuple[str, float | None, int]] = {}
    for table in tables:
        name = metric or table.primary
        for cell in judged_cells(table):
            require_metric(cell.records, name)
            mean = float(table.values(cell.ranks, name).mean())
            found[table.dataset, cell.label] = name, mean, len(cell.records)
    return found


def _describe(cell: Cell) -> dict[str, Any]:
    return {
        "label": cell.label,
        "method": cell.any_record.method,
        "deterministic": cell.deterministic,
        "trials": [
            {
                "trial": record.trial,
                "seed": record.seed,
                "metrics": record.metrics,
                **_depth(record.card),
            }
            for record in cell.records
        ],
    }


def _depth(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of a Card or a trial of the file: how deep its imported lists go; {} where that is all."""
    return {DEPTH: facts[DEPTH]} if DEPTH in facts else {}


def _read_file(path: Path) -> tuple[Table, ...]:
    try:
        if not is_zipfile(path):
            raise ValueError("no npz file, or cut short")
        arrays = read_arrays(path)
        meta = json.loads(arrays["meta"].tobytes())
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']}, this version reads {FORMAT}")
        results = [
            result
            for d, dataset in enumerate(meta["datasets"])
            for r, row in enumerate(dataset["rows"])
            for result in _trials(dataset, row, d, arrays[f"{d}.{r}.rank"], arrays)
        ]
    except (*DAMAGED, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(
            f"{path}: no readable baseline ({reason}); restore it, or remove it and write another "
            "with --update"
        ) from None
    try:
        return build_tables(results)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None


def _trials(
    dataset: Mapping[str, Any], row: Mapping[str, Any], d: int, ranks: NDArray[Any], arrays: Arrays
) -> Sequence[Result]:
    user, key = arrays[f"{d}.user"], arrays[f"{d}.key"]
    if ranks.shape != (len(row["trials"]), len(user)) or len(key) != len(user):
        raise ValueError(f"{row['label']}: ranks of shape {ranks.shape}")
    return [
        (
            TrialRecord(
                trial=trial["trial"],
                status="done",
                dataset=dataset["dataset"],
                data_fingerprint=dataset["data_fingerprint"],
                label=row["label"],
                method=row["method"],
                seed=trial["seed"],
                metrics=trial["metrics"],
                protocol=dataset["protocol"],
                card={"deterministic": row["deterministic"], **_depth(trial)},
            ),
            {"user": user, "key": key, "rank": rank},
        )
        for trial, rank in zip(row["trials"], ranks, strict=True)
    ]
