"""From records and ranks to tables: seeds x users of each row, aligned, nothing mixed.

A table is one dataset; a cell is one row of it: the seeds of one label. Cells of a table share the
prepared data, the protocol and the very same targets, or there is no table.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.metrics.users import (
    headline_metrics,
    metric_names,
    primary_metric,
)
from intentbench.reports.values import check_metrics, mean_metrics, user_values
from intentbench.results.record import ORACLE, TrialRecord
from intentbench.results.store import load_noise_ranks, load_ranks, load_records

INPUTS = ("window", "targets", "notes", "texts")
"""Entries of a protocol that say what a method is given or what is known of the data; they may
differ between the rows of a table, for they do not change what is asked or how it is counted."""

_NOTHING = np.zeros(0, dtype=np.int32)

Ranks = dict[str, NDArray[np.integer]]
"""Arrays "user", "key" and "rank" of a trial, (T,) each; "noise" (K, T) where it has entries,
"popularity" (T,) where it is known."""

Result = tuple[TrialRecord, Ranks | None]
"""A trial; None in place of its ranks where it failed."""


@dataclass(frozen=True, eq=False)
class Cell:
    """The trials of one label on one dataset.

    Attributes:
        label: row of the leaderboard.
        records: of the trials that are done, by seed.
        failed: of those that failed, by seed.
        ranks: (S, T) of the trials that are done.
        noise: (S, K, T) their ranks under each noise of their records; None without.
        means: metric to its mean over users, (S,), of the trials that are done.
    """

    label: str
    records: tuple[TrialRecord, ...]
    failed: tuple[TrialRecord, ...]
    ranks: NDArray[np.integer]
    noise: NDArray[np.integer] | None = None
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def any_record(self) -> TrialRecord:
        """A record, done or failed, for what all of them share."""
        return (self.records + self.failed)[0]

    @property
    def deterministic(self) -> bool:
        """Whether the seed changes nothing by definition."""
        return self.is_oracle or bool(self.any_record.card.get("deterministic"))

    @property
    def is_oracle(self) -> bool:
        """Whether this is the ceiling, not a competitor."""
        return self.any_record.method == ORACLE

    @property
    def seed_changes_nothing(self) -> bool:
        """Whether a method that should depend on its seed ranks the same with every one."""
        several = len(self.ranks) > 1 and not self.deterministic
        return several and bool((self.ranks == self.ranks[0]).all())


@dataclass(frozen=True, eq=False)
class Table:
    """The cells of one dataset.

    Attributes:
        dataset: catalogue key.
        user: (T,) user of each target, ascending.
        key: (T,) position of the target among the user's events.
        cells: by label; those without a finished trial included.
        popularity: (T,) training interactions of each target's item; None where not known.
    """

    dataset: str
    user: NDArray[np.integer]
    key: NDArray[np.integer]
    cells: tuple[Cell, ...]
    popularity: NDArray[np.integer] | None = None

    @property
    def n_users(self) -> int:
        """U, users with a target."""
        return len(np.unique(self.user))

    @property
    def history(self) -> str:
        """What stands before a target, which says how several targets of a user are judged."""
        return recorded_history(self.cells[0].any_record)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that are published."""
        return metric_names(self.history)

    @property
    def headline(self) -> tuple[str, str]:
        """Metrics that are compared with published figures."""
        return headline_metrics(self.history)

    @property
    def primary(self) -> str:
        """The metric that rows are sorted and tested by; the others carry no marks."""
        return primary_metric(self.history)

    def values(self, ranks: NDArray[np.integer], metric: str) -> NDArray[np.float64]:
        """A metric of users, (…, U), from ranks (…, T)."""
        return user_values(metric, self.user, ranks, self.history)


def read_results(runs: Path) -> list[Result]:
    """Every finished trial below a folder of runs, with its ranks.

    Raises:
        RequestError: no such folder, or a file in it cannot be read.
    """
    return attach_ranks(load_records(runs))


def attach_ranks(trials: Iterable[tuple[Path, TrialRecord]]) -> list[Result]:
    """Load the ranks of trials that are done.

    Raises:
        RequestError: ranks are missing or damaged.
    """
    return [
        (record, _load(folder, record) if record.status == "done" else None)
        for folder, record in trials
    ]


def _load(folder: Path, record: TrialRecord) -> Ranks:
    ranks = load_ranks(folder)
    return {**ranks, "noise": load_noise_ranks(folder)} if record.noise else ranks


def build_tables(results: Iterable[Result]) -> tuple[Table, ...]:
    """Sort trials into tables and cells.

    A trial that failed and was done again, whatever its arguments then were, is left out.

    Raises:
        RequestError: trials of one dataset differ in data, protocol or targets, those of one cell
            in configuration, a seed is there twice, or ranks do not give the recorded metrics.
    """
    results = list(results)
    done = {_place(record) for record, ranks in results if ranks is not None}
    results = [r for r in results if r[1] is not None or _place(r[0]) not in done]
    by_dataset: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda r: (r[0].dataset, r[0].label, r[0].seed, r[0].trial)):
        by_dataset.setdefault(result[0].dataset, []).append(result)
    return tuple(_table(dataset, found) for dataset, found in by_dataset.items())


def _place(record: TrialRecord) -> tuple[str, str, int]:
    return record.dataset, record.label, record.seed


def shared_protocol(record: TrialRecord) -> dict[str, Any]:
    """The part of the protocol that must be equal throughout a table."""
    return {name: value for name, value in record.protocol.items() if name not in INPUTS}


def recorded_history(record: TrialRecord) -> str:
    """What stands before a target; "" where the record does not say."""
    return str(record.protocol.get("history", ""))


def noise_settings(record: TrialRecord) -> list[dict[str, Any]]:
    """What a trial was measured under, without what came out."""
    names = ("protocol", "kind", "rate", "rounding", "seed")
    return [{name: entry[name] for name in names} for entry in record.noise]


def _table(dataset: str, results: list[Result]) -> Table:
    records = [record for record, _ in results]
    _require_same(dataset, records, "prepared data", lambda r: r.data_fingerprint[:16])
    _require_same(dataset, records, "protocol", shared_protocol)
    by_label: dict[str, list[Result]] = {}
    for result in results:
        by_label.setdefault(result[0].label, []).append(result)
    targets: Ranks | None = None
    popularity: NDArray[np.integer] | None = None
    cells = []
    for label, found in by_label.items():
        _check_cell(f"{dataset}: {label}", [record for record, _ in found])
        rows, noise, names = [], [], []
        for record, ranks in found:
            if ranks is None:
                continue
            name = f"{dataset}: {label}, seed {record.seed}"
            aligned = _aligned(ranks, name)
            targets = targets or aligned
            popularity = aligned.get("popularity", popularity)
            if not all(np.array_equal(targets[part], aligned[part]) for part in ("user", "key")):
                raise RequestError(f"{name} ranks other targets than the trials before it")
            names.append(name)
            rows.append(aligned["rank"])
            if record.noise:
                noise.append(_checked_noise(record, aligned, name))
        done = tuple(record for record, ranks in found if ranks is not None)
        failed = tuple(record for record, ranks in found if ranks is None)
        stacked = np.stack(rows) if rows else _NOTHING[None, :0]
        means: dict[str, NDArray[np.float64]] = {}
        if targets and done:
            means = mean_metrics(targets["user"], stacked, recorded_history(done[0]))
            check_metrics([record.metrics for record in done], means, names)
        noisy = np.stack(noise) if noise else None
        cells.append(Cell(label, done, failed, stacked, noisy, means))
    first = targets or {"user": _NOTHING, "key": _NOTHING}
    return Table(dataset, first["user"], first["key"], tuple(cells), popularity)


def _aligned(ranks: Ranks, name: str) -> Ranks:
    """Sorted by user, then key; a target that is there twice is refused."""
    user, key = ranks["user"].astype(np.int64), ranks["key"].astype(np.int64)
    if len(user) == 0:
        raise RequestError(f"{name}: no ranks at all; run the trial again")
    step = np.diff(user)
    if ((step < 0) | ((step == 0) & (np.diff(key) < 0))).any():
        order = np.lexsort((key, user))
        user, key = user[order], key[order]
        ranks = {array: values[..., order] for array, values in ranks.items()}
    if ((np.diff(user) == 0) & (np.diff(key) == 0)).any():
        raise RequestError(f"{name}: a target is ranked twice; run the trial again")
    return ranks


def _check_cell(where: str, records: Sequence[TrialRecord]) -> None:
    for name in ("method", "arguments", "data", "training"):
        _require_same(where, records, name, attrgetter(name))
    _require_same(where, records, "texts", lambda record: {"texts": record.protocol.get("texts")})
    if done := [record for record in records if record.status == "done"]:
        _require_same(where, done, "noise", lambda record: {"noise": noise_settings(record)})
    seeds = [record.seed for record in records]
    if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
        raise RequestError(f"{where}: seed {min(twice)} is there twice; remove one of the trials")


def _require_same(
    where: str,
    records: Sequence[TrialRecord],
    what: str,
    of: Callable[[TrialRecord], Mapping[str, Any] | str],
) -> None:
    first = records[0]
    for other in records[1:]:
        if of(first) == of(other):
            continue
        ours, theirs = _plain(of(first)), _plain(of(other))
        if ours == theirs:
            continue
        if isinstance(ours, dict) and isinstance(theirs, dict):
            names = sorted(
                name for name in ours | theirs if ours.get(name, ...) != theirs.get(name, ...)
            )
            ours, theirs = ({name: side.get(name) for name in names} for side in (ours, theirs))
        raise RequestError(
            f"{where}: trial {first.trial} ({first.label}) and trial {other.trial} ({other.label}) "
            f"differ in {what}: {ours} and {theirs}; report them apart, or remove one's folder"
        )


def _plain(value: Any) -> Any:
    """As JSON would give it back: a record in memory may hold tuples, one from disk lists."""
    return json.loads(json.dumps(value, sort_keys=True))


def _checked_noise(record: TrialRecord, ranks: Ranks, name: str) -> NDArray[np.integer]:
    """The ranks of a trial under noise, which must give what it recorded."""
    found = ranks["noise"]
    if found.shape != (len(record.noise), len(ranks["user"])):
        raise RequestError(f"{name}: ranks under noise have shape {found.shape}; run it again")
    check_metrics(
        [entry["metrics"] for entry in record.noise],
        mean_metrics(ranks["user"], found, recorded_history(record)),
        [f"{name}, {entry['kind']} {entry['rate']:g}" for entry in record.noise],
    )
    return found
