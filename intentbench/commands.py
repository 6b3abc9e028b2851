"""What the commands do that is more than a call: the list of what there is, the page of a run."""

import ast
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from datamodules.catalog import catalog
from intentbench.models import method_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from intentbench.reports.cells import Result
    from intentbench.results.record import TrialRecord
    from intentbench.runner.grid import GridResult
    from intentbench.spec import BenchmarkSpec

ORACLE = "oracle"
"""Label and method of the row that no method can pass; synthetic data only."""


def describe_all(what: str | None = None) -> str:
    """Methods, datasets and benchmarks, one a line; imports no torch.

    Args:
        what: "models", "datasets" or "benchmarks"; all when None.
    """
    parts = {
        "models": lambda: [(key, _summary(path)) for key, path in method_table().items()],
        "datasets": lambda: [(name, entry.title) for name, entry in catalog().items()],
        "benchmarks": lambda: [
            (str(p), _title(p))
            for folder in ("benchmarks", "benchmarks/studies")
            for p in sorted(Path(folder).glob("*.yaml"))
        ],
    }
    lines = []
    for name in [what] if what else parts:
        rows = parts[name]()
        width = max((len(key) for key, _ in rows), default=0)
        lines += [f"{name}:", *(f"  {key:{width}}  {text}".rstrip() for key, text in rows), ""]
    return "\n".join(lines[:-1]) + "\n"


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


def inspect_intents(
    run: Path,
    out: Path,
    data_root: Path | None,
    users: int | None,
    tsne: bool,
    projector: Path | None,
) -> tuple[list[Path], dict[str, Any]]:
    """Export, measure and draw the intents of a trial.

    Args:
        run: the trial's folder.
        out: the table, `.parquet`; numbers (`.json`) and pictures (`.svg`) go beside it.
        data_root: where data files are looked for.
        users: how many users, spread evenly; None for all.
        tsne: draw by t-SNE too.
        projector: folder for TensorBoard's projector, None for none.

    Returns:
        The files written, and the numbers.

    Raises:
        RequestError: there is no such trial, or its method models no intents.
    """
    from intentbench.reports.intent_pictures import Projection, draw_intents
    from intentbench.results.store import CHECKPOINT
    from intentbench.runner.inspection import intent_frame, measure_intents, write_projector
    from intentbench.runner.intents import check_intents, collect_intents, spread_users
    from intentbench.runner.recommend import load_trained

    model, data = load_trained(run / CHECKPOINT, data_root)
    method = check_intents(model, str(run))
    chosen = spread_users(data.n_users, users)
    table = collect_intents(method, data.dataset, data.window, chosen)
    numbers = measure_intents(table, method, data)
    out.parent.mkdir(parents=True, exist_ok=True)
    intent_frame(table).write_parquet(out)
    facts = out.with_suffix(".json")
    facts.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    written = [out, facts]
    last = table.last_of_users()
    colours = {"category" if table.own else "category by k-means": last.intent}
    if (planted := last.planted()) is not None:
        colours["planted intent"] = planted
    projections: list[Projection] = ["pca", "tsne"] if tsne else ["pca"]
    for projection in projections:
        picture = out.with_suffix(f".{projection}.svg")
        title = f"{method.CARD.title} on {data.dataset.meta.name}"
        draw_intents(picture, title, last.vectors, colours, last.interests, projection)
        written.append(picture)
    if projector is not None:
        write_projector(projector, last)
        written.append(projector)
    return written, numbers


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


def _summary(path: str) -> str:
    """First line of the docstring of a method's module, read without importing it."""
    found = find_spec(path.split(":")[0])
    if found is None or found.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]


def _title(path: Path) -> str:
    """The title of a benchmark."""
    return str(yaml.safe_load(path.read_text(encoding="utf-8")).get("title", ""))
