"""Options that several commands have."""

import argparse
from pathlib import Path


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Where data is looked for."""
    parser.add_argument(
        "--data-root", type=Path, help="where data files lie; else $INTENTBENCH_DATA, then cache"
    )


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name for name in text.split(",") if name]


def numbers(text: str) -> list[int]:
    """Numbers between commas."""
    return [int(number) for number in names(text)]
