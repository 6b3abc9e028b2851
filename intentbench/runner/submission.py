"""Results of another system as a trial: checked, ranked, recorded, put among the runs."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.catalog import DatasetEntry, find_entry
from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from intentbench.metrics.users import mean_metric, metric_names
from intentbench.models.base import Recommender
from intentbench.models.card import Card
from intentbench.results.external import DEPTH, EXTERNAL, gives_metric
from intentbench.results.record import ORACLE, Cost, TrialRecord
from intentbench.results.store import (
    load_ranks,
    load_records,
    save_ranks,
    trial_folder,
    write_record,
)
from intentbench.runner.config import Training, Trial
from intentbench.runner.foreign_ranks import (
    ForeignRanks,
    HeldOut,
    find_targets,
    ranks_from_lists,
    ranks_from_ranks,
)
from intentbench.runner.foreign_rows import Ids, Kind, read_rows
from intentbench.runner.trial import describe_trial
from intentbench.runner.values import read_name
from intentbench.spec import load_spec


@dataclass(frozen=True)
class Facts:
    """What the sender says of a system.

    Attributes:
        label: row of the leaderboard.
        seed: which of its trainings this is.
        deterministic: whether the seed changes nothing.
        title: name as printed.
        paper: citation or address.
        code: address.
        parameters: trainable ones; 0 where nobody says.
    """

    label: str
    seed: int = 0
    deterministic: bool = False
    title: str = ""
    paper: str = ""
    code: str = ""
    parameters: int = 0

    def __post_init__(self) -> None:
        """Refuse what no row could have."""
        read_name(self.label, "--label")
        if self.label == ORACLE:
            raise RequestError("--label oracle: is the ceiling of synthetic data; choose another")
        if self.seed < 0 or self.parameters < 0:
            raise RequestError("--seed and --params must not be negative")
        if self.deterministic and self.seed:
            raise RequestError("--deterministic: such a system runs once, with seed 0")

    def card(self) -> dict[str, Any]:
        """As records hold it."""
        return {
            "title": self.title or self.label,
            "paper": self.paper,
            "code": self.code,
            "deterministic": self.deterministic,
            "published": [],
            "deviations": [],
        }


@dataclass(frozen=True)
class Protocol:
    """What results are to answer.

    Attributes:
        entry: the dataset.
        mask_history: whether ranking excludes what the user had.
        benchmark: name of the spec that they are for; "" for none.
        labels: rows of that spec, which results from elsewhere cannot be.
        fingerprint: of the data that the sender trained on, its first digits; "" where unsaid.
    """

    entry: DatasetEntry
    mask_history: bool = True
    benchmark: str = ""
    labels: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be a fingerprint."""
        if self.fingerprint and not re.fullmatch("[0-9a-f]{16,64}", self.fingerprint):
            raise RequestError(
                f"--fingerprint {self.fingerprint}: expected 16 to 64 hexadecimal digits, as the "
                "export in docs/submissions.md and pages show them"
            )


@dataclass(frozen=True, eq=False)
class Submission:
    """Checked results.

    Attributes:
        record: as it will be written.
        targets: what was ranked.
        ranks: of the targets.
        rows: of the file.
    """

    record: TrialRecord
    targets: HeldOut = field(repr=False)
    ranks: ForeignRanks = field(repr=False)
    rows: int

    def lines(self) -> list[str]:
        """What was found and what was done, for people."""
        record, found = self.record, self.ranks
        about = f"{record.label} on {record.dataset}, seed {record.seed}"
        counts = [
            (found.history, "rows left out: the user had the item before"),
            (found.others, "rows left out: their user has no test target"),
            (found.masked, "targets rank last: the user had the item before"),
            (found.unlisted, "targets are not listed and rank last"),
            (found.cut_ties, "targets tie with the end of a cut list: all below counts as equal"),
        ]
        lines = [f"{about}: {len(found.rank):,} test targets, {self.rows:,} rows"]
        lines.append(f"  data of fingerprint {record.data_fingerprint[:16]}")
        lines += [f"  {count:,} {what}" for count, what in counts if count]
        for name, value in record.metrics.items():
            bound = "" if gives_metric(record, name) else "  (at least)"
            lines.append(f"  {name:<12} {value:.6f}{bound}")
        return lines


def find_protocol(dataset: str, spec: Path | None, plugin: Path | None = None) -> Protocol:
    """The dataset and the protocol of a benchmark, or of the catalogue.

    Args:
        dataset: name of a dataset of the spec, or of the catalogue.
        spec: the benchmark that the results are for; None takes the suite's defaults.
        plugin: file with methods that the spec names.

    Raises:
        RequestError: there is no such dataset, or the spec's rows mask differently.
    """
    if spec is None:
        return Protocol(find_entry(dataset))
    benchmark = load_spec(spec, datasets=[dataset], plugin=plugin)
    masks = {bool(row.data_on(dataset)["mask_history"]) for row in benchmark.entrants}
    if len(masks) > 1:
        raise RequestError(f"{spec}: some rows mask the history on {dataset}, others do not")
    labels = tuple(benchmark.stated.labels)
    return Protocol(benchmark.datasets[0], masks.pop(), benchmark.name, labels)


def read_submission(
    path: Path,
    protocol: Protocol,
    facts: Facts,
    kind: Kind = "lists",
    ids: Ids = "original",
    columns: Mapping[str, str] | None = None,
    data_root: Path | None = None,
) -> Submission:
    """Read and rank a file; nothing is written but the prepared dataset.

    Args:
        path: lists or ranks, see `read_rows`.
        protocol: what they are to answer.
        facts: of the system.
        kind: what the file holds.
        ids: how it names users and items.
        columns: how it names its columns.
        data_root: where data files are looked for.

    Raises:
        RequestError: the file is not what it should be.
    """
    if facts.label in protocol.labels:
        raise RequestError(
            f"--label {facts.label}: is a row of {protocol.benchmark} itself; choose another"
        )
    dataset = load_prepared(prepare(protocol.entry, data_root))
    if not dataset.fingerprint.startswith(protocol.fingerprint):
        raise RequestError(
            f"{protocol.entry.name}: its data have fingerprint {dataset.fingerprint[:16]}, the "
            f"results are said to answer {protocol.fingerprint[:16]}; export the split again, and "
            "import what is trained on it"
        )
    targets = find_targets(dataset, protocol.mask_history)
    rows = read_rows(path, dataset, kind, ids, columns or {})
    ranks = (ranks_from_lists if kind == "lists" else ranks_from_ranks)(rows, targets)
    record = _record(dataset, protocol, facts, kind, targets, ranks)
    return Submission(record, targets, ranks, len(rows.user))


def write_submission(submission: Submission, runs: Path) -> tuple[Path, bool]:
    """Put results among the runs; the same results twice are no error.

    Returns:
        The trial's folder, and whether it is new.

    Raises:
        RequestError: the row is one of the suite's own, or has other results or facts.
        OSError: the disk is full or may not be written.
    """
    record, targets, rank = submission.record, submission.targets, submission.ranks.rank
    folder = trial_folder(runs, record.dataset, record.label, record.trial)
    for place, other in load_records(folder.parent) if folder.parent.is_dir() else []:
        if other.method != EXTERNAL:
            raise RequestError(
                f"{record.label}: is a row of the suite's own in {runs}; choose another label"
            )
        facts, known = (_lasting(found) for found in (record, other))
        if facts != known:
            raise RequestError(
                f"{record.label}: seed {other.seed} has other facts, protocol or data; give the "
                f"same, or delete {place}"
            )
        same = np.array_equal(load_ranks(place)["rank"], rank)
        if other.seed != record.seed and same:
            raise RequestError(
                f"{record.label}: seeds {other.seed} and {record.seed} have the same ranks; give "
                "each seed its own file, or say --deterministic"
            )
        if other.seed != record.seed:
            continue
        if not same:
            raise RequestError(
                f"{record.label}: seed {record.seed} has other results; delete {place} to replace "
                "them"
            )
        return place, False
    save_ranks(folder, targets.user, targets.key, rank)
    write_record(folder, record)
    return folder, True


def _record(
    dataset: PreparedDataset,
    protocol: Protocol,
    facts: Facts,
    kind: Kind,
    targets: HeldOut,
    ranks: ForeignRanks,
) -> TrialRecord:
    """What is known of results from elsewhere; all else stays empty."""
    trial = Trial(
        dataset=protocol.entry.name,
        source="",
        fingerprint=dataset.fingerprint,
        label=facts.label,
        method=EXTERNAL,
        class_path="",
        arguments={},
        data={"mask_history": protocol.mask_history, "window": None, "targets": None},
        training=Training(),
        seed=facts.seed,
        benchmark=protocol.benchmark,
    )
    blank = describe_trial(trial, dataset, _Elsewhere)
    known = {k: v for k, v in blank.protocol.items() if k not in ("window", "targets")}
    known["notes"] = [*known["notes"], _note(facts, kind, ranks)]
    history = targets.history
    return replace(
        blank,
        trial=_name(trial),
        status="done",
        data={"kind": kind},
        training={},
        metrics={
            name: mean_metric(name, targets.user, ranks.rank, history)
            for name in metric_names(history)
        },
        cost=Cost(parameters=facts.parameters),
        card=facts.card() | ({DEPTH: ranks.depth} if ranks.depth else {}),
        protocol=known,
    )


class _Elsewhere(Recommender):
    """Stands for a method whose code is not here."""

    CARD = Card(title="", paper="", code="", tiny={})


def _name(trial: Trial) -> str:
    """16 hex digits; ranks are no part of it, so that other results of a seed are found out."""
    parts = [trial.fingerprint, EXTERNAL, trial.label, trial.seed, trial.data["mask_history"]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _note(facts: Facts, kind: Kind, ranks: ForeignRanks) -> str:
    """What a page says of the row."""
    sources = [" ".join(text.split()) for text in (facts.title, facts.paper, facts.code) if text]
    origin = f" ({'; '.join(sources)})" if sources else ""
    note = f"`{facts.label}`{origin} was not run here: its {kind} were imported"
    if ranks.depth:
        note += (
            f"; lists of {ranks.depth} items or more: a target that is not listed ranks last, so "
            f"that MRR and metrics beyond @{ranks.depth} are lower bounds"
        )
    if ranks.cut_ties:
        note += (
            f"; {ranks.cut_ties:,} targets tie with the end of a cut list, where all below counts "
            "as equal, so that every metric is a lower bound"
        )
    return note


def _lasting(record: TrialRecord) -> list[Any]:
    """What all seeds of a row share."""
    card = {name: value for name, value in record.card.items() if name != DEPTH}
    masks = record.protocol.get("mask_history")
    return [
        record.data_fingerprint, masks, record.data, card, record.cost.parameters, record.benchmark,
    ]  # fmt: skip
