"""A file of another system's results as numbers: its columns read, its ids looked up.

What is wrong with a file is said in one line, with the first row or name that shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.errors import FormatError, RequestError
from datamodules.prepared import PreparedDataset

Ints = NDArray[np.int64]
Kind = Literal["lists", "ranks"]
Ids = Literal["original", "prepared"]

VALUES: dict[Kind, str] = {"lists": "score", "ranks": "rank"}
"""The third column of each kind of file."""

_SHOWN = 3  # names in a message


@dataclass(frozen=True, eq=False)
class ForeignRows:
    """A file's rows, its ids looked up in the prepared dataset.

    Attributes:
        where: the file, the beginning of a message.
        user: (R,) row of the user.
        item: (R,) item, 1..V.
        value: (R,) score of the item, or rank of the target.
        users: (N,) names of users, as the file gives them.
        items: (V,) names of items 1..V.
    """

    where: str
    user: Ints
    item: Ints
    value: NDArray[np.float64]
    users: Sequence[str]
    items: Sequence[str]

    def name_users(self, users: NDArray[np.integer]) -> str:
        """The number of users and the first names."""
        return listed([self.users[user] for user in users[:_SHOWN]], len(users), "user")

    def name_pair(self, user: int, item: int) -> str:
        """A user and an item, as the file gives them."""
        return f"user {self.users[user]!r} and item {self.items[item - 1]!r}"


def read_rows(
    path: Path, dataset: PreparedDataset, kind: Kind, ids: Ids, columns: Mapping[str, str]
) -> ForeignRows:
    """Read a file of lists or of ranks.

    Args:
        path: .csv (also .csv.gz), .parquet, or a folder of .parquet files, as Spark writes them.
        dataset: whose users and items it names.
        kind: "lists" with columns user, item, score; "ranks" with user, item, rank.
        ids: "original": as the data names them; "prepared": users 0..N-1 and items 1..V.
        columns: "user", "item", "score" or "rank" to what the file calls it; others keep theirs.

    Raises:
        FormatError: the file is neither, is damaged, or has no row.
        RequestError: a column is missing, or a value is not what it should be.
    """
    value = VALUES[kind]
    frame = _read(path)
    user, item, given = (
        _column(path, frame, name, columns.get(name, name)) for name in ("user", "item", value)
    )
    names = [_names(dataset, what, ids) for what in ("users", "items")]
    return ForeignRows(
        where=str(path),
        user=_look_up(path, user, names[0], "user"),
        item=_look_up(path, item, names[1], "item") + 1,
        value=_numbers(path, given, whole=kind == "ranks"),
        users=names[0],
        items=names[1],
    )


def _names(dataset: PreparedDataset, kind: Literal["users", "items"], ids: Ids) -> list[str]:
    """How a file names users or items."""
    if ids == "original":
        return dataset.original_ids(kind)
    first = 0 if kind == "users" else 1
    count = dataset.n_users if kind == "users" else dataset.n_items
    return [str(number) for number in range(first, first + count)]


def _read(path: Path) -> pl.DataFrame:
    """All of a file; of text nothing is guessed: ids like 007 stay as they are."""
    try:
        if path.is_dir():
            if not (parts := sorted(path.glob("[!._]*.parquet"))):
                raise FormatError(f"{path}: is a folder without .parquet files")
            frame = pl.read_parquet(parts)
        elif path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        elif path.name.endswith((".csv", ".csv.gz")):
            frame = pl.read_csv(path, infer_schema=False)
        else:
            raise FormatError(
                f"{path}: can be .csv, .csv.gz, .parquet or a folder of .parquet files"
            )
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{path}: cannot be read ({reason})") from None
    if frame.is_empty():
        raise FormatError(f"{path}: has no rows")
    return frame


def _column(path: Path, frame: pl.DataFrame, name: str, stated: str) -> pl.Series:
    """A column without gaps."""
    if stated not in frame.columns:
        raise RequestError(
            f"{path}: no column {stated!r}; it has {', '.join(frame.columns)}: "
            f"say which one it is with --columns {name}=…"
        )
    column = frame[stated]
    if column.null_count():
        row = column.is_null().arg_max()
        raise RequestError(
            f"{path}: column {stated!r} is empty in {column.null_count():,} rows; the first is row "
            f"{(row or 0) + 1}"
        )
    return column


def _look_up(path: Path, column: pl.Series, names: Sequence[str], what: str) -> Ints:
    """(R,) the position of each name."""
    try:
        texts = _without_point(column).cast(pl.String)
    except pl.exceptions.PolarsError:
        raise RequestError(
            f"{path}: column {column.name!r} holds {column.dtype}, no ids; a row is one item"
        ) from None
    found = texts.replace_strict(
        pl.Series(names), pl.int_range(len(names), eager=True), default=None, return_dtype=pl.Int64
    )
    if found.null_count():
        unknown = texts.filter(found.is_null()).unique(maintain_order=True)
        hint = "see docs/submissions.md on ids"
        if unknown.str.contains(r"^\d+\.0$").all():
            hint = "they were written as floating numbers: write them as whole ones"
        raise RequestError(
            f"{path}: {listed(unknown[:_SHOWN].to_list(), len(unknown), what)} not in the prepared "
            f"data; {hint}"
        )
    return found.to_numpy()


def _without_point(column: pl.Series) -> pl.Series:
    """Numbers of floating type as whole ones, where all are: frames hold ids like that."""
    if column.dtype.is_float() and (column.is_finite() & (column.floor() == column)).all():
        return column.cast(pl.Int64)
    return column


def _numbers(path: Path, column: pl.Series, whole: bool) -> NDArray[np.float64]:
    """(R,) numbers; NaN and infinity pass unless they must be whole."""
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        raise RequestError(f"{path}: column {column.name!r} holds {column.dtype}, no numbers")
    numbers = column.cast(pl.Float64, strict=False)
    wrong = numbers.is_null()
    if whole:
        wrong |= numbers.is_infinite() | (numbers.floor() != numbers) | numbers.is_nan()
    if wrong.any():
        row = wrong.arg_max() or 0
        raise RequestError(
            f"{path}: column {column.name!r} has {wrong.sum():,} values that are no "
            f"{'whole numbers' if whole else 'numbers'}; the first is {column[row]!r} in row "
            f"{row + 1}"
        )
    return numbers.to_numpy()


def listed(names: Sequence[str], count: int, what: str) -> str:
    """A count and the first names.

    >>> listed(["a", "b"], 4, "user")
    "4 users ('a', 'b', …)"
    """
    shown = ", ".join(map(repr, names)) + (", …" if count > len(names) else "")
    return f"{count:,} {what}{'s' if count > 1 else ''} ({shown})"
