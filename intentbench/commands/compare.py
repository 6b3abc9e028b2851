"""`intentbench compare`: two rows, or two folders, against each other."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two sides and the metric."""
    parser.add_argument("a", help="a row of --runs, or a folder")
    parser.add_argument("b", help="a row of --runs, or a folder")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that has the rows")
    parser.add_argument("--metric", default="ndcg@10")


def run(options: argparse.Namespace) -> int:
    """Test, and print."""
    from intentbench.reports.comparison import compare_folders, compare_labels, render_comparisons

    a, b = Path(options.a), Path(options.b)
    if a.is_dir() and b.is_dir():
        found = compare_folders(a, b, options.metric)
    else:
        found = compare_labels(options.runs, options.a, options.b, options.metric)
    sys.stdout.write(render_comparisons(found, options.metric))
    return 0
