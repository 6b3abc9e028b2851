"""Arguments in, exit status out.

0 the work is done; 1 it ran and something failed; 2 the request was wrong; 130 interrupted.
What needs torch is imported by the command that needs it: `list` and `report` start at once.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from datamodules.errors import RequestError
from intentbench.text.arguments import add_arguments

LIGHTNING = ("fit", "validate", "test", "predict")


class _Parser(argparse.ArgumentParser):
    """One clear line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; `sys.argv` when None.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = None
    try:
        if given and given[0] in LIGHTNING:
            from intentbench.runner.lightning_cli import run_lightning

            run_lightning(given)
            return 0
        options = _parser().parse_args(given)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        return 130
    except RequestError as error:
        _complain(error, options)
        return 2
    except OSError as error:
        _complain(error, options)
        return 1


def _complain(error: Exception, options: argparse.Namespace | None) -> None:
    if getattr(options, "debug", False):
        traceback.print_exc()
    print("intentbench: " + " ".join(str(error).split()), file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="intentbench", description="Benchmarks for recommenders of user intent.")
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        command: _Parser = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=run)
        return command

    listing = add("list", _list, "What there is to run.")
    listing.add_argument(
        "what", nargs="?", choices=["models", "datasets", "benchmarks"], help="default: all"
    )
    data = add("data", _data, "Fetch or find, verify and preprocess datasets.")
    data.add_argument("action", choices=["prepare"])
    data.add_argument("names", nargs="+", metavar="NAME", help="catalogue keys")
    _data_root(data)

    run = add("run", _run, "Run what a benchmark lacks, and write its leaderboard.")
    run.add_argument("spec", type=Path, help="a YAML file, see benchmarks/")
    run.add_argument("--models", type=_names, help="rows to run: a,b; others stay as published")
    run.add_argument("--datasets", type=_names, help="datasets to run: x,y")
    run.add_argument("--seeds", type=_numbers, help="in place of the spec's: 0,1,2")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    run.add_argument("--devices", default="auto", help="auto, cpu, or GPUs: 0,1")
    run.add_argument("--trials-per-device", type=int, help="default: one a GPU, one a CPU core")
    run.add_argument("--rerun-stale", action="store_true", help="run again what other code made")
    run.add_argument("--dry-run", action="store_true", help="say what would be run")
    run.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")
    run.add_argument("--leaderboards", type=Path, default=Path("leaderboards"), metavar="DIR")
    run.add_argument("--plugin", type=Path, help="a Python file with methods of your own")
    _data_root(run)

    report = add("report", _report, "Write leaderboards from runs, or again from published ranks.")
    report.add_argument("runs", type=Path, help="folder of runs, or leaderboards/ranks/NAME")
    report.add_argument("--name", default="leaderboard", help="of the page, when it is new")
    report.add_argument("-o", "--out", type=Path, default=Path("leaderboards"), metavar="DIR")
    report.add_argument(
        "--groups", type=int, metavar="N", help="show users in N groups by activity; 0: none"
    )

    importing = add("import", _import, "Put published trials back among the runs, to go on there.")
    importing.add_argument("ranks", type=Path, help="leaderboards/ranks/NAME")
    importing.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")

    compare = add("compare", _compare, "Test two rows, or two folders of runs, against each other.")
    compare.add_argument("a", help="a row of --runs, or a folder")
    compare.add_argument("b", help="a row of --runs, or a folder")
    compare.add_argument("--runs", type=Path, default=Path("runs"), help="folder that has the rows")
    compare.add_argument("--metric", default="ndcg@10")

    recommend = add("recommend", _recommend, "Export lists of recommended items.")
    recommend.epilog = (
        "Columns: user, item, score, rank; of methods that predict intents also intent_NAME, the "
        "most likely label of each, and primary_intent, the one heeded most (docs/events.md)."
    )
    recommend.add_argument("checkpoint", type=Path, help="best.ckpt in a trial's folder")
    recommend.add_argument("-k", type=int, default=20, help="items a user")
    recommend.add_argument("-o", "--out", type=Path, required=True, help=".parquet or .csv")
    recommend.add_argument(
        "--stage", choices=["next", "test", "validation"], default="next", help="what to predict"
    )
    _data_root(recommend)

    intents = add("intents", _intents, "Export, measure and draw the intents of a trained method.")
    intents.add_argument("run", type=Path, help="a trial's folder")
    intents.add_argument("-o", "--out", type=Path, required=True, help=".parquet")
    intents.add_argument("--users", type=int, help="users at most; default: all")
    intents.add_argument("--tsne", action="store_true", help="draw by t-SNE too, slower")
    intents.add_argument("--projector", type=Path, metavar="DIR", help="for TensorBoard")
    _data_root(intents)

    text = "Write texts of users and items, turn them into vectors, or show what came of them."
    add_arguments(add("text", _text, text))

    for name in LIGHTNING:
        add(name, lambda _: 0, f"{name} one model, see `intentbench {name} --help`")
    return parser


def _data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", type=Path, help="where data files lie; else $INTENTBENCH_DATA, then cache"
    )


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in _names(text)]


def _version() -> str:
    from importlib.metadata import version

    return f"intentbench {version('intentbench')}"


def _list(options: argparse.Namespace) -> int:
    from intentbench.commands import describe_all

    sys.stdout.write(describe_all(options.what))
    return 0


def _data(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from datamodules.prepare import describe, prepare
    from datamodules.prepared import load_prepared

    for name in options.names:
        folder = prepare(name, options.data_root)
        table = Table(title=name, show_header=False, title_justify="left")
        for what, value in describe(load_prepared(folder)):
            table.add_row(what, value)
        table.add_row("folder", str(folder))
        Console(soft_wrap=True).print(table)
    return 0


def _run(options: argparse.Namespace) -> int:
    from intentbench.runner.forkserver import start_forkserver

    start_forkserver()  # it imports while this process does

    from rich.console import Console

    from intentbench.runner.grid import RunOptions, run_grid
    from intentbench.spec import load_spec

    spec = load_spec(
        options.spec,
        options.overrides,
        options.models,
        options.datasets,
        options.seeds,
        options.plugin,
    )
    settings = RunOptions(
        options.out,
        options.data_root,
        options.devices,
        options.trials_per_device,
        options.dry_run,
        options.rerun_stale,
    )
    console = Console()
    result = run_grid(spec, settings, console)
    if not options.dry_run:
        from intentbench.commands import publish_benchmark

        for page in publish_benchmark(
            spec, result, options.spec, options.leaderboards, options.out
        ):
            console.print(f"wrote {page}", highlight=False, soft_wrap=True)
    return 1 if result.failed else 0


def _report(options: argparse.Namespace) -> int:
    from intentbench.reports.archive import is_archive, read_archive
    from intentbench.reports.plan import Plan
    from intentbench.reports.publish import publish, publish_results, render

    if not is_archive(options.runs):
        plan = Plan(groups=options.groups or 0)
        pages = publish(options.runs, options.name, options.out, plan)
    elif options.groups is None:
        pages = render(options.runs, options.out)
    else:
        name, plan, results = read_archive(options.runs)
        plan = replace(plan, groups=options.groups)
        pages = publish_results(results, name, options.out, plan)
    sys.stdout.write("".join(f"wrote {page}\n" for page in pages))
    return 0


def _import(options: argparse.Namespace) -> int:
    from intentbench.reports.archive import restore_trials

    restored, present = restore_trials(options.ranks, options.out)
    sys.stdout.write(f"{restored} trials restored, {present} were there: {options.out}\n")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from intentbench.reports.comparison import compare_folders, compare_labels, render_comparisons

    a, b = Path(options.a), Path(options.b)
    if a.is_dir() and b.is_dir():
        found = compare_folders(a, b, options.metric)
    else:
        found = compare_labels(options.runs, options.a, options.b, options.metric)
    sys.stdout.write(render_comparisons(found, options.metric))
    return 0


def _recommend(options: argparse.Namespace) -> int:
    if options.out.suffix not in (".parquet", ".csv"):
        raise RequestError(f"{options.out}: say which format you want: .parquet or .csv")
    from intentbench.runner.recommend import recommend

    found = recommend(options.checkpoint, options.k, options.stage, options.data_root)
    lists = found.frame()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.out.suffix == ".csv":
        lists.write_csv(options.out)
    else:
        lists.write_parquet(options.out)
    about = {"file": str(options.out), "users": len(found.users), "rows": len(lists)}
    sys.stdout.write(json.dumps(about | found.summary()) + "\n")
    return 0


def _intents(options: argparse.Namespace) -> int:
    if options.out.suffix != ".parquet":
        raise RequestError(f"{options.out}: intents are written as .parquet; name such a file")
    if options.users is not None and options.users < 1:
        raise RequestError(f"--users {options.users}: must be at least 1")
    from intentbench.commands import inspect_intents

    written, numbers = inspect_intents(
        options.run, options.out, options.data_root, options.users, options.tsne, options.projector
    )
    sys.stdout.write(json.dumps(numbers, indent=1) + "\n")
    sys.stderr.write("".join(f"wrote {path}\n" for path in written))
    return 0


def _text(options: argparse.Namespace) -> int:
    if options.action == "show":
        return _show_texts(options)
    from rich.console import Console

    from intentbench.text.command import run_text

    return run_text(options, Console(soft_wrap=True))


def _show_texts(options: argparse.Namespace) -> int:
    if options.epochs is not None and options.epochs < 1:
        raise RequestError(f"--epochs {options.epochs}: must be at least 1")
    from intentbench.text_show import show_texts

    written, numbers = show_texts(
        options.run, options.out, options.data_root, options.user, options.epochs
    )
    sys.stdout.write(json.dumps(numbers, indent=1) + "\n")
    sys.stderr.write("".join(f"wrote {path}\n" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
