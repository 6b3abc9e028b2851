"""Arguments in, exit status out.

0 the work is done; 1 it ran and something failed or got worse; 2 the request was wrong; 3 the gate
cannot tell; 130 interrupted; 143 stopped by SIGTERM.
What needs torch is imported by the command that needs it: `list` and `report` start at once.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from datamodules.errors import RequestError
from intentbench.commands import (
    check,
    compare,
    data,
    importing,
    intents,
    listing,
    merge,
    pack,
    recommend,
    report,
    run,
    status,
    text,
    tune,
    verify,
)
from intentbench.commands.outputs import plain
from intentbench.results.printable import printable
from intentbench.termination import stopped_by_sigterm

COMMANDS: dict[str, tuple[ModuleType, str]] = {
    "list": (listing, "What there is to run."),
    "data": (data, "Fetch or find, verify and preprocess datasets."),
    "run": (run, "Run what a benchmark lacks, and write its leaderboard."),
    "status": (status, "Say what is done, failed, running and interrupted in a folder of runs."),
    "tune": (tune, "Search for arguments of a benchmark's rows, on validation."),
    "report": (report, "Write leaderboards from runs, or again from published ranks."),
    "verify": (verify, "Compute published pages again from their ranks, and compare."),
    "pack": (pack, "Put a benchmark into one file, for a machine with torch and Lightning alone."),
    "merge": (merge, "Bring trials home that ran elsewhere; conflicts are named."),
    "import": (importing, "Put published trials, or results of other systems, among the runs."),
    "compare": (compare, "Test two rows, or two folders of runs, against each other."),
    "check": (check, "Hold runs against an accepted baseline: 0 pass, 1 worse, 3 cannot tell."),
    "recommend": (recommend, "Export lists of recommended items."),
    "intents": (intents, "Export, measure and draw the intents of a trained method."),
    "text": (text, "Write texts of users and items, turn them into vectors, or show what came."),
}
"""Name to module and help."""

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
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal lacks letters for is no end
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    try:
        with stopped_by_sigterm():
            return _run(given)
    except SystemExit as leaving:
        return int(leaving.code or 0)


def _run(given: list[str]) -> int:
    options = None
    try:
        if given and given[0] in LIGHTNING:
            from intentbench.runner.lightning_cli import run_lightning

            run_lightning(given)
            return 0
        options, unknown = _parser().parse_known_args(given)
        if unknown:  # argparse itself would name the whole program's help, not the command's
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except KeyboardInterrupt:
        return 130
    except RequestError as error:
        _complain(error, options)
        return 2
    except OSError as error:
        _complain(plain(error), options)
        return 1


def _complain(error: object, options: argparse.Namespace | None) -> None:
    if getattr(options, "debug", False):
        traceback.print_exc()
    print("intentbench: " + " ".join(printable(str(error)).split()), file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="intentbench", description="Benchmarks for recommenders of user intent.")
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (module, help_) in COMMANDS.items():
        command = commands.add_parser(name, help=help_, description=help_)
        command.set_defaults(command=module.run, parser=command)
        module.add_arguments(command)
    for name in LIGHTNING:
        commands.add_parser(name, help=f"{name} one model, see `intentbench {name} --help`")
    return parser


def _version() -> str:
    from importlib.metadata import version

    return f"intentbench {version('intentbench')}"


if __name__ == "__main__":
    sys.exit(main())
