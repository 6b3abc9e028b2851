"""`intentbench import`: results from elsewhere among the runs."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from datamodules.errors import RequestError
from intentbench.commands.outputs import check_folder
from intentbench.commands.shared import add_data_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From what, and to where."""
    parser.epilog = "What a file must hold: docs/submissions.md."
    parser.add_argument(
        "source",
        type=Path,
        help="leaderboards/ranks/NAME, or lists of another system: .csv or .parquet",
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")
    file = parser.add_argument_group("of a file")
    file.add_argument("--dataset", help="what it answers: a name of the catalogue, or of --spec")
    file.add_argument("--label", help="row that it becomes")
    file.add_argument(
        "--fingerprint",
        default="",
        metavar="HEX",
        help="of the data that the other system was trained on; other data are refused",
    )
    file.add_argument("--spec", type=Path, help="benchmark that it is for, with its protocol")
    file.add_argument("--plugin", type=Path, help="a Python file with methods that the spec names")
    file.add_argument(
        "--kind",
        choices=["lists", "ranks"],
        default="lists",
        help="lists: user, item, score; ranks: user, item, rank of each test target",
    )
    file.add_argument(
        "--ids",
        choices=["original", "prepared"],
        default="original",
        help="original: as the data names users and items; prepared: 0..N-1 and 1..V",
    )
    file.add_argument(
        "--columns", type=_pairs, default={}, metavar="user=NAME,…", help="where it names others"
    )
    file.add_argument("--seed", type=int, default=0, help="which training it is; a file each")
    file.add_argument("--deterministic", action="store_true", help="the seed changes nothing")
    file.add_argument("--title", default="", help="of the system")
    file.add_argument("--paper", default="", metavar="URL")
    file.add_argument("--code", default="", metavar="URL")
    file.add_argument("--params", type=int, default=0, metavar="N", help="trainable parameters")
    file.add_argument(
        "--claims", metavar="METRIC=VALUE,…", help="or a .json file: metrics that must come out"
    )
    file.add_argument("--tolerance", type=float, default=1e-4, help="of claims; default 0.0001")
    file.add_argument("--verify-only", action="store_true", help="check and print, write nothing")
    add_data_root(parser)


def run(options: argparse.Namespace) -> int:
    """Restore what is missing, or take in a file."""
    if not options.verify_only:
        check_folder("--out", options.out)
    if options.dataset and options.label:
        return _take_in(options)
    if options.dataset or options.label or options.source.is_file():
        raise RequestError(f"{options.source}: say --dataset NAME and --label NAME")
    from intentbench.reports.archive import restore_trials

    restored, present = restore_trials(options.source, options.out)
    sys.stdout.write(f"{restored} trials restored, {present} were there: {options.out}\n")
    return 0


def _take_in(options: argparse.Namespace) -> int:
    """Check a file, and put its ranks among the runs."""
    from intentbench.runner.claims import check_claims, read_claims
    from intentbench.runner.foreign_rows import VALUES
    from intentbench.runner.submission import (
        Facts,
        find_protocol,
        read_submission,
        write_submission,
    )

    known = ("user", "item", VALUES[options.kind])
    if unknown := set(options.columns) - set(known):
        raise RequestError(f"--columns {min(unknown)}=…: there are {', '.join(known)}")
    claims = read_claims(options.claims) if options.claims else {}
    facts = Facts(
        label=options.label,
        seed=options.seed,
        deterministic=options.deterministic,
        title=options.title,
        paper=options.paper,
        code=options.code,
        parameters=options.params,
    )
    protocol = replace(
        find_protocol(options.dataset, options.spec, options.plugin),
        fingerprint=options.fingerprint,
    )
    found = read_submission(
        options.source,
        protocol,
        facts,
        options.kind,
        options.ids,
        options.columns,
        options.data_root,
    )
    lines = [*found.lines(), *check_claims(found, claims, options.tolerance)]
    if not options.verify_only:
        folder, new = write_submission(found, options.out)
        lines.append(f"{'wrote' if new else 'was there:'} {folder}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _pairs(text: str) -> dict[str, str]:
    """A mapping, from user=NAME,item=NAME."""
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name and stated for name, _, stated in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected user=NAME,item=NAME,score=NAME")
    return {name: stated for name, _, stated in parts}
