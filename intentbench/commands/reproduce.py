"""`intentbench run --reproduce`: a published cell trained again, and compared."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import RequestError
from intentbench.commands.outputs import check_folder

if TYPE_CHECKING:
    from intentbench.reports.cells import Result

OUT = Path("reproduced")
"""Where trials go by default: apart from runs, so that no report takes them for further seeds."""

OTHERS = (
    "models",
    "datasets",
    "seeds",
    "overrides",
    "trials_per_device",
    "dry_run",
    "rerun_stale",
)
"""Options of `run` that say what is run, which here the record does."""


def reproduce(options: argparse.Namespace) -> int:
    """Train a published cell again from its record; 0 where every rank is the same, else 1.

    Raises:
        RequestError: there is no such cell, or it cannot be had here as it was.
    """
    if given := [name for name in OTHERS if getattr(options, name)]:
        raise RequestError(f"--reproduce takes all from the record; leave out {', '.join(given)}")
    own = {}
    if options.spec:
        from intentbench.spec import read_datasets

        own = {entry.name: entry for entry in read_datasets(options.spec)}
    check_folder("--out", options.out or OUT)
    results, published = _find_cell(options.reproduce, options.leaderboards)
    record = published[0]

    from intentbench.runner.forkserver import start_forkserver

    start_forkserver()  # it imports while this process does

    from datamodules.console import plain_console
    from intentbench.reports.cells import attach_ranks
    from intentbench.reports.reproduction import compare_trials, render_reproduction
    from intentbench.runner.executors import run_local
    from intentbench.runner.grid import RunOptions
    from intentbench.runner.progress import Progress
    from intentbench.runner.reproduction import choose_slot, plan_reproduction

    root = (options.out or OUT) / options.reproduce.split("/")[0]
    board = [other for other, _ in results]
    where = RunOptions(root, options.data_root)
    jobs = plan_reproduction(record, board, where, options.plugin, own)
    slot = choose_slot(record, options.devices)
    console = plain_console()
    with Progress(console, len(jobs), 1) as progress:
        made = {job.folder: again for job, again in run_local(jobs, [slot], None, progress)}
    folder = jobs[-1].folder
    console.print(f"in {folder}")
    if made[folder].status == "failed":
        return 1
    (again,) = attach_ranks([(folder, made[folder])])
    found = compare_trials(published, again)
    console.print(render_reproduction(found), end="")
    return 0 if found.equal else 1


def _find_cell(name: str, leaderboards: Path) -> "tuple[list[Result], Result]":
    """The results of a board, and the one that BOARD/DATASET/LABEL/SEED names."""
    from intentbench.reports.archive import read_archive
    from intentbench.reports.publish import RANKS
    from intentbench.results.external import EXTERNAL
    from intentbench.results.record import ORACLE

    parts = name.strip("/").split("/")
    if len(parts) != 4 or not parts[3].isdecimal():
        raise RequestError(
            f"--reproduce {name}: expected BOARD/DATASET/LABEL/SEED, as in "
            "quickstart/synthetic/markov/0"
        )
    results = read_archive(leaderboards / RANKS / parts[0])[2]
    cells = {(r.dataset, r.label, str(r.seed)): (r, ranks) for r, ranks in results}
    found = cells.get((parts[1], parts[2], parts[3]))
    if found is None:
        same = sorted(f"{d}/{label}/{seed}" for d, label, seed in cells if label == parts[2])
        rows = sorted({f"{d}/{label}" for d, label, _ in cells})
        raise RequestError(
            f"--reproduce {name}: board {parts[0]} has no such result; there are "
            f"{', '.join(same or rows)}"
        )
    if found[0].method in (ORACLE, EXTERNAL):
        what = "the oracle is computed" if found[0].method == ORACLE else "its ranks were taken in"
        raise RequestError(f"--reproduce {name}: {what}, and nothing is trained")
    if found[1] is None:
        raise RequestError(f"--reproduce {name}: it failed ({found[0].reason}): nothing to compare")
    return results, found
