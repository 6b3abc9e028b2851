"""What stands in the cells of a table with named columns: numbers, times, lists of values."""

import json
from collections.abc import Callable
from typing import Literal, NoReturn

import polars as pl

from datamodules.errors import FormatError
from datamodules.readers.lines import brief, quoted, raise_value

TimeUnit = Literal["s", "ms", "date"]

Where = Callable[[int], str]
"""From a row, counted from 0, to the file and line that errors name."""

_EARLIEST, _LATEST = 315_532_800, 7_258_118_400
"""1980 and 2200: a time beyond the latter that lies between them in a finer unit was meant so."""

_NAMES = {"s": "seconds", "ms": "milliseconds"}
_FINER = {  # how many make one of the unit: what they are called, and what to do
    "s": {
        10**3: ("milliseconds", "set time_unit: ms"),
        10**6: ("microseconds", "divide the times by 1,000 and set time_unit: ms"),
        10**9: ("nanoseconds", "divide the times by 1,000,000 and set time_unit: ms"),
    },
    "ms": {
        10**3: ("microseconds", "divide the times by 1,000"),
        10**6: ("nanoseconds", "divide the times by 1,000,000"),
    },
}


def numbers(values: pl.Series, name: str, where: Where) -> pl.Series:
    """A column as numbers.

    Args:
        values: text or numbers.
        name: of the column, for errors.
        where: of a row, for errors.

    Raises:
        FormatError: a value is no number.
    """
    converted = values.cast(pl.Float64, strict=False)
    if (row := _first_lost(values, converted)) is not None:
        raise_value(where(row), name, values[row])
    return converted


def seconds(values: pl.Series, name: str, where: Where, unit: TimeUnit) -> pl.Series:
    """A column of times as whole seconds since 1970, fractions cut off.

    Args:
        values: text, numbers or times.
        name: of the column, for errors.
        where: of a row, for errors.
        unit: of text and numbers.

    Raises:
        FormatError: a value is no time of this unit, or one of a finer unit.
    """
    converted = _seconds(values, unit)
    if (row := _first_lost(values, converted)) is not None:
        kind = "a date" if unit == "date" else "a number"
        if unit != "date" and _seconds(values[row : row + 1], "date").is_not_null().all():
            kind = "a number (for dates set time_unit: date)"
        raise_value(where(row), name, values[row], kind)
    if unit != "date" and not values.dtype.is_temporal():
        _refuse_finer(values, converted, name, where, unit)
    return converted


def spread_lists(feature: pl.DataFrame, name: str, where: Where) -> pl.DataFrame:
    """Item and value, a row a value: a list gives several, as does text that begins with [.

    Args:
        feature: columns "item" and "value".
        name: of the column of values, for errors.
        where: of a row, for errors.

    Raises:
        FormatError: text begins with [ and is no JSON list of plain values.
    """
    value = feature["value"]
    if value.dtype == pl.String and (is_list := value.str.starts_with("[")).any():
        read = pl.when(is_list).then(pl.col("value")).str.json_decode(pl.List(pl.String))
        try:  # a cell without [ is a value of its own, also beside lists
            feature = feature.with_columns(value=read.fill_null(pl.concat_list("value")))
        except pl.exceptions.PolarsError as error:
            _raise_lists(value, is_list, name, where, error)
    if feature["value"].dtype == pl.List:
        feature = feature.explode("value")
    if feature["value"].dtype == pl.Categorical:
        feature = feature.with_columns(pl.col("value").cast(pl.String))
    return feature.drop_nulls().unique(maintain_order=True)


def _first_lost(values: pl.Series, converted: pl.Series) -> int | None:
    """The first row whose value has no counterpart."""
    bad = converted.is_null() & values.is_not_null()
    return int(bad.arg_max() or 0) if bad.any() else None


def _seconds(values: pl.Series, unit: TimeUnit) -> pl.Series:
    if values.dtype.is_temporal():
        return values.cast(pl.Datetime("us")).dt.epoch("s")
    if unit == "date":
        text = values.cast(pl.String).str.strip_suffix(" UTC")
        try:
            return text.str.to_datetime(time_unit="us", strict=False).dt.epoch("s")
        except pl.exceptions.ComputeError:  # not even the first value looks like a date
            return pl.Series(values.name, [None] * len(values), pl.Int64)
    whole = values.cast(pl.Int64, strict=False)
    if values.dtype.is_float() or whole.null_count() > values.null_count():  # 1600799751.5
        floats = values.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False)
        whole = floats if values.dtype.is_float() else whole.zip_with(whole.is_not_null(), floats)
    return whole // 1000 if unit == "ms" else whole


def _refuse_finer(
    values: pl.Series, converted: pl.Series, name: str, where: Where, unit: TimeUnit
) -> None:
    """Refuse what lies far in the future, but within our days if its unit were finer.

    Raises:
        FormatError: a value does; it says which unit that is and what to do.
    """
    late = converted >= _LATEST
    for factor, (finer, remedy) in _FINER[unit].items() if late.any() else ():
        meant = converted // factor
        bad = late & (meant >= _EARLIEST) & (meant < _LATEST)
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise FormatError(
                f"{where(row)}: {name} {values[row]} is no time in {_NAMES[unit]} but looks like "
                f"{finer}: {remedy}"
            )


def _raise_lists(
    value: pl.Series, is_list: pl.Series, name: str, where: Where, error: Exception
) -> NoReturn:
    """Name the cell for which text could not be read as lists.

    Raises:
        FormatError: always.
    """
    for row in is_list.arg_true():
        if not _is_list(value[row]):
            raise FormatError(
                f"{where(row)}: {name} begins with [ but is no JSON list of plain values: "
                f'{quoted(value[row])}; write lists as JSON: ["a", "b"]'
            ) from None
    raise FormatError(f"{where(0)}: {name} is no column of JSON lists: {brief(error)}") from None


def _is_list(cell: str) -> bool:
    try:
        return not any(isinstance(one, list | dict) for one in json.loads(cell))
    except (ValueError, RecursionError):
        return False
