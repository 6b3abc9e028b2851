"""`intentbench run`: do what a benchmark lacks, and write its leaderboard."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import RequestError
from intentbench.commands.outputs import check_folder
from intentbench.commands.shared import add_choice, add_data_root, chosen_spec

if TYPE_CHECKING:
    from intentbench.spec import BenchmarkSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to run, where, and where results go."""
    parser.add_argument("spec", type=Path, nargs="?", help="a YAML file, see benchmarks/")
    parser.add_argument(
        "--reproduce",
        metavar="BOARD/DATASET/LABEL/SEED",
        help="train a published result again, and compare the ranks; a spec with it names its data",
    )
    add_choice(parser, "rows to run: a,b; others stay as published")
    parser.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="processes here, or Ray"
    )
    parser.add_argument("--address", default="auto", help="of Ray: auto, local, HOST:PORT, ray://…")
    parser.add_argument("--devices", default="auto", help="auto, cpu, or GPUs: 0,1")
    parser.add_argument("--trials-per-device", type=int, help="default: one a GPU, one a CPU core")
    parser.add_argument("--rerun-stale", action="store_true", help="run again what other code made")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run")
    parser.add_argument("--out", type=Path, help="folder of all runs; runs, or else reproduced")
    parser.add_argument("--no-page", action="store_true", help="run only, publish nothing")
    parser.add_argument("--leaderboards", type=Path, default=Path("leaderboards"), metavar="DIR")
    add_data_root(parser)


def run(options: argparse.Namespace) -> int:
    """Run the grid and publish its page; 1 where a trial failed, or ranks are not reproduced."""
    if options.reproduce:
        from intentbench.commands.reproduce import reproduce

        return reproduce(options)
    if options.spec is None:
        raise RequestError("run: give a spec, as in `intentbench run benchmarks/quickstart.yaml`")
    out = options.out or Path("runs")
    if not options.dry_run:
        check_folder("--out", out)
        if not options.no_page:
            check_folder("--leaderboards", options.leaderboards)

    from intentbench.runner.forkserver import start_forkserver

    if options.executor == "local":
        start_forkserver()  # it imports while this process does

    from datamodules.console import plain_console
    from intentbench.runner.grid import RunOptions, run_grid

    spec = chosen_spec(options, options.seeds)
    settings = RunOptions(
        out,
        options.data_root,
        options.devices,
        options.trials_per_device,
        options.dry_run,
        options.rerun_stale,
        options.executor,
        options.address,
    )
    console = plain_console()
    result = run_grid(spec, settings, console)
    if not (options.dry_run or options.no_page):
        from intentbench.commands.publishing import publish_benchmark

        for page in publish_benchmark(
            spec, result, commands(options, spec), options.leaderboards, out, options.data_root
        ):
            console.print(f"wrote {page}")
    return 1 if result.failed else 0


def commands(options: argparse.Namespace, spec: "BenchmarkSpec") -> tuple[str, str]:
    """What runs a benchmark again, with all that it was read with, and what trains a cell again.

    A cell of data that no catalogue has is found by the spec, which names the file.
    """
    from datamodules.catalog import catalog

    file = [str(options.spec)]
    changes = [part for change in options.overrides for part in ("--set", change)]
    plugin = ["--plugin", str(options.plugin)] if options.plugin else []
    own = file if any(name not in catalog() for name in spec.stated.datasets) else []
    again = ["intentbench", "run", *file, *plugin, *changes]
    cell = ["intentbench", "run", *own, *plugin, "--reproduce"]
    return shlex.join(again), shlex.join(cell)
