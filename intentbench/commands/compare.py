"""`intentbench compare`: two rows, folders or result files against each other."""

import argparse
import sys
from pathlib import Path

from intentbench.commands.outputs import check_file
from intentbench.commands.shared import write_whole
from intentbench.results.grouping import parse_grouping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two sides, the metric, and what else is shown."""
    side = "a row of --runs, a folder of runs or of one trial, published ranks, or a result file"
    parser.add_argument("a", help=side)
    parser.add_argument("b", help="likewise")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that has the rows")
    parser.add_argument("--metric", help="default: that which the page tests")
    parser.add_argument(
        "--groups",
        type=parse_grouping,
        default=0,
        metavar="N",
        help="also in N groups of users by activity; 5,8: cut at these numbers of events",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was computed")


def run(options: argparse.Namespace) -> int:
    """Test, and print."""
    check_file("--json", options.json)
    from intentbench.reports.comparison import (
        compare_folders,
        compare_labels,
        render_comparisons,
        render_json,
    )

    a, b = Path(options.a), Path(options.b)
    if a.exists() and b.exists():
        found = compare_folders(a, b, options.metric, options.groups)
    else:
        found = compare_labels(options.runs, options.a, options.b, options.metric, options.groups)
    sys.stdout.write(render_comparisons(found, options.metric))
    if options.json:
        write_whole(options.json, render_json(found))
    return 0
