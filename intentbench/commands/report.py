"""`intentbench report`: pages from runs, or again from published ranks."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From what, and to where."""
    parser.add_argument("runs", type=Path, help="folder of runs, or leaderboards/ranks/NAME")
    parser.add_argument("--name", default="leaderboard", help="of the page, when it is new")
    parser.add_argument("-o", "--out", type=Path, default=Path("leaderboards"), metavar="DIR")
    parser.add_argument(
        "--groups", type=int, metavar="N", help="show users in N groups by activity; 0: none"
    )


def run(options: argparse.Namespace) -> int:
    """Write the pages."""
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
