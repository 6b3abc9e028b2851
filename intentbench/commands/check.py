"""`intentbench check`: the regression gate."""

import argparse
import sys
from pathlib import Path

from intentbench.commands.outputs import check_file, plain
from intentbench.commands.shared import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is judged, against what, and where reports go."""
    parser.add_argument("runs", type=Path, help="folder of runs, or of published ranks")
    parser.add_argument(
        "--baseline", type=Path, required=True, metavar="FILE",
        help="a file of --update, or a folder of published ranks",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=float, default=0.05, help="share of the mean that may be lost; 0.05"
    )
    parser.add_argument("--metric", help="such as hit_rate@10; else that which a page tests")
    parser.add_argument("--summary", type=Path, metavar="FILE.md", help="write Markdown")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--junit", type=Path, metavar="FILE.xml", help="write JUnit XML")
    what.add_argument("--update", action="store_true", help="accept the runs as the new baseline")


def run(options: argparse.Namespace) -> int:
    """Judge, or accept; 0 pass, 1 worse, 3 cannot tell."""
    from datamodules.errors import RequestError

    try:
        return _run(options)
    except (OSError, UnicodeEncodeError) as error:  # status 1 is left to what is worse
        raise RequestError(plain(error)) from None


def _run(options: argparse.Namespace) -> int:
    from intentbench.reports.gate import check_runs
    from intentbench.reports.gate_baseline import update_baseline
    from intentbench.reports.gate_junit import render_junit
    from intentbench.reports.gate_text import (
        render_markdown,
        render_text,
        render_update_markdown,
        render_update_text,
    )
    from intentbench.stats.gate import Verdict, check_margin

    check_margin(options.margin)
    check_file("--summary", options.summary)
    check_file("--junit", options.junit)
    if options.update:
        check_file("--baseline", options.baseline)

    status = 0
    if options.update:
        changes = update_baseline(options.runs, options.baseline, options.metric)
        text = render_update_text(changes, options.baseline)
        summary = render_update_markdown(changes, options.baseline)
    else:
        report = check_runs(options.runs, options.baseline, options.margin, options.metric)
        text, summary = render_text(report), render_markdown(report)
        status = {Verdict.PASS: 0, Verdict.WORSE: 1, Verdict.CANNOT_TELL: 3}[report.verdict]
        if options.junit:
            write_whole(options.junit, render_junit(report))
    if options.summary:
        write_whole(options.summary, summary.encode())
    sys.stdout.write(text)
    return status
