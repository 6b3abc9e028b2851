"""Rows of a benchmark searched for better arguments, each with the same budget, on validation."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import Trial as StudyTrial

from datamodules.errors import RequestError
from datamodules.prepared import VALID, load_prepared
from intentbench.results.environment import describe_environment
from intentbench.results.store import CHECKPOINT, read_record
from intentbench.runner.entrants import Entrant
from intentbench.runner.executors import POLL, keep_limits
from intentbench.runner.grid import RunOptions, plan_grid
from intentbench.runner.jobs import Job, Slot
from intentbench.runner.spaces import Space, find_space
from intentbench.runner.studies import Searcher, Tally
from intentbench.runner.tuned import Budget, Tuned
from intentbench.runner.tuning_locks import lock_path
from intentbench.runner.tuning_worker import Answer, run_attempt
from intentbench.runner.worker import Worker, end_all, wait_for
from intentbench.spec import BenchmarkSpec

UNSAID = "declares no search space; name one under `search:`, as docs/tuning.md says,"
"""Of a row whose method's file does not say what may be searched."""


@dataclass(frozen=True)
class Search:
    """A row on a dataset, and where its arguments are searched.

    Attributes:
        entrant: the row.
        job: its training with the values that stand there untuned.
        space: of the arguments that are searched; empty where nothing is.
        present: the values that stand there now.
        without: why nothing is searched, "" where something is.
        hindrance: why it cannot be searched now, "" where it can.
    """

    entrant: Entrant
    job: Job
    space: Space
    present: dict[str, Any] = field(default_factory=dict)
    without: str = ""
    hindrance: str = ""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.job.trial.dataset} {self.entrant.label}"

    @property
    def start(self) -> dict[str, Any]:
        """The values that stand there untuned."""
        return {name: self.job.trial.arguments[name] for name in self.space}

    @property
    def digest(self) -> str:
        """8 hex digits of all that makes it this search: data, arguments, code, space."""
        trial = self.job.trial
        space = {name: asdict(dimension) for name, dimension in self.space.items()}
        parts = json.dumps([trial.name, trial.code, space], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:8]

    @property
    def study(self) -> str:
        """Name of its study: another setting, other code or other data is another study."""
        trial = self.job.trial
        return f"{trial.benchmark}.{trial.dataset}.{trial.label}.{self.digest}"

    def folder(self, out: Path) -> Path:
        """Where its trainings lie."""
        trial = self.job.trial
        return out / trial.benchmark / trial.dataset / trial.label / self.digest

    def attempt(self, out: Path, number: int, point: dict[str, Any]) -> Job:
        """The training at a point."""
        arguments = {**self.job.trial.arguments, **point}
        trial = replace(self.job.trial, arguments=arguments, noise={})
        return replace(self.job, trial=trial, folder=self.folder(out) / f"{number:04}")


@dataclass(frozen=True)
class Way:
    """How searches are run.

    Attributes:
        slots: where trainings run.
        place: storage of the studies; see `intentbench.runner.tuning_worker.open_storage`.
        out: folder of the trainings.
        trials: the budget of each search.
        seed: of the sampler.
        timeout: seconds a training, None for no limit.
        memory: bytes that a training's processes may hold together, None for no limit.
    """

    slots: list[Slot]
    place: str
    out: Path
    trials: int
    seed: int
    timeout: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Attempt:
    """A training of a search that has ended.

    Attributes:
        number: in the study.
        point: its values.
        answer: how it ended.
        tally: of the search, with it.
    """

    number: int
    point: dict[str, Any]
    answer: Answer
    tally: Tally


def plan_searches(
    spec: BenchmarkSpec, labels: tuple[str, ...], runs: Path, data_root: Path | None, seed: int
) -> list[Search]:
    """Every row on every dataset, and what of it is searched.

    A row's own arguments stay. So does a value that lies outside the method's space, such as a
    weight of 0: it was decided.

    Args:
        spec: with the rows, and those that they start from.
        labels: of the rows.
        runs: root of all runs; has the checkpoints that rows start from.
        data_root: where data files are looked for first.
        seed: of every training.

    Returns:
        The searches, those of rows that start from another one last.

    Raises:
        RequestError: a dataset cannot be had, has no validation events or less than a method needs,
            a space is wrong, or a row trains in several processes.
    """
    present = {entrant.label: entrant for entrant in spec.entrants}
    untuned = {e.label: replace(e, tuned={}) if e.label in labels else e for e in spec.entrants}
    spaces = {
        label: find_space(row.method, row.cls, row.search, str(row.settings))
        for label, row in untuned.items()
        if label in labels
    }
    for label, space in spaces.items():
        if space and untuned[label].training.processes > 1:
            raise RequestError(
                f"{label}: training.processes: a search trains in one process; "
                "--set training.processes=1"
            )
    spec = replace(spec, entrants=tuple(untuned.values()), seeds=(seed,))
    grid = plan_grid(spec, RunOptions(out=runs, data_root=data_root))
    for folder, name in {
        planned.job.prepared: planned.job.trial.dataset for planned in grid
    }.items():
        if not (load_prepared(folder).split == VALID).any():
            raise RequestError(f"{name}: has no validation events, by which tune chooses")
    searches = []
    for job in (planned.job for planned in grid if planned.job.trial.label in labels):
        label, dataset = job.trial.label, job.trial.dataset
        search = _search(untuned[label], job, spaces[label])
        now = present[label].arguments_on(dataset)
        searches.append(replace(search, present={name: now[name] for name in search.space}))
    return sorted(searches, key=lambda search: search.entrant.pretrained is not None)


def _search(entrant: Entrant, job: Job, space: Space | None) -> Search:
    if not space:
        without = "nothing to tune" if space is not None else f"{UNSAID} in {entrant.settings}"
        return Search(entrant, job, {}, without=without)
    now = job.trial.arguments
    free = {
        name: dimension
        for name, dimension in space.items()
        if name not in entrant.own and dimension.holds(now[name])
    }
    if not free:
        without = (
            "nothing is left to search: the row gives the arguments itself, or their values lie "
            "outside the space"
        )
        return Search(entrant, job, {}, without=without)
    base = job.after
    if base is not None:
        record = read_record(base)
        if record is None or record.status != "done" or not (base / CHECKPOINT).exists():
            start = job.trial.pretrained.partition("/")[0]
            hindrance = (
                f"starts from {start!r}, which has not been trained: `intentbench run` with "
                f"--models {start} --datasets {job.trial.dataset} --seeds {job.trial.seed}"
            )
            return Search(entrant, job, free, hindrance=hindrance)
    return Search(entrant, job, free)


def run_search(search: Search, searcher: Searcher, way: Way) -> Iterator[Attempt]:
    """Train until the budget is used up; whatever happens to one training leaves the others alone.

    Args:
        search: what.
        searcher: of its study.
        way: how.

    Yields:
        Each training that has ended.

    Raises:
        RequestError: another search, of another storage, trains in the same folder.
    """
    with lock_path(search.folder(way.out), f"--out {way.out}"):
        yield from _attempts(search, searcher, way)


def _attempts(search: Search, searcher: Searcher, way: Way) -> Iterator[Attempt]:
    free = way.slots[::-1]
    running = dict[Worker, tuple[StudyTrial, dict[str, Any]]]()
    for cut_short in search.folder(way.out).glob("*"):
        _forget_weights(cut_short)
    try:
        while running or searcher.wants(0):
            while free and searcher.wants(len(running)):
                trial, point = searcher.ask()
                job = search.attempt(way.out, trial.number, point)
                target = partial(run_attempt, way.place, searcher.name, trial._trial_id)
                running[Worker(job, free.pop(), target)] = trial, point
            wait_for([*running], POLL)
            keep_limits([*running], way.timeout, way.memory)
            for worker in [worker for worker in running if worker.ended()]:
                trial, point = running.pop(worker)
                free.append(worker.slot)
                _forget_weights(worker.job.folder)
                answer = _answer(worker)
                searcher.tell(trial, answer)
                yield Attempt(trial.number, point, answer, searcher.tally())
    finally:
        end_all([*running])


def _forget_weights(folder: Path) -> None:
    """Networks would fill the disk; what a search is for is the values."""
    with suppress(OSError):
        (folder / CHECKPOINT).unlink()


def _answer(worker: Worker) -> Answer:
    if isinstance(worker.answer, Answer):
        return worker.answer
    reason = worker.reason or f"its process was lost (exit code {worker.exitcode})"
    return Answer("failed", reason=reason, seconds=round(worker.seconds, 2))


def chosen(search: Search, searcher: Searcher) -> Tuned | None:
    """What a search has found; None where no training has ended by itself."""
    best = searcher.best()
    if best is None:
        return None
    point, value = best
    tally, before = searcher.tally(), searcher.before()
    trial = search.job.trial
    budget = Budget(
        study=searcher.name,
        sampler=searcher.sampler,
        seed=searcher.seed,
        trials=tally.counted,
        pruned=tally.pruned,
        failed=tally.failed,
        seconds=round(tally.seconds, 1),
        metric=trial.training.monitor,
        value=round(value, 6),
        before=None if before is None else round(before, 6),
        data=trial.fingerprint[:16],
        commit=_commit(),
    )
    return Tuned(point, budget)


def _commit() -> str:
    found = describe_environment("cpu", 1)
    return f"{found['commit']}-dirty" if found["dirty"] else str(found["commit"])
