"""`intentbench data prepare`: fetch or find, verify, preprocess."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from intentbench.commands.shared import add_data_root

if TYPE_CHECKING:
    from datamodules.catalog import DatasetEntry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which datasets."""
    parser.add_argument("action", choices=["prepare"])
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="catalogue keys, or specs: all data of each"
    )
    add_data_root(parser)


def run(options: argparse.Namespace) -> int:
    """Prepare each, and print its statistics."""
    from rich.table import Table

    from datamodules.console import plain_console
    from datamodules.prepare import describe, prepare
    from datamodules.prepared import load_prepared

    for entry in [entry for name in options.names for entry in _entries(name)]:
        folder = prepare(entry, options.data_root)
        table = Table(title=entry.name, show_header=False, title_justify="left")
        for what, value in describe(load_prepared(folder)):
            table.add_row(what, value)
        table.add_row("folder", str(folder))
        plain_console().print(table)
    return 0


def _entries(name: str) -> "tuple[DatasetEntry, ...]":
    """The entry of a catalogue key, or those of a spec."""
    from datamodules.catalog import find_entry

    if not name.endswith((".yaml", ".yml")):
        return (find_entry(name),)
    from intentbench.spec import read_datasets  # it imports torch

    return read_datasets(Path(name))
