"""Pair text: a line an event, `user item`, each user's oldest first (SASRec's own files)."""

from pathlib import Path

import polars as pl

from datamodules.readers.base import EventTable, check_files
from datamodules.readers.lines import read_delimited


def read(files: dict[str, Path]) -> EventTable:
    """Read a pair file.

    Args:
        files: "events": two whole numbers a line, a blank between.

    Raises:
        FormatError: a line is anything else.
    """
    check_files(files)
    columns = {"user": pl.Int64, "item": pl.Int64}
    return EventTable(read_delimited(files["events"], columns, " ").lazy())
