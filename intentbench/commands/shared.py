"""Options that several commands have."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intentbench.commands.outputs import is_device

if TYPE_CHECKING:
    from intentbench.spec import BenchmarkSpec


class Once(argparse.Action):
    """An option that may be given once: argparse itself would keep the last and say nothing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the value, or refuse a second one."""
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string}: may be given once; put both into one file")
        setattr(namespace, self.dest, values)


def add_choice(parser: argparse.ArgumentParser, rows: str) -> None:
    """What of a spec is taken; `chosen_spec` reads it.

    Args:
        parser: gets the options.
        rows: the help of `--models`.
    """
    parser.add_argument("--models", type=names, help=rows)
    parser.add_argument("--datasets", type=names, help="datasets to take: x,y; default: all")
    parser.add_argument("--seeds", type=numbers, help="in place of the spec's: 0,1,2")
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """What a spec is read with."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument(
        "--plugin", type=Path, action=Once, help="a Python file with methods of your own"
    )


def chosen_spec(options: argparse.Namespace, seeds: list[int] | None = None) -> "BenchmarkSpec":
    """The spec that a command was given, with what was chosen of it.

    Raises:
        RequestError: anything in it that could not run.
    """
    from intentbench.spec import load_spec  # here, so that --help stays fast

    return load_spec(
        options.spec,
        options.overrides,
        options.models,
        options.datasets,
        seeds,
        options.plugin,
    )


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Where data is looked for."""
    parser.add_argument(
        "--data-root", type=Path, help="where data files lie; else $INTENTBENCH_DATA, then cache"
    )


def below_here(folder: Path) -> Path:
    """A folder as a command names it that is pasted where this one runs."""
    here, there = Path.cwd(), folder.absolute()
    return there.relative_to(here) if there.is_relative_to(here) else folder


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that a person named: whole, or not at all.

    A link is followed; a device or a pipe, `/dev/stdout` say, is written to as it is.

    Raises:
        OSError: it cannot be written, and is named; an older one stays as it was.
    """
    from intentbench.results.store import write_atomic  # it imports NumPy

    try:
        if is_device(path):
            with path.open("wb", buffering=0) as device:
                device.write(content)
        else:
            write_atomic(path.resolve(), content)
    except OSError as error:  # a full disk names no file
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name for name in text.split(",") if name]


def numbers(text: str) -> list[int]:
    """Numbers between commas."""
    try:
        return [int(number) for number in names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected numbers between commas: 0,1,2"
        ) from None
