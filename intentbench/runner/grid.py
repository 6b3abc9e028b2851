"""A benchmark as trials: what there is, what is missing, and the running of it."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from datamodules import edge_noise, noise_training, sequence
from datamodules.catalog import DatasetEntry, catalog
from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from intentbench.models.takes import TakesDataset
from intentbench.results.fingerprint import code_fingerprint
from intentbench.results.record import TrialRecord
from intentbench.results.store import CHECKPOINT
from intentbench.runner.checks import check_builds, check_needs
from intentbench.runner.config import Trial
from intentbench.runner.entrants import Entrant
from intentbench.runner.executors import plan_slots, run_local
from intentbench.runner.jobs import Job, is_whole, read_finished
from intentbench.runner.order import describe_order, order_jobs, past_seconds
from intentbench.runner.progress import Progress
from intentbench.runner.trial import describe_trial
from intentbench.spec import BenchmarkSpec
from intentbench.termination import stopped_by_sigterm

LACKING = ("failed", "damaged", "missing")
STATES = ("done", "stale", *LACKING)


@dataclass(frozen=True)
class RunOptions:
    """How a benchmark is run; none of it changes a result, but for rounding.

    Attributes:
        out: root of all runs.
        data_root: where data files are looked for first.
        devices: see `intentbench.runner.executors.plan_slots`.
        trials_per_device: likewise.
        dry_run: only say what would be run.
        rerun_stale: run again what was made with other code.
        executor: "local", or "ray" for a cluster.
        address: of the cluster; see `intentbench.runner.ray_cluster.ClusterOptions`.
    """

    out: Path = Path("runs")
    data_root: Path | None = None
    devices: str = "auto"
    trials_per_device: int | None = None
    dry_run: bool = False
    rerun_stale: bool = False
    executor: str = "local"
    address: str = "auto"


@dataclass(frozen=True)
class Planned:
    """A trial of the grid and what is known of it.

    Attributes:
        job: how to run it.
        record: what an earlier run left, None where there is nothing.
        damage: what is wrong with what it left, "" for nothing; there is no record then.
    """

    job: Job
    record: TrialRecord | None
    damage: str = ""

    @property
    def state(self) -> str:
        """One of `STATES`; what failed or is damaged is run again."""
        if self.record is None:
            return "damaged" if self.damage else "missing"
        if self.record.status == "failed":
            return "failed"
        return "done" if self.record.code == self.job.trial.code else "stale"


@dataclass(frozen=True)
class GridResult:
    """The trials of a benchmark after a run.

    Attributes:
        trials: folder and record of every finished trial, in the order of the grid.
        failed: those that failed in this run.
    """

    trials: list[tuple[Path, TrialRecord]]
    failed: list[TrialRecord]


def build_trial(
    spec: BenchmarkSpec, entrant: Entrant, entry: DatasetEntry, dataset: PreparedDataset, seed: int
) -> Trial:
    """One cell of the grid: what the dataset gives is filled in."""
    given = {
        "n_items": dataset.n_items,
        "n_users": dataset.n_users,
        "window": entrant.data_on(entry.name)["window"],
    }
    base = entrant.pretrained
    start = build_trial(spec, base, entry, dataset, seed) if base else None
    takes = inspect.signature(entrant.cls.__init__).parameters
    arguments = {name: value for name, value in given.items() if name in takes}
    known = catalog().get(entry.name) == entry
    return Trial(
        dataset=entry.name,
        source=entry.name if known else str(dataset.folder),
        fingerprint=dataset.fingerprint,
        label=entrant.label,
        method=entrant.method,
        class_path=f"{entrant.cls.__module__}.{entrant.cls.__qualname__}",
        arguments={**entrant.arguments_on(entry.name), **arguments},
        data=entrant.data_on(entry.name),
        training=entrant.training,
        seed=seed,
        benchmark=spec.name,
        code=row_code(entrant),
        plugin=spec.plugin if entrant.cls.__module__ == Path(spec.plugin).stem else "",
        pretrained=f"{start.label}/{start.name}" if start else "",
        noise=entrant.noise,
        reads=_reads(entrant, entry.name, dataset),
    )


def plan_grid(spec: BenchmarkSpec, options: RunOptions) -> list[Planned]:
    """Every trial of a benchmark, datasets prepared, with what earlier runs left of it.

    Raises:
        RequestError: a dataset cannot be had, a method needs more than it has, or one that is to
            be trained cannot be built.
    """
    grid: list[Planned] = []
    for entry in spec.datasets:
        folder = prepare(entry, options.data_root)
        dataset = load_prepared(folder)
        for entrant in spec.entrants:
            check_needs(entrant, entry.name, dataset)
            cells = []
            for seed in spec.seeds_of(entrant):
                trial = build_trial(spec, entrant, entry, dataset, seed)
                place = trial.folder(options.out)
                record, damage = _look(place)
                blank = describe_trial(trial, dataset, entrant.cls)
                replaces = record.finished if record else ""
                after = place.parents[1] / trial.pretrained if trial.pretrained else None
                job = Job(trial, place, folder, blank, replaces, after)
                cells.append(Planned(job, record, damage))
            if any(cell.state in LACKING for cell in cells):
                check_builds(entrant, cells[0].job.trial)
            grid += cells
    return grid


def choose_jobs(grid: list[Planned], rerun_stale: bool) -> list[Job]:
    """What has to run: trials without a result, and those whose checkpoint these start from.

    Args:
        grid: every trial.
        rerun_stale: whether results of other code count as none.
    """
    wanted = {*LACKING, *(["stale"] if rerun_stale else [])}
    chosen = {planned.job.folder for planned in grid if planned.state in wanted}
    needed = {planned.job.after for planned in grid if planned.job.folder in chosen}
    # what was imported has no checkpoint, and a checkpoint of other code is none to start from
    chosen |= {
        planned.job.folder
        for planned in grid
        if planned.job.folder in needed
        and (planned.state != "done" or not is_whole(planned.job.folder / CHECKPOINT))
    }
    # a row made of what is trained anew must follow it, or it would not be made of what is shown
    again = {p.job.folder for p in grid if p.state == "stale"} & chosen
    chosen |= {planned.job.folder for planned in grid if planned.job.after in again}
    return [planned.job for planned in grid if planned.job.folder in chosen]


def run_grid(spec: BenchmarkSpec, options: RunOptions, console: Console) -> GridResult:
    """Run what a benchmark lacks.

    Args:
        spec: what.
        options: where and how.
        console: a plain one; gets progress and a summary.

    Raises:
        RequestError: nothing has been run; see `plan_slots` and `plan_grid`.
        KeyboardInterrupt: the person stopped it; finished trials are safe.
        SystemExit: likewise, with SIGTERM.
    """
    slots, run_jobs = _choose_executor(spec, options)
    grid = plan_grid(spec, options)
    jobs = choose_jobs(grid, options.rerun_stale)
    past = past_seconds(jobs)
    jobs = order_jobs(jobs, past)
    _say(console, *_describe_plan(spec, grid, jobs, options))
    if jobs and options.dry_run:
        states = {planned.job.folder: planned.state for planned in grid}
        _say(console, *describe_order(jobs, states, past, slots))
    found = {planned.job.folder: planned.record for planned in grid}
    failed: list[TrialRecord] = []
    if jobs and not options.dry_run:
        try:
            with stopped_by_sigterm(), Progress(console, len(jobs), slots or 1) as progress:
                for job, record in run_jobs(jobs, progress=progress):
                    found[job.folder] = record
                    if record.status == "failed":
                        failed.append(record)
        except (KeyboardInterrupt, SystemExit):
            _say(console, "interrupted; what has finished is kept: the same command goes on")
            raise
        if failed:
            _say(console, f"{len(failed)} of {len(jobs)} trials failed; their log.txt says more")
    trials = [(folder, record) for folder, record in found.items() if record is not None]
    return GridResult(trials, failed)


def _choose_executor(
    spec: BenchmarkSpec, options: RunOptions
) -> tuple[int | None, Callable[..., Iterator[tuple[Job, TrialRecord]]]]:
    """How many trials run at once, None where that is not known, and what runs them."""
    processes = max(entrant.training.processes for entrant in spec.entrants)
    if options.executor == "ray":
        from intentbench.runner.ray_cluster import ClusterOptions
        from intentbench.runner.ray_executor import run_ray

        where = ClusterOptions(
            options.address,
            options.out,
            options.devices,
            options.trials_per_device,
            spec.size,
            processes,
        )
        return None, partial(run_ray, options=where, timeout=spec.timeout, memory=spec.memory)
    slots = plan_slots(
        options.devices,
        options.trials_per_device,
        spec.size,
        processes,
    )
    return len(slots), partial(run_local, slots=slots, timeout=spec.timeout, memory=spec.memory)


def _reads(entrant: Entrant, name: str, dataset: PreparedDataset) -> str:
    """What a row reads besides the prepared data; "" for nothing."""
    if not issubclass(entrant.cls, TakesDataset):
        return ""
    return entrant.cls.reads(dataset, entrant.arguments_on(name))


def _describe_plan(
    spec: BenchmarkSpec, grid: list[Planned], jobs: list[Job], options: RunOptions
) -> Iterator[str]:
    states = [planned.state for planned in grid]
    counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
    yield f"{spec.name}: {len(grid)} trials ({', '.join(counts)}) in {options.out}"
    if "stale" in states and not options.rerun_stale:
        rows = dict.fromkeys(p.job.trial.label for p in grid if p.state == "stale")
        yield f"stale, made with other code: {', '.join(rows)}; --rerun-stale runs them again"
    for planned in grid:
        if planned.damage:
            yield f"damaged, set aside and run again: {planned.damage}"
    if not jobs:
        yield "nothing to do"


def _look(place: Path) -> tuple[TrialRecord | None, str]:
    """The record of a folder, and what is wrong with it."""
    try:
        return read_finished(place), ""
    except RequestError as error:
        return None, str(error).partition("; ")[0]  # without its advice


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line)


def row_code(entrant: Entrant) -> str:
    """The fingerprint of all code that a row's results depend on, as it is today."""
    files = [inspect.getfile(entrant.cls), sequence.__file__]
    if entrant.data.get("added_pairs"):
        files.append(edge_noise.__file__)
    if entrant.noise:
        files.append(noise_training.__file__)
    return code_fingerprint([Path(file) for file in files])
