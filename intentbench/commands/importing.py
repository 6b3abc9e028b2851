"""`intentbench import`: results from elsewhere among the runs."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From what, and to where."""
    parser.add_argument("ranks", type=Path, help="leaderboards/ranks/NAME")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")


def run(options: argparse.Namespace) -> int:
    """Restore what is missing."""
    from intentbench.reports.archive import restore_trials

    restored, present = restore_trials(options.ranks, options.out)
    sys.stdout.write(f"{restored} trials restored, {present} were there: {options.out}\n")
    return 0
