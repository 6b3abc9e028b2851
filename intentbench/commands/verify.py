"""`intentbench verify`: published pages against the ranks that they were computed from."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of what."""
    parser.add_argument(
        "leaderboards",
        type=Path,
        nargs="?",
        default=Path("leaderboards"),
        help="folder of pages and their ranks/ (default: leaderboards)",
    )


def run(options: argparse.Namespace) -> int:
    """Compute every page again; 1 where one differs from what its ranks give."""
    from intentbench.reports.verify import verify_boards

    findings = 0
    for check in verify_boards(options.leaderboards):
        findings += len(check.findings)
        said = [f"{check.pages} pages"]
        if check.rounded:
            said.append(f"{check.rounded} lines differ by rounding only")
        if check.pictures:
            said.append(f"{check.pictures} pictures there, not compared")
        if check.findings:
            said = [f"{len(check.findings)} findings"]
        state = "FAILED" if check.findings else "ok"
        sys.stdout.write(f"{state:6} {check.name}: {'; '.join(said)}\n")
        sys.stdout.writelines(f"         {finding}\n" for finding in check.findings)
        sys.stdout.flush()
    return 1 if findings else 0
