"""`intentbench status`: what the trials of a folder are up to, also while a grid runs."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of what, and how it is told."""
    parser.add_argument("runs", type=Path, help="folder of runs, or a part of one")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> int:
    """Print what is done, failed, running and interrupted."""
    import json
    import time

    from datamodules.errors import RequestError
    from intentbench.reports.archive import is_archive
    from intentbench.reports.status import describe_json, render_status
    from intentbench.results.status import read_status

    if is_archive(options.runs):
        raise RequestError(f"{options.runs}: published ranks, no runs; `intentbench import` first")
    trials, now = read_status(options.runs), time.time()
    if options.json:
        sys.stdout.write(json.dumps(describe_json(trials, now), indent=1) + "\n")
    else:
        sys.stdout.write(render_status(options.runs, trials, now))
    return 0
