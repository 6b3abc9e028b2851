"""Sequence text: a line a user, `user item item …`, oldest first (S3-Rec and its descendants)."""

import json
from pathlib import Path

import polars as pl

from datamodules.errors import FormatError
from datamodules.readers.base import EventTable, check_files
from datamodules.readers.lines import line_blocks, quoted, read_lines, split_lines


def read(files: dict[str, Path]) -> EventTable:
    """Read a sequence file, and what stands beside it.

    Args:
        files: "events": the sequences, whole numbers with blanks between. Optionally "times": the
            same lines with Unix seconds instead of items; "attributes": JSON object, item to
            a list of attribute numbers, feature `attribute`; "labels": tab-separated with the
            header `item movie title genres`, the latter with `|` between, text and feature
            `genre`.

    Raises:
        FormatError: a file is not of this form.
    """
    check_files(files, optional=("times", "attributes", "labels"))
    lines = _read_numbers(files["events"])
    if "times" in files:
        lines = lines.with_columns(timestamp=_matching_times(files, lines))
    events = lines.drop("line").explode(lines.columns[2:])
    features, texts = {}, None
    if "attributes" in files:
        features["attribute"] = _read_attributes(files["attributes"])
    if "labels" in files:
        features["genre"], texts = _read_labels(files["labels"])
    return EventTable(events.lazy(), item_features=features, item_texts=texts)


def _read_numbers(path: Path) -> pl.DataFrame:
    """Columns `line` (from 1), `user`, `item` (a list)."""
    frames = []
    for number, block in line_blocks(path):
        text = block.decode("ascii", "replace").removesuffix("\n").split("\n")
        fields = pl.Series("fields", text).str.extract_all(r"\S+")
        lines = pl.DataFrame([fields]).with_row_index("line", offset=number)
        short = lines.filter(pl.col("fields").list.len() < 2)
        if short.height:
            raise FormatError(f"{path}:{short['line'][0]}: expected a user and items")
        numbers = fields.cast(pl.List(pl.Int64), strict=False)
        bad = lines.filter(numbers.list.eval(pl.element().is_null()).list.any())
        if bad.height:
            raise FormatError(
                f"{path}:{bad['line'][0]}: not a number: {_culprit(bad['fields'][0])}"
            )
        frames.append(lines.select("line", user=numbers.list.first(), item=numbers.list.slice(1)))
    if not frames:
        raise FormatError(f"{path}: the file has no lines")
    return pl.concat(frames)


def _culprit(fields: pl.Series) -> str:
    return quoted(fields.filter(fields.cast(pl.Int64, strict=False).is_null())[0])


def _matching_times(files: dict[str, Path], sequences: pl.DataFrame) -> pl.Series:
    path = files["times"]
    times = _read_numbers(path)
    name = files["events"].name
    if times.height != sequences.height:
        raise FormatError(f"{path}: {times.height} lines, but {name} has {sequences.height}")
    other = (times["user"] != sequences["user"]) | (
        times["item"].list.len() != sequences["item"].list.len()
    )
    if other.any():
        row = int(other.arg_max() or 0)
        raise FormatError(
            f"{path}:{row + 1}: {len(times['item'][row])} times of user {times['user'][row]}, but "
            f"{name} has {len(sequences['item'][row])} items of user {sequences['user'][row]}"
        )
    return times["item"]


def _read_attributes(path: Path) -> pl.DataFrame:
    try:
        mapping = json.loads("\n".join(read_lines(path)))
        pairs = pl.DataFrame(
            {"item": list(map(int, mapping)), "value": list(mapping.values())},
            schema={"item": pl.Int64, "value": pl.List(pl.Int64)},
        )
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}:{error.lineno}: invalid JSON: {error.msg}") from None
    except (ValueError, TypeError, AttributeError, pl.exceptions.PolarsError):
        raise FormatError(
            f'{path}: expected a JSON object {{"item": [attribute, …]}} of whole numbers'
        ) from None
    return pairs.explode("value").drop_nulls()


def _read_labels(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    table = split_lines(path, ["item", "movie", "title", "genres"], "\t", "utf-8")
    if table.row(0) != tuple(table.columns):
        raise FormatError(f"{path}:1: expected the header {' '.join(table.columns)}")
    genres = table[1:].select("item", value=pl.col("genres").str.split("|"))
    return genres.explode("value"), table[1:].select("item", text="title")
