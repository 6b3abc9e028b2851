"""Lines of text files, plain or gzip, in blocks; what is wrong is named by file and line."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

import polars as pl

from datamodules.errors import FormatError

_BLOCK = 1 << 26
_GZIP = b"\x1f\x8b"
_SHOWN = 80


def line_blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Runs of whole lines of about 64 MiB, each with the number of its first line, from 1.

    Raises:
        FormatError: the file is no whole gzip file though it begins as one, or cannot be read.
    """
    number, rest = 1, b""
    try:
        with _open(path) as file:
            while block := file.read(_BLOCK):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    yield number, whole + newline
                    number += whole.count(b"\n") + 1
    except EOFError:
        raise FormatError(f"{path}: truncated gzip file; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(f"{path}: damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from None
    if rest:
        yield number, rest


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Every line of a file, without its line break.

    Raises:
        FormatError: as `line_blocks`, or a line is not in the encoding.
    """
    lines: list[str] = []
    for _, block in line_blocks(path):
        for line in block.removesuffix(b"\n").split(b"\n"):
            try:
                lines.append(line.rstrip(b"\r").decode(encoding))
            except UnicodeDecodeError:
                raise FormatError(f"{path}:{len(lines) + 1}: not {encoding} text") from None
    return lines


def read_delimited(
    path: Path, columns: Mapping[str, type[pl.DataType]], separator: str, header: bool = False
) -> pl.DataFrame:
    """A file with the same fields in each line and no quotes, as large ones come.

    Args:
        path: plain or gzip.
        columns: every column in the file's order, and its type.
        separator: one character, or the same one twice (`::`).
        header: the first line names the columns; they must be these.

    Raises:
        FormatError: a wrong number of fields, or a value that is not of its type.
    """
    # polars splits at one byte: a doubled separator leaves an empty column between two others
    fields = [name for name in columns for name in (name, f"_after_{name}")]
    fields = fields[:-1] if len(separator) == 2 else list(columns)
    frames = []
    for number, block in line_blocks(path):
        skip = int(header and number == 1)
        if skip and (found := block.partition(b"\n")[0].strip().decode("utf-8", "replace")) != (
            expected := separator.join(columns)
        ):
            raise FormatError(f"{path}:1: expected the header {expected!r}, found {quoted(found)}")
        lines = block.partition(b"\n")[2] if skip else block
        if not lines.strip():
            continue
        try:
            text = pl.read_csv(
                lines,
                separator=separator[0],
                has_header=False,
                schema=dict.fromkeys(fields, pl.String),
                quote_char=None,
            )
        except pl.exceptions.PolarsError as error:
            _raise_fields(path, number, block, separator, len(columns))
            raise FormatError(f"{path}: {brief(error)}") from None
        if text[fields[-1]].null_count():
            _raise_fields(path, number, block, separator, len(columns))
        frames.append(cast_columns(text.select(list(columns)), columns, path, number + skip))
    if not frames:
        raise FormatError(f"{path}: the file has no events")
    return pl.concat(frames)


def read_json_lines(path: Path, keys: Sequence[str]) -> pl.DataFrame:
    """Some keys of a file with a JSON object a line, as text; null where a line lacks one.

    Lists and objects come as JSON. Other keys are read over.

    Raises:
        FormatError: a line is no JSON object, or no line has one of the keys.
    """
    frames, present = [], ""
    for number, block in line_blocks(path):
        try:
            frames.append(pl.read_ndjson(block, schema=dict.fromkeys(keys, pl.String)))
            present = present or ", ".join(json.loads(block.partition(b"\n")[0]))
        except (pl.exceptions.PolarsError, ValueError) as error:
            _raise_json(path, number, block)
            raise FormatError(f"{path}: {brief(error)}") from None
    if not frames:
        raise FormatError(f"{path}: the file has no events")
    found = pl.concat(frames)
    if missing := [key for key in keys if found[key].null_count() == found.height]:
        raise FormatError(f"{path}: no key {missing[0]!r}; the first line has: {present}")
    return found


def split_lines(path: Path, names: Sequence[str], separator: str, encoding: str) -> pl.DataFrame:
    """A small file with the same fields in each line, no header and no quotes, all as text.

    Raises:
        FormatError: a line has another number of fields, or is not in the encoding.
    """
    rows = [line.split(separator) for line in read_lines(path, encoding) if line]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise FormatError(f"{path}:{number}: {len(row)} fields, expected {len(names)}")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def first_line(path: Path) -> str:
    """The first line of a file, without its line break and byte order mark.

    Raises:
        FormatError: the file is empty, or as `line_blocks`.
    """
    for _, block in line_blocks(path):
        return block.partition(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r")
    raise FormatError(f"{path}: the file is empty")


def cast_columns(
    frame: pl.DataFrame, columns: Mapping[str, type[pl.DataType]], path: Path, first_line: int = 1
) -> pl.DataFrame:
    """Columns of text as other types, where each row is a line.

    Raises:
        FormatError: a value is missing or not of its type.
    """
    cast = frame.with_columns(
        pl.col(name).cast(dtype, strict=False) for name, dtype in columns.items()
    )
    for name in columns:
        if cast[name].null_count():
            row = int(cast[name].is_null().arg_max() or 0)
            raise_value(f"{path}:{first_line + row}", name, frame[name][row])
    return cast


def brief(error: Exception) -> str:
    """The first line of a library's message."""
    return str(error).partition("\n")[0]


def quoted(value: object) -> str:
    """A value as messages show it: its beginning alone where it is long, as a whole file may be."""
    text = value[: _SHOWN + 1] if isinstance(value, str) else str(value)
    return repr(text[:_SHOWN] + "…") if len(text) > _SHOWN else repr(value)


def raise_value(where: str, column: str, value: object, kind: str = "a number") -> NoReturn:
    """Refuse a value that is not of its kind, or not there.

    Raises:
        FormatError: always.
    """
    problem = "is missing" if value is None else f"is not {kind}: {quoted(value)}"
    raise FormatError(f"{where}: {column} {problem}")


def numeric_ids(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Ids of text as whole numbers, column by column, where that loses nothing ("007" would)."""
    for name in columns:
        numbers = frame[name].cast(pl.Int64, strict=False)
        if numbers.cast(pl.String).equals(frame[name]):
            frame = frame.with_columns(numbers)
    return frame


def _raise_fields(path: Path, number: int, block: bytes, separator: str, expected: int) -> None:
    for line in block.split(b"\n"):
        fields = line.count(separator.encode()) + 1
        if line and fields != expected:
            raise FormatError(f"{path}:{number}: {fields} fields, expected {expected}")
        number += 1


def _raise_json(path: Path, number: int, block: bytes) -> None:
    for line in block.split(b"\n"):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                raise FormatError(f"{path}:{number}: not a JSON object")
        except ValueError as error:
            raise FormatError(f"{path}:{number}: invalid JSON: {error}") from None
        number += 1


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    file = path.open("rb")
    if file.peek(2)[:2] == _GZIP:  # by content: archives are often renamed
        file.close()
        return gzip.open(path, "rb")
    return file
