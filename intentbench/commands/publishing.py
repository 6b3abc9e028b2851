"""The page of a benchmark that has run."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from intentbench.reports.cells import Result
    from intentbench.results.record import TrialRecord
    from intentbench.runner.grid import GridResult
    from intentbench.spec import BenchmarkSpec

ORACLE = "oracle"
"""Label and method of the row that no method can pass; synthetic data only."""


def publish_benchmark(
    spec: "BenchmarkSpec", result: "GridResult", file: Path, out: Path, runs: Path
) -> list[Path]:
    """Write the leaderboard of a benchmark that has run.

    Where a person picked rows, datasets or seeds, the rest of the page stays as it was published.

    Args:
        spec: the benchmark.
        result: its trials.
        file: where the spec was read from.
        out: folder of all leaderboards.
        runs: root of all runs; gets the oracle's ranks.

    Returns:
        The pages written; none where nothing has finished.
    """
    from intentbench.reports.cells import attach_ranks
    from intentbench.reports.plan import Plan
    from intentbench.reports.publish import publish_results

    done = [(folder, record) for folder, record in result.trials if record.status == "done"]
    if not done:
        return []
    plan = Plan(
        title=spec.title,
        reference=spec.stated.reference,
        datasets=spec.stated.datasets,
        labels=spec.stated.labels,
        seeds=tuple(dict.fromkeys([*spec.stated.seeds, *spec.seeds])),
        command=f"intentbench run {file}",
        groups=spec.groups,
        code=result.code,
    )
    trials = [*result.trials, *_oracles(spec, [record for _, record in done], runs)]
    results = attach_ranks(trials)
    return publish_results([*results, *_kept(out, spec, results)], spec.name, out, plan)


def _kept(out: Path, spec: "BenchmarkSpec", fresh: "list[Result]") -> "list[Result]":
    """Published trials that a run of chosen parts did not make anew and does not contradict."""
    from intentbench.reports.archive import is_archive, read_archive
    from intentbench.reports.cells import noise_settings
    from intentbench.reports.publish import RANKS

    chosen = (len(spec.entrants), len(spec.datasets), spec.seeds)
    stated = (len(spec.stated.labels), len(spec.stated.datasets), spec.stated.seeds)
    if chosen == stated or not is_archive(folder := out / RANKS / spec.name):
        return []
    made = {(record.dataset, record.label, record.seed) for record, _ in fresh}
    cells = {(record.dataset, record.label): record for record, _ in fresh}
    fingerprints = {record.dataset: record.data_fingerprint for record, _ in fresh}

    def fits(record: "TrialRecord") -> bool:
        if (record.dataset, record.label, record.seed) in made:
            return False
        data = fingerprints.get(record.dataset, record.data_fingerprint)
        if record.dataset not in spec.stated.datasets or record.data_fingerprint != data:
            return False
        same = cells.get((record.dataset, record.label))
        if same is None:
            return record.label in (*spec.stated.labels, ORACLE)
        parts = ("arguments", "data", "training")
        if any(getattr(record, part) != getattr(same, part) for part in parts):
            return False
        failed = "failed" in (record.status, same.status)  # then nothing is known of noise
        return failed or noise_settings(record) == noise_settings(same)

    return [result for result in read_archive(folder)[2] if fits(result[0])]


def _oracles(
    spec: "BenchmarkSpec", done: "list[TrialRecord]", runs: Path
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
            dataset = load_prepared(prepare(entry))
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
                noise=[],
                cost=Cost(),
                code="",
                card={"title": "Oracle", "deterministic": True, "published": []},
            )
            write_record(folder, record)
        yield folder, record
