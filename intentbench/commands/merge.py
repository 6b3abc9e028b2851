"""`intentbench merge`: bring trials home that ran elsewhere."""

import argparse
import sys
from pathlib import Path

from intentbench.commands.outputs import check_folder

KINDS = ("copied", "replaced", "equal", "older there", "failed there", "conflicts", "damaged")
"""What a trial of another folder can be, in the order of the summary."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From where, to where, and what wins."""
    parser.epilog = "How work is moved: docs/moving.md."
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, or .tar of them")
    parser.add_argument("--into", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument(
        "--prefer",
        choices=["home", "theirs", "newest"],
        default="home",
        help="which of two results of one trial stays where ranks or code differ; default home",
    )
    parser.add_argument("--checkpoints", action="store_true", help="copy the trained models too")
    parser.add_argument("--dry-run", action="store_true", help="say what would be copied")


def run(options: argparse.Namespace) -> int:
    """Copy, and say what came of it; 1 where a conflict or a damaged trial was left behind."""
    if not options.dry_run:
        check_folder("--into", options.into)
    from tempfile import TemporaryDirectory

    from intentbench.runner.archives import unpack_runs
    from intentbench.runner.merging import merge_runs

    with TemporaryDirectory(prefix="intentbench-merge-") as temporary:
        sources = [
            unpack_runs(path, Path(temporary, str(number))) if path.is_file() else path
            for number, path in enumerate(options.runs)
        ]
        merged = merge_runs(
            sources, options.into, options.prefer, options.checkpoints, options.dry_run
        )
    lines = list(merged.lines)
    for path, source in zip(options.runs, sources, strict=True):
        if source != path:  # an archive: say its name, not where it was unpacked
            lines = [line.replace(str(source), str(path)) for line in lines]
    counts = [f"{merged.counts[kind]} {kind}" for kind in KINDS if merged.counts[kind]]
    done = "would be: " if options.dry_run else ""
    lines.append(f"{options.into}: {done}{', '.join(counts) or 'no trials found'}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if merged.clean else 1
