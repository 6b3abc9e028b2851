"""`intentbench report`: pages from runs, or again from published ranks."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import RequestError
from intentbench.commands.outputs import check_folder
from intentbench.commands.shared import below_here
from intentbench.results.grouping import parse_grouping

if TYPE_CHECKING:
    from intentbench.reports.cells import Result

SETTINGS = ("groups", "reference", "family", "correction")
"""Options that change what a page shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From what, and to where."""
    parser.add_argument(
        "runs",
        type=Path,
        help="folder of runs, leaderboards/ranks/NAME, or with --site a folder of several such",
    )
    parser.add_argument("--name", default="leaderboard", help="of the page, when it is new")
    parser.add_argument("-o", "--out", type=Path, default=Path("leaderboards"), metavar="DIR")
    parser.add_argument(
        "--groups",
        type=parse_grouping,
        metavar="N",
        help="show users in N groups by activity, 0: none; 5,8: cut at these numbers of events",
    )
    parser.add_argument(
        "--site", type=Path, metavar="DIR", help="write a static site of all that is below RUNS"
    )
    parser.add_argument("--reference", metavar="ROW", help="that differences are taken against")
    parser.add_argument(
        "--family", choices=("pairs", "reference"), help="test all pairs, or against --reference"
    )
    parser.add_argument("--correction", choices=("holm", "bh"), help="of marks; bh for exploring")


def run(options: argparse.Namespace) -> int:
    """Write the pages."""
    if options.site is not None:
        return _write_site(options)
    check_folder("--out", options.out)
    from intentbench.reports.archive import is_archive, read_archive
    from intentbench.reports.cells import read_results
    from intentbench.reports.plan import Plan
    from intentbench.reports.publish import RANKS, publish_results, render

    chosen = {name: value for name in SETTINGS if (value := getattr(options, name)) is not None}
    folder = str(below_here(options.out))
    if not is_archive(options.runs):
        results = read_results(options.runs)
        _check_reference(options.reference, results)
        plan = Plan(folder=folder, **chosen)
        pages = publish_results(results, options.name, options.out, plan)
    elif not chosen:
        pages = render(options.runs, options.out)
    else:
        name, plan, results = read_archive(options.runs)
        _check_reference(options.reference, results)
        if options.runs.resolve() != (options.out / RANKS / name).resolve():
            plan = replace(plan, folder=folder)  # the page is about to stand elsewhere
        plan = replace(plan, **chosen)
        pages = publish_results(results, name, options.out, plan)
    sys.stdout.write("".join(f"wrote {page}\n" for page in pages))
    return 0


def _check_reference(reference: str | None, results: Iterable["Result"]) -> None:
    labels = sorted({record.label for record, _ in results})
    if labels and reference is not None and reference not in labels:
        raise RequestError(f"--reference {reference}: the rows are {', '.join(labels)}")


def _write_site(options: argparse.Namespace) -> int:
    settings = [name for name in SETTINGS if getattr(options, name) is not None]
    if settings:
        raise RequestError(
            f"--site shows boards as they were published: leave --{settings[0]} to "
            "`intentbench report` without --site"
        )
    check_folder("--site", options.site)
    from intentbench.reports.site.build import write_site

    files = write_site([options.runs], options.site)
    sys.stdout.write(f"wrote {len(files)} files; open {options.site / 'index.html'}\n")
    return 0
