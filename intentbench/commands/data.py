"""`intentbench data prepare`: fetch or find, verify, preprocess."""

import argparse

from intentbench.commands.shared import add_data_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which datasets."""
    parser.add_argument("action", choices=["prepare"])
    parser.add_argument("names", nargs="+", metavar="NAME", help="catalogue keys")
    add_data_root(parser)


def run(options: argparse.Namespace) -> int:
    """Prepare each, and print its statistics."""
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
