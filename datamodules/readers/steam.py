"""Steam reviews as SASRec's authors publish them: a Python dict a line, not JSON."""

import ast
from pathlib import Path

import polars as pl

from datamodules.errors import FormatError
from datamodules.readers.base import EventTable, check_files
from datamodules.readers.lines import line_blocks, numeric_ids, quoted

_KEYS = ("username", "product_id", "date")


def read(files: dict[str, Path]) -> EventTable:
    """Read reviews. Python parses the literals line by line: minutes for the whole of Steam.

    Args:
        files: "events": lines with at least `username`, `product_id` and `date` (2017-12-31). The
            time of an event is the start of its day, so ties are the norm.

    Raises:
        FormatError: a line is no dict, or lacks a key.
    """
    check_files(files)
    path = files["events"]
    frames = []
    for first, block in line_blocks(path):
        lines = block.removesuffix(b"\n").split(b"\n")
        rows = [_fields(line, path, first + place) for place, line in enumerate(lines)]
        frame = pl.DataFrame(rows, schema=dict.fromkeys(_KEYS, pl.String), orient="row")
        days = frame["date"].str.to_date("%Y-%m-%d", strict=False)
        if days.null_count():
            row = int(days.is_null().arg_max() or 0)
            raise FormatError(
                f"{path}:{first + row}: date is not a day: {quoted(frame['date'][row])}"
            )
        frames.append(
            frame.select(
                user="username", item="product_id", timestamp=days.cast(pl.Datetime).dt.epoch("s")
            )
        )
    if not frames:
        raise FormatError(f"{path}: the file has no events")
    return EventTable(numeric_ids(pl.concat(frames), ["item"]).lazy())


def _fields(line: bytes, path: Path, number: int) -> tuple[str, ...]:
    try:
        review = ast.literal_eval(line.decode())  # literals only: runs no code
        return tuple(str(review[key]) for key in _KEYS)
    except KeyError as error:
        raise FormatError(f"{path}:{number}: no key {error}; it has: {', '.join(review)}") from None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise FormatError(f"{path}:{number}: expected a Python dict") from None
