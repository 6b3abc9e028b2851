"""A search as a study of Optuna: resumed, asked for points, told what they came to."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from datamodules.errors import RequestError
from intentbench.runner.spaces import Choice, Dimension, Space, all_points, count_points
from intentbench.runner.tuning_worker import Answer, open_storage

STARTUP = 6
"""Trainings that complete or are pruned before TPE has enough to learn from."""

HEAD = b'{"op_code"'
"""How a journal begins."""

REPEATS = "repeats"
"""Attribute of a trial whose point was known: the number of the trial that it repeats."""

TRIES = 20
"""Points that are proposed, where all are known, until one of them is trained again."""

INTERRUPTED = "interrupted"
"""Reason of a training that ended because the search did: it is made up for."""


@dataclass(frozen=True)
class Tally:
    """The trainings of a study.

    Attributes:
        complete: ended by themselves.
        pruned: stopped early.
        failed: failed; interrupted ones are left out.
        seconds: of all these together.
    """

    complete: int
    pruned: int
    failed: int
    seconds: float

    @property
    def counted(self) -> int:
        """Those that use up the budget."""
        return self.complete + self.pruned


class Searcher:
    """Asks for points of a space and is told of them, up to a budget.

    Whatever stood as running in the storage was cut short, so that only one may work on a storage
    at a time: hold its lock.

    Args:
        place: storage; see `open_storage`.
        name: of the study.
        space: what is searched.
        start: the values that stand there untuned: the first point.
        budget: trainings that complete or are pruned, at most.
        seed: of the sampler.
        present: the values that stand there now: the second point, where it lies in the space.

    Raises:
        RequestError: the storage cannot be read.
    """

    def __init__(
        self,
        place: str,
        name: str,
        space: Space,
        start: dict[str, Any],
        budget: int,
        seed: int,
        present: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.space = space
        self.start = self.clean(start)
        self.seed = seed
        points = count_points(space)
        self.grid = points <= budget
        self.budget = int(points) if self.grid else budget
        self.patience = self.budget
        self.study = _open(place, name)
        self._make_up()
        self._enqueue(self.start)
        if present and all(space[name].holds(present[name]) for name in space):
            self._enqueue(self.clean(present))
        for point in all_points(space) if self.grid else ():
            self._enqueue(point)

    @property
    def sampler(self) -> str:
        """What chooses points."""
        return "grid" if self.grid else "TPE"

    def tally(self) -> Tally:
        """What there is so far."""
        trials = [t for t in self.study.get_trials(deepcopy=False) if REPEATS not in t.user_attrs]
        states = [trial.state for trial in trials]
        failed = [trial for trial in trials if trial.state == TrialState.FAIL]
        return Tally(
            states.count(TrialState.COMPLETE),
            states.count(TrialState.PRUNED),
            sum(trial.user_attrs.get("reason") != INTERRUPTED for trial in failed),
            math.fsum(trial.user_attrs.get("seconds", 0.0) for trial in trials),
        )

    def wants(self, running: int) -> bool:
        """Whether another training is to be started beside those that run.

        As many as are asked for may fail before the search gives up.
        """
        tally = self.tally()
        if tally.counted + running >= self.budget or tally.failed >= self.patience:
            return False
        waiting = self.study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        return bool(waiting) or not self.grid

    def ask(self) -> tuple[optuna.trial.Trial, dict[str, Any]]:
        """The next trial and its point; the seed and what is known decide it.

        A point that was tried, whatever came of it, is told as failed at once and uses up nothing,
        so that a budget is of different points, unless nothing else is proposed. Neither TPE nor
        the pruner learns of it twice.
        """
        for _ in range(TRIES):
            trial = self._draw()
            known = self._known(self.clean(trial.params), trial.number)
            if known is None:
                break
            trial.set_user_attr(REPEATS, known)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            trial = self._draw()
        return trial, self.clean(trial.params)

    def _draw(self) -> optuna.trial.Trial:
        waiting = self.study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        number = len(self.study.get_trials(deepcopy=False)) - len(waiting)
        drawn = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        self.study.sampler = TPESampler(n_startup_trials=STARTUP, seed=drawn)
        return self.study.ask({name: _distribution(d) for name, d in self.space.items()})

    def _enqueue(self, point: dict[str, Any]) -> None:
        if self._known(point) is None:
            self.study.enqueue_trial(point, skip_if_exists=True)

    def _known(self, point: dict[str, Any], but: int | None = None) -> int | None:
        """The number of the first trial that tried a point, or is trying it."""
        for trial in self.study.get_trials(deepcopy=False):
            left = trial.state == TrialState.WAITING or trial.params.keys() != self.space.keys()
            idle = REPEATS in trial.user_attrs or trial.user_attrs.get("reason") == INTERRUPTED
            if trial.number != but and not left and not idle and self.clean(trial.params) == point:
                return int(trial.number)
        return None

    def _done(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    def tell(self, trial: optuna.trial.Trial, answer: Answer) -> None:
        """How a training ended."""
        trial.set_user_attr("seconds", answer.seconds)
        if answer.state == "complete":
            self.study.tell(trial, answer.value)
            return
        if answer.state == "failed":
            trial.set_user_attr("reason", answer.reason)
        state = TrialState.PRUNED if answer.state == "pruned" else TrialState.FAIL
        self.study.tell(trial, state=state)

    def best(self) -> tuple[dict[str, Any], float] | None:
        """The best point and its value, of equals the earliest; None where nothing has ended."""
        done = self._done()
        if not done:
            return None
        trial = max(done, key=lambda trial: (trial.value or 0.0, -trial.number))
        return self.clean(trial.params), float(trial.value or 0.0)

    def before(self) -> float | None:
        """What the untuned values came to; None where that did not complete."""
        done = self._done()
        return next((t.value for t in done if self.clean(t.params) == self.start), None)

    def clean(self, params: dict[str, Any]) -> dict[str, Any]:
        """A point as it is trained and written, in the order of the space."""
        return {name: self.space[name].clean(params[name]) for name in self.space}

    def _make_up(self) -> None:
        """Mark what was cut short as failed, and ask for its points again."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if point := _point(trial, self.space):
                self.study.enqueue_trial(point)
            running = optuna.trial.Trial(self.study, trial._trial_id)
            self.tell(running, Answer("failed", reason=INTERRUPTED))


def _open(place: str, name: str) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if "://" not in place:
            _mend(Path(place))
        return optuna.create_study(
            storage=open_storage(place), study_name=name, direction="maximize", load_if_exists=True
        )
    except (SQLAlchemyError, ImportError, OSError, ValueError, KeyError, TypeError) as error:
        damage = _damage(Path(place)) if isinstance(error, ValueError) else ""
        line = damage or next(iter(str(error).splitlines()), "")
        raise RequestError(f"--storage {place}: cannot be read: {line}") from None


def _mend(journal: Path) -> None:
    """Cut off a last line that a full disk or a power cut left unfinished, and Optuna's lock.

    Raises:
        RequestError: it is no journal.
    """
    journal = journal.resolve()
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock = journal.with_name(f"{journal.name}.lock")
    if lock.is_symlink():  # of a search that was killed: only one works on a storage
        lock.unlink()
    if not journal.is_file():
        return
    with journal.open("r+b") as file:
        if not HEAD.startswith(file.read(len(HEAD))):
            raise RequestError(
                f"--storage {journal}: is no journal of searches; a database is sqlite:///{journal}"
            )
        file.seek(0)
        text = file.read()
        if not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)


def _damage(journal: Path) -> str:
    """Which line of a journal is none, "" where all are, or where it is no file."""
    if not journal.is_file():
        return ""
    for number, line in enumerate(journal.read_bytes().splitlines(), 1):
        try:
            json.loads(line)
        except ValueError:
            return f"line {number} is damaged; keep the lines above it, or name another file"
    return ""


def _point(trial: FrozenTrial, names: Iterable[str]) -> dict[str, Any]:
    """The point of a trial that was cut short; {} where it had not been drawn."""
    point = trial.system_attrs.get("fixed_params") or trial.params
    return dict(point) if point.keys() == {*names} else {}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.whole:
        step = int(dimension.step or 1)
        return IntDistribution(int(dimension.low), int(dimension.high), dimension.log, step)
    return FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)
