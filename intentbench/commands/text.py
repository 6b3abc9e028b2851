"""`intentbench text`: texts of users and items, vectors of them, and what comes of them."""

import argparse
import json
import sys

from datamodules.errors import RequestError
from intentbench.commands.outputs import check_folder
from intentbench.text.arguments import add_arguments

__all__ = ["add_arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Do the action that was named."""
    if options.out is not None:
        check_folder("--out", options.out)
    if options.action == "show":
        return _show(options)
    from datamodules.console import plain_console
    from intentbench.text.command import run_text

    return run_text(options, plain_console())


def _show(options: argparse.Namespace) -> int:
    if options.epochs is not None and options.epochs < 1:
        raise RequestError(f"--epochs {options.epochs}: must be at least 1")
    from intentbench.commands.text_show import show_texts

    written, numbers = show_texts(
        options.run, options.out, options.data_root, options.user, options.epochs
    )
    sys.stdout.write(json.dumps(numbers, indent=1) + "\n")
    sys.stderr.write("".join(f"wrote {path}\n" for path in written))
    return 0
