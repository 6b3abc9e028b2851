"""Amazon reviews as their authors publish them: 2014, 2018 and 2023, JSON lines or CSV.

McAuley et al. 2015, He & McAuley 2016 (2014); Ni et al. 2019 (2018); Hou et al. 2024 (2023).
"""

from pathlib import Path
from typing import Literal

import polars as pl

from datamodules.errors import RequestError
from datamodules.readers.base import EventTable, check_files
from datamodules.readers.lines import cast_columns, first_line, read_delimited, read_json_lines

_OLD_KEYS = {
    "user": "reviewerID",
    "item": "asin",
    "rating": "overall",
    "timestamp": "unixReviewTime",
}
_NEW_KEYS = {
    "user": "user_id",
    "item": "parent_asin",
    "rating": "rating",
    "timestamp": "timestamp",
}
_KEYS = {2014: _OLD_KEYS, 2018: _OLD_KEYS, 2023: _NEW_KEYS}
_CSV_ORDER = {
    2014: ("user", "item", "rating", "timestamp"),
    2018: ("item", "user", "rating", "timestamp"),  # the item first, in this release only
    2023: ("user", "item", "rating", "timestamp"),
}
_TYPES = {"user": pl.String, "item": pl.String, "rating": pl.Float64, "timestamp": pl.Int64}


def read(files: dict[str, Path], release: Literal[2014, 2018, 2023]) -> EventTable:
    """Read reviews; JSON and CSV are told apart by the first character.

    Args:
        files: "events": `reviews_*_5.json.gz`, `*.jsonl`, `ratings_*.csv`, plain or gzip.
        release: which of the three, for they differ in keys, in the order of columns, and in
            the unit of time (2023: milliseconds; timestamps come out as seconds).

    Raises:
        FormatError: a line is not in the release's form.
        RequestError: no such release.
    """
    check_files(files)
    if release not in _KEYS:
        raise RequestError(f"amazon: no release {release!r}; known: {', '.join(map(str, _KEYS))}")
    path, keys = files["events"], _KEYS[release]
    if first_line(path).startswith("{"):
        types = {keys[name]: dtype for name, dtype in _TYPES.items()}
        found = cast_columns(read_json_lines(path, list(types)), types, path)
    else:
        header = release == 2023
        types = {keys[name] if header else name: _TYPES[name] for name in _CSV_ORDER[release]}
        found = read_delimited(path, types, ",", header=header)
        keys = keys if header else {name: name for name in keys}
    events = found.select(pl.col(key).alias(name) for name, key in keys.items())
    if release == 2023:
        events = events.with_columns(pl.col("timestamp") // 1000)
    return EventTable(events.lazy())
