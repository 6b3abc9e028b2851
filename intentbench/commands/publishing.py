"""The page of a benchmark that has run."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.errors import RequestError
from intentbench.commands.shared import below_here
from intentbench.results.record import ORACLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy import integer
    from numpy.typing import NDArray

    from datamodules.prepared import PreparedDataset
    from intentbench.reports.cells import Result
    from intentbench.results.record import TrialRecord
    from intentbench.runner.grid import GridResult
    from intentbench.spec import BenchmarkSpec


def publish_benchmark(
    spec: "BenchmarkSpec",
    result: "GridResult",
    commands: tuple[str, str],
    out: Path,
    runs: Path,
    data_root: Path | None = None,
) -> list[Path]:
    """Write the leaderboard of a benchmark that has run.

    Where a person picked rows, datasets or seeds, the rest of the page stays as it was published.

    Args:
        spec: the benchmark.
        result: its trials.
        commands: what runs the benchmark again, and what trains one of its cells again.
        out: folder of all leaderboards.
        runs: root of all runs; gets the oracle's ranks.
        data_root: where data files are looked for first.

    Returns:
        The pages written; none where nothing has finished.

    Raises:
        RequestError: trials do not belong together, or not to those that stay published, or a
            dataset cannot be had any more.
    """
    from intentbench.reports.cells import attach_ranks
    from intentbench.reports.plan import Plan
    from intentbench.reports.publish import publish_results
    from intentbench.runner.grid import row_code

    done = [(folder, record) for folder, record in result.trials if record.status == "done"]
    if not done:
        return []
    plan = Plan(
        title=spec.title,
        reference=spec.stated.reference,
        datasets=spec.stated.datasets,
        labels=spec.stated.labels,
        seeds=tuple(dict.fromkeys([*spec.stated.seeds, *spec.seeds])),
        command=commands[0],
        reproduce=commands[1],
        folder=str(below_here(out)),
        groups=spec.groups,
        family=spec.family,
        correction=spec.correction,
        code={row.label: row_code(row) for row in spec.stated.rows},  # of kept rows, too
        tuning=spec.stated.tuning,
    )
    ceilings = _oracles(spec, [record for _, record in done], runs, data_root)
    trials = [*result.trials, *ceilings, *_imported(spec, runs)]
    results = _with_popularity(spec, attach_ranks(trials), data_root)
    kept = _kept(out, spec, results)
    # What failed here takes nothing from what was published.
    there = {(record.dataset, record.label, record.seed) for record, _ in kept}
    fresh = [r for r in results if (r[0].dataset, r[0].label, r[0].seed) not in there]
    shown = [*fresh, *kept]
    plan = replace(plan, settings=_other_settings(spec, [record for record, _ in shown]))
    return publish_results(shown, spec.name, out, plan)


def _other_settings(
    spec: "BenchmarkSpec", records: "list[TrialRecord]"
) -> dict[str, dict[str, dict[str, Any]]]:
    """What the spec has now, by dataset and label, for rows that were made with other settings."""
    from intentbench.reports.other_settings import changed_settings

    rows = {row.label: row for row in spec.stated.rows}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        if (row := rows.get(record.label)) is None:  # the oracle, or imported
            continue
        now = {
            "method": row.method,
            "arguments": row.arguments_on(record.dataset),
            "data": row.data_on(record.dataset),
            "training": row.training.settings(),
        }
        if changed_settings(record, now):
            found.setdefault(record.dataset, {})[record.label] = now
    return found


def _with_popularity(
    spec: "BenchmarkSpec", results: "list[Result]", data_root: Path | None
) -> "list[Result]":
    """Results whose ranks say how popular each target's item is."""
    from datamodules.prepare import prepare
    from datamodules.prepared import load_prepared

    entries = {entry.name: entry for entry in spec.datasets}
    data: dict[str, PreparedDataset] = {}
    found: list[Result] = []
    for record, ranks in results:
        if ranks is not None and (entry := entries.get(record.dataset)):
            if entry.name not in data:
                data[entry.name] = load_prepared(prepare(entry, data_root))
            popularity = target_popularity(data[entry.name], ranks["user"], ranks["key"])
            ranks = {**ranks, "popularity": popularity}
        found.append((record, ranks))
    return found


def target_popularity(
    dataset: "PreparedDataset", user: "NDArray[integer]", key: "NDArray[integer]"
) -> "NDArray[integer]":
    """Training interactions of the items of targets.

    Args:
        dataset: prepared.
        user: (T,) user of each target.
        key: (T,) its position among the user's events.

    Returns:
        (T,) 0 for an item that is no user's training item.
    """
    import numpy as np

    from datamodules.prepared import TRAIN

    items = dataset.items.numpy()
    counts = np.bincount(items[dataset.split.numpy() == TRAIN], minlength=dataset.n_items + 1)
    popularity: NDArray[integer] = counts[items[dataset.offsets.numpy()[user] + key]]
    return popularity


def _imported(spec: "BenchmarkSpec", runs: Path) -> "Iterator[tuple[Path, TrialRecord]]":
    """Results of other systems that were imported for this benchmark."""
    from intentbench.results.external import EXTERNAL
    from intentbench.results.store import load_records

    own = {*spec.stated.labels, ORACLE}
    for entry in spec.datasets:
        for row in sorted((runs / entry.name).iterdir()):
            for folder, record in load_records(row) if row.is_dir() and row.name not in own else ():
                if record.method == EXTERNAL and record.benchmark == spec.name:
                    yield folder, record


def _kept(out: Path, spec: "BenchmarkSpec", fresh: "list[Result]") -> "list[Result]":
    """Published trials that a run did not make anew and does not contradict.

    A run of the whole benchmark keeps imported rows, and what it tried and failed to make.
    """
    from intentbench.reports.archive import is_archive, read_archive, restore_aside
    from intentbench.reports.cells import noise_settings, shared_protocol
    from intentbench.reports.publish import RANKS
    from intentbench.results.external import EXTERNAL

    chosen = (len(spec.entrants), len(spec.datasets), spec.seeds)
    stated = (len(spec.stated.labels), len(spec.stated.datasets), spec.stated.seeds)
    folder = out / RANKS / spec.name
    restore_aside(folder)
    if not is_archive(folder):
        return []
    status = {(r.dataset, r.label, r.seed): r.status for r, _ in fresh}
    cells = {(record.dataset, record.label): record for record, _ in fresh}
    boards = {record.dataset: record for record, ranks in fresh if ranks is not None}

    def of_one_table(record: "TrialRecord", board: "TrialRecord") -> bool:
        return (record.data_fingerprint, shared_protocol(record)) == (
            board.data_fingerprint,
            shared_protocol(board),
        )

    def fits(record: "TrialRecord") -> bool:
        tried = status.get((record.dataset, record.label, record.seed))
        if tried == "done" or (tried and record.status == "failed"):
            return False
        if chosen == stated and not tried and record.method != EXTERNAL:
            return False
        board = boards.get(record.dataset, record)
        if record.dataset not in spec.stated.datasets:
            return False
        if not of_one_table(record, board):
            return False
        same = cells.get((record.dataset, record.label))
        if same is None:
            return record.label in (*spec.stated.labels, ORACLE) or record.method == EXTERNAL
        parts = ("method", "arguments", "data", "training")
        if any(getattr(record, part) != getattr(same, part) for part in parts):
            return False
        if record.protocol.get("texts") != same.protocol.get("texts", record.protocol.get("texts")):
            return False
        failed = "failed" in (record.status, same.status)  # then nothing is known of noise
        return failed or noise_settings(record) == noise_settings(same)

    published = read_archive(folder)[2]
    others = [
        f"{record.dataset} {record.label}"
        for record, _ in published
        if (record.dataset, record.label) not in cells
        and record.label in spec.stated.labels
        and not of_one_table(record, boards.get(record.dataset, record))
    ]
    if others and chosen != stated:
        raise RequestError(
            f"{folder}: {len(others)} published rows are of other data or another protocol "
            f"({others[0]}, for one) and would be lost; run the whole benchmark, or publish in "
            "another folder with --leaderboards"
        )
    return [result for result in published if fits(result[0])]


def _oracles(
    spec: "BenchmarkSpec", done: "list[TrialRecord]", runs: Path, data_root: Path | None
) -> "Iterator[tuple[Path, TrialRecord]]":
    """The ceiling of each synthetic dataset, stored like a trial."""
    from datamodules.oracle import oracle_ranks
    from datamodules.prepare import prepare
    from datamodules.prepared import load_prepared
    from intentbench.metrics.users import mean_metric
    from intentbench.results.record import Cost
    from intentbench.results.store import read_record, save_ranks, trial_folder, write_record

    for entry in spec.datasets:
        like = next((record for record in done if record.dataset == entry.name), None)
        if entry.reader != "synthetic" or like is None:
            continue
        folder = trial_folder(runs, entry.name, ORACLE, like.data_fingerprint[:16])
        record = read_record(folder)
        if record is None:
            dataset = load_prepared(prepare(entry, data_root))
            user, key, rank = oracle_ranks(dataset)
            save_ranks(folder, user, key, rank)
            history = dataset.meta.history
            record = replace(
                like,
                trial=folder.name,
                label=ORACLE,
                method=ORACLE,
                seed=0,
                arguments={},
                training={},
                metrics={name: mean_metric(name, user, rank, history) for name in like.metrics},
                validation={},
                best_epoch=-1,
                curve=[],
                signs=[],
                intents={},
                noise=[],
                cost=Cost(),
                code="",
                card={"title": "Oracle", "deterministic": True, "published": []},
            )
            write_record(folder, record)
        # stored by another benchmark perhaps, which masks otherwise
        yield folder, replace(record, protocol=like.protocol)
