"""`intentbench tune`: search for the arguments of a benchmark's rows, on validation."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import RequestError
from intentbench.commands.outputs import check_folder
from intentbench.commands.shared import add_changes, add_data_root, chosen_spec, names

if TYPE_CHECKING:
    from intentbench.runner.tuned import Tuned
    from intentbench.runner.tuning import Attempt, Search, Way


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is searched, with what budget, and where."""
    parser.epilog = "What is searched and what a budget is: docs/tuning.md."
    parser.add_argument("spec", type=Path, help="a YAML file, see benchmarks/")
    parser.add_argument("--models", type=names, help="rows to tune: x,y; default: all")
    parser.add_argument("--datasets", type=names, help="datasets to take: x,y; default: all")
    parser.add_argument("--trials", type=_positive, required=True, metavar="N", help="budget a row")
    parser.add_argument(
        "--write", action="store_true", help="keep the values for `intentbench run`"
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampler and trainings; default 0")
    parser.add_argument("--devices", default="auto", help="auto, cpu, or GPUs: 0,1")
    parser.add_argument("--trials-per-device", type=int, help="default: one a GPU, one a CPU core")
    parser.add_argument(
        "--storage", metavar="FILE", help="journal of all trials, or sqlite:///FILE"
    )
    parser.add_argument("--out", type=Path, default=Path("tuning"), help="folder of all trials")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="has the checkpoints that rows start from"
    )
    add_changes(parser)
    add_data_root(parser)


def run(options: argparse.Namespace) -> int:
    """Search each row on each dataset; 1 where one of them has nothing to show for it."""
    if find_spec("optuna") is None:
        raise RequestError("tune: needs Optuna: pip install 'intentbench[tune]'")
    check_folder("--out", options.out)
    from intentbench.runner.forkserver import start_forkserver

    start_forkserver()  # it imports while this process does

    from intentbench.runner.executors import plan_slots
    from intentbench.runner.tuning import Way, plan_searches
    from intentbench.runner.tuning_locks import lock_storage
    from intentbench.spec import SEEDS

    if not 0 <= options.seed < SEEDS:
        raise RequestError(f"--seed {options.seed}: expected a whole number from 0 to 2^32 - 1")
    spec = chosen_spec(options)
    labels = tuple(options.models or spec.stated.labels)
    searches = plan_searches(spec, labels, options.runs, options.data_root, options.seed)
    way = Way(
        slots=plan_slots(options.devices, options.trials_per_device, options.trials),
        place=options.storage or str(options.out / f"{spec.name}.journal"),
        out=options.out,
        trials=options.trials,
        seed=options.seed,
        timeout=spec.timeout,
        memory=spec.memory,
    )
    status = 0
    moved = set[tuple[str, str]]()  # dataset and label of rows that have other values now
    with lock_storage(way.place, way.out):
        for search in searches:
            base = search.entrant.pretrained
            if base is not None and (search.job.trial.dataset, base.label) in moved:
                _say(
                    f"{search.title}: its base {base.label!r} has new values: run the base first, "
                    "then tune this row"
                )
                status = 1
                continue
            if reason := search.without or search.hindrance:
                _say(f"{search.title}: {reason}")
                status |= bool(search.hindrance)
                continue
            found = _run(search, way)
            status |= found is None
            if found is not None and options.write:
                _write(search, found)
                if found.arguments != search.present:
                    moved.add((search.job.trial.dataset, search.entrant.label))
    return status


def _run(search: "Search", way: "Way") -> "Tuned | None":
    """One search, told line by line."""
    from intentbench.runner.studies import Searcher
    from intentbench.runner.tuning import chosen, run_search

    searcher = Searcher(
        way.place,
        search.study,
        search.space,
        search.start,
        way.trials,
        way.seed,
        search.present,
    )
    tally = searcher.tally()
    _say(
        f"{search.title}: {searcher.sampler} over {', '.join(search.space)}; "
        f"{tally.counted} of {searcher.budget} trials done"
    )
    try:
        for attempt in run_search(search, searcher, way):
            _say(_describe(search, attempt, searcher.budget))
    except KeyboardInterrupt:
        _say("interrupted; what has ended is kept: the same command goes on")
        raise
    found = chosen(search, searcher)
    if found is None:
        _say(f"{search.title}: FAILED: no trial completed")
        return None
    budget = found.budget
    before = "" if budget.before is None else f", {budget.before:.4f} before"
    _say(
        f"{search.title}: {_point(found.arguments)}: {budget.metric} {budget.value:.4f} on "
        f"validation{before} ({budget.trials} trials, {budget.pruned} pruned, {budget.failed} "
        f"failed, {budget.seconds:.0f} s)"
    )
    return found


def _write(search: "Search", found: "Tuned") -> None:
    from intentbench.runner.tuned import save_tuned, tuned_path

    trial = search.job.trial
    path = tuned_path(search.entrant.settings, trial.method)
    save_tuned(path, trial.benchmark, trial.dataset, trial.label, found)
    _say(f"wrote {path}")


def _describe(search: "Search", attempt: "Attempt", budget: int) -> str:
    answer = attempt.answer
    ended = {
        "complete": f"{search.job.trial.training.monitor} {answer.value:.4f}",
        "pruned": "pruned",
        "failed": f"FAILED: {answer.reason}",
    }
    return (
        f"{search.title} {attempt.tally.counted}/{budget}: {ended[answer.state]} in "
        f"{answer.seconds:.1f} s, {_point(attempt.point)}"
    )


def _point(point: "dict[str, object]") -> str:
    return ", ".join(f"{name} {value}" for name, value in point.items())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
    return int(text)
