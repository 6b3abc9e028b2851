"""Tables with named columns: CSV, parquet, JSON lines, and datasets of the Hugging Face hub.

This is the reader for a person's own data: options say which column is what. Files are read with
polars, which keeps ids such as 007 and names the line that is wrong; the hub with `datasets`.
"""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from datamodules.errors import FormatError, RequestError
from datamodules.readers.base import EventTable, check_files
from datamodules.readers.cells import TimeUnit, numbers, seconds, spread_lists
from datamodules.readers.lines import (
    brief,
    first_line,
    line_blocks,
    numeric_ids,
    read_json_lines,
    read_lines,
)


def read(
    files: dict[str, Path],
    *,
    user: str | None = None,
    item: str | None = None,
    timestamp: str | None = None,
    time_unit: TimeUnit = "s",
    order: str | None = None,
    action: str | None = None,
    rating: str | None = None,
    session: str | None = None,
    split: str | None = None,
    item_features: list[str] | None = None,
    item_text: str | None = None,
    header: list[str] | None = None,
    collapse_repeats: bool = False,
    hub: str | None = None,
    hub_revision: str | None = None,
    hub_config: str | None = None,
    hub_split: str = "train",
) -> EventTable:
    """Read a table with a row an event.

    A column whose option is left out is the one of the option's name, if there is one (not so
    `order`).

    Args:
        files: "events": `.csv`, `.tsv`, `.parquet`, `.jsonl` or `.json` (an object a line); text
            may be gzip (`.csv.gz`). None with `hub`. Optionally "items": a table of the same kinds
            with the item's column and those of `item_features` and `item_text`, which are
            otherwise columns of the events.
        user: column of the user.
        item: column of the item; preparation counts and drops events where it is empty.
        timestamp: column of the time; may be empty in some rows.
        time_unit: "s" or "ms" since 1970, or "date": text such as 2019-10-01 or
            2019-10-01 12:30:00, taken as UTC. Fractions of a second are cut off.
        order: column of numbers that gives the input order, such as a step within a session or a
            place within the user; without it, the order of rows.
        action: column of the action.
        rating: column of the rating.
        session: column of the session.
        split: column with train, valid, test, for the recipe's split "pre_split".
        item_features: columns that describe items; a list in a cell is several values, and in text
            a cell that begins with [ is a list in JSON.
        item_text: column with a text about the item.
        header: names of the columns of a CSV file whose first line is an event already.
        collapse_repeats: whether, of events of one user, session, item and action that follow
            each other in time, the first alone is kept.
        hub: id of a dataset on the hub, `owner/name`, or a folder of one.
        hub_revision: commit or tag; pin it.
        hub_config: configuration of the dataset.
        hub_split: which of its splits.

    Raises:
        FormatError: a column is missing, or a value is not of its kind.
        RequestError: no file, or the hub dataset cannot be loaded.
    """
    if time_unit not in ("s", "ms", "date"):
        raise RequestError(f"table: time_unit is s, ms or date, not {time_unit!r}")
    check_files(files, optional=("items",), required=() if hub else ("events",))
    given = {
        "user": user,
        "item": item,
        "timestamp": timestamp,
        "action": action,
        "rating": rating,
        "session": session,
        "split": split,
    }
    if hub is None:
        source = _open_file(files["events"], header)
    else:
        source = _open_hub(hub, hub_config, hub_split, hub_revision)
    columns = {
        name: column or name
        for name, column in given.items()
        if column is not None or name in source.names or name in ("user", "item")
    }
    if order is not None:
        columns["order"] = order
    about_items = [*(item_features or []), *([item_text] if item_text else [])]
    if "items" in files:
        found = source.read(list(columns.values()))
        described = _open_file(files["items"])
        items = described.read([columns["item"], *about_items])
    else:
        described = source
        found = items = source.read([*columns.values(), *about_items])
    events = found.select(pl.col(column).alias(name) for name, column in columns.items())
    key = pl.col(columns["item"]).alias("item")
    features = {
        name: spread_lists(items.select(key, value=name), name, described.line)
        for name in item_features or []
    }
    texts = None
    if item_text is not None:
        texts = items.select(key, text=pl.col(item_text).cast(pl.String)).drop_nulls()
        texts = texts.unique("item", keep="first", maintain_order=True)
    events = _typed(events, time_unit, source)
    if collapse_repeats:
        events = _without_repeats(events)
    return EventTable(events.lazy(), features, item_texts=texts)


@dataclass(frozen=True)
class _Source:
    """A table to read columns of: what errors call it, its columns, the line of its first row."""

    where: str
    names: list[str]
    first_line: int
    load: Callable[[list[str]], pl.DataFrame]

    def line(self, row: int) -> str:
        return f"{self.where}:{self.first_line + row}"

    def read(self, columns: list[str]) -> pl.DataFrame:
        for column in columns:
            if column not in self.names:
                names = ", ".join(self.names)
                raise FormatError(f"{self.where}: no column {column!r}; it has: {names}")
        return self.load(list(dict.fromkeys(columns)))


def _open_file(path: Path, header: list[str] | None = None) -> _Source:
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _KINDS:
        raise FormatError(f"{path}: unknown kind of table; known: {', '.join(_KINDS)}")
    return _KINDS[suffix](path, header)


def _open_parquet(path: Path, _: list[str] | None) -> _Source:
    try:
        names = list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FormatError(f"{path}: cannot be read as parquet: {brief(error)}") from None

    def load(wanted: list[str]) -> pl.DataFrame:
        try:
            return pl.read_parquet(path, columns=wanted)
        except (pl.exceptions.PolarsError, OSError) as error:  # its end, read above, may be whole
            raise FormatError(f"{path}: damaged parquet file: {brief(error)}") from None

    return _Source(str(path), names, 1, load)


def _open_json_lines(path: Path, _: list[str] | None) -> _Source:
    try:
        names = list(json.loads(first_line(path)))
    except ValueError as error:
        raise FormatError(f"{path}:1: invalid JSON: {error}") from None
    return _Source(str(path), names, 1, lambda wanted: read_json_lines(path, wanted))


def _open_csv(path: Path, header: list[str] | None) -> _Source:
    separator = "\t" if ".tsv" in path.suffixes else ","
    names = header or _csv_names(path, separator)

    def load(wanted: list[str]) -> pl.DataFrame:
        for _ in line_blocks(path):  # polars takes what there is of a truncated file
            pass
        try:
            found = pl.read_csv(
                path,
                separator=separator,
                has_header=header is None,
                schema=dict.fromkeys(names, pl.String),
            )
        except pl.exceptions.PolarsError as error:
            _raise_fields(path, separator, len(names))
            raise FormatError(f"{path}: {brief(error)}") from None
        if found[names[-1]].null_count():  # an empty field, or too few
            _raise_fields(path, separator, len(names))
        return found.select(wanted)

    return _Source(str(path), names, 1 if header else 2, load)


def _csv_names(path: Path, separator: str) -> list[str]:
    try:
        return next(csv.reader([first_line(path)], delimiter=separator), [])
    except csv.Error as error:
        raise FormatError(f"{path}:1: {_csv_problem(error)}") from None


def _raise_fields(path: Path, separator: str, expected: int) -> None:
    reader = csv.reader(io.StringIO("\n".join(read_lines(path))), delimiter=separator)
    try:
        for row in reader:
            if row and len(row) != expected:
                found = f"{len(row)} fields, expected {expected}"
                raise FormatError(f"{path}:{reader.line_num}: {found}")
    except csv.Error as error:
        raise FormatError(f"{path}:{reader.line_num}: {_csv_problem(error)}") from None


def _csv_problem(error: csv.Error) -> str:
    if "new-line" in str(error):
        return "line breaks are \\r alone; write them as \\n"
    return f"no line of a table: {error}"


_KINDS: dict[str, Callable[[Path, list[str] | None], _Source]] = {
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".parquet": _open_parquet,
    ".jsonl": _open_json_lines,
    ".json": _open_json_lines,
}


def _open_hub(hub: str, config: str | None, split: str, revision: str | None) -> _Source:
    import datasets  # costs over a second, and nothing else needs it

    datasets.disable_progress_bars()  # of the conversion; downloads keep theirs
    # the prepared dataset is the copy that is kept; an open map outlives its deleted file
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        try:
            loaded = datasets.load_dataset(
                hub, config, split=split, revision=revision, cache_dir=cache
            )
        except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
            raise RequestError(f"hub dataset {hub}: {brief(error)}") from None
        frame = pl.DataFrame(loaded.data.table)
    return _Source(f"hub dataset {hub}", frame.columns, 1, frame.select)


def _typed(events: pl.DataFrame, unit: TimeUnit, source: _Source) -> pl.DataFrame:
    """Columns in the types that `EventTable` promises, rows in input order."""
    for name in ("user", "item", "session"):
        if name in events.columns and not events[name].dtype.is_integer():
            text = pl.col(name).cast(pl.String).replace("", None)
            events = numeric_ids(events.with_columns(text), [name])
    for name in ("action", "split"):
        if name in events.columns:
            events = events.with_columns(pl.col(name).cast(pl.String))
    for name in ("rating", "order"):
        if name in events.columns:
            events = events.with_columns(numbers(events[name], name, source.line))
    if "timestamp" in events.columns:
        times = seconds(events["timestamp"], "timestamp", source.line, unit)
        events = events.with_columns(times)
    if "order" in events.columns:
        events = events.sort("order", nulls_last=True, maintain_order=True).drop("order")
    return events


def _without_repeats(events: pl.DataFrame) -> pl.DataFrame:
    """The events without those that repeat the one before them, in input order.

    Rows that name no user or item, which preparation drops, do not come between.
    """
    numbered = events.with_row_index("row")
    time = ["timestamp"] if "timestamp" in events.columns else []
    in_time = numbered.drop_nulls(["user", "item"]).sort([*time, "row"], nulls_last=True)
    sitting, deed = (
        [pl.col(name) for name in names if name in events.columns]
        for names in (("user", "session"), ("item", "action"))
    )
    as_before = pl.all_horizontal(column.eq_missing(column.shift()) for column in deed)
    repeats = in_time.filter(as_before.over(sitting)).select("row")
    return numbered.join(repeats, on="row", how="anti", maintain_order="left").drop("row")
