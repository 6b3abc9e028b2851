"""What `intentbench tune` searches: ranges and choices of a method's arguments, read and checked.

The suite's own methods have theirs in `models/spaces.yaml`. A block `search` in a method's
`models/<method>.yaml`, see `intentbench.runner.presets`, stands in place of it, or gives a method
of one's own a space.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

import yaml

from datamodules.errors import RequestError
from intentbench.models.base import Recommender
from intentbench.runner.arguments import resolve_arguments
from intentbench.runner.values import check_keys, read_mapping

DIGITS = 4
"""Significant digits of a searched number: what is written down is what was trained."""

MANY = 2**20
"""Points that are listed, at most."""

FROM_ELSEWHERE = {"n_items": 1, "n_users": 1, "window": 1}
"""Arguments that the dataset gives."""

APART = ("layout", "encoder", "encoder_arguments")
"""Arguments that set how rows are made, or follow from another row."""


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        values: numbers, words, truth values or None.
    """

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.values

    def points(self) -> tuple[Any, ...] | None:
        """All of them."""
        return self.values

    def clean(self, value: Any) -> Any:
        """A value as it is trained and written: 10 for 10.0 where 10 is among them."""
        return self.values[self.values.index(value)]


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both in it; whole numbers where the ends are.

    Attributes:
        low: the smallest.
        high: the largest.
        log: whether it is searched uniformly in the logarithm.
        step: between neighbours; None for any number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it, on a step where there are steps."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        exact = self.step is None and not self.whole
        return exact or math.isclose(steps, round(steps), abs_tol=1e-9)

    def points(self) -> tuple[Any, ...] | None:
        """All of them; None where they cannot be counted, or are too many to list."""
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            return None
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        if count > MANY:
            return None
        return tuple(self.clean(self.low + number * step) for number in range(count))

    def clean(self, value: Any) -> Any:
        """A value as it is trained and written."""
        if self.whole:
            return int(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


Dimension = Choice | Range
Space = Mapping[str, Dimension]
"""Arguments to where they are searched."""


@cache
def _own_spaces() -> dict[str, dict[str, Any]]:
    text = files("intentbench.models").joinpath("spaces.yaml").read_text(encoding="utf-8")
    spaces: dict[str, dict[str, Any]] = yaml.safe_load(text)["methods"]
    return spaces


def find_space(
    method: str, cls: type[Recommender], given: Mapping[str, Any] | None, where: str
) -> Space | None:
    """The space of a method; None where none is declared, empty where there is nothing to search.

    Args:
        method: its key.
        cls: its class.
        given: the block `search` of its file, None where there is none.
        where: that file, the beginning of messages.

    Raises:
        RequestError: the block names what the method does not have, or says it wrongly.
    """
    if given is not None:
        return read_space(given, cls, f"{where}: search")
    own = _own_spaces().get(method)
    return None if own is None else read_space(own, cls, f"spaces.yaml: {method}")


def read_space(given: Mapping[str, Any], cls: type[Recommender], where: str) -> Space:
    """Check a space: each end and each choice must be a value of the argument.

    Raises:
        RequestError: one line with file, key and what is wrong.
    """
    space = {str(name): _dimension(value, f"{where}.{name}") for name, value in given.items()}
    for name in space:
        if name in APART:
            raise RequestError(f"{where}.{name}: is chosen by a row or preset, not searched")
    for name, dimension in space.items():
        ends = (
            dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        )
        for value in ends:
            resolve_arguments(cls, {name: value}, where, FROM_ELSEWHERE)
    return space


def _dimension(given: Any, where: str) -> Dimension:
    if isinstance(given, list):
        plain = all(isinstance(value, bool | int | float | str | None) for value in given)
        if not given or not plain or any(given.count(value) > 1 for value in given):
            raise RequestError(f"{where}: expected different plain values, found {given!r}")
        return Choice(tuple(given))
    block = read_mapping(given, where, empty=False)
    check_keys(block, ("low", "high", "log", "step"), where)
    numbers = [block.get("low"), block.get("high"), block.get("step", 1)]
    if not all(_is_number(value) for value in numbers):
        raise RequestError(f"{where}: expected numbers low and high, found {given!r}")
    found = Range(block["low"], block["high"], block.get("log", False), block.get("step"))
    if not isinstance(found.log, bool):
        raise RequestError(f"{where}.log: expected true or false, found {found.log!r}")
    if not found.low < found.high or not _is_number(found.high - found.low):
        raise RequestError(f"{where}: low must be below high, found {given!r}")
    if found.log and (found.low <= 0 or found.step is not None):
        raise RequestError(f"{where}: log needs a low above 0 and has no step, found {given!r}")
    if found.step is None:
        return found
    if not (0 < found.step <= found.high - found.low and found.holds(found.high)):
        raise RequestError(f"{where}: steps from low must reach high, found {given!r}")
    if found.whole and not float(found.step).is_integer():
        raise RequestError(
            f"{where}: whole ends need a whole step, write {float(found.low)} and "
            f"{float(found.high)} for other numbers; found {given!r}"
        )
    return found


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def count_points(space: Space) -> float:
    """How many points a space has; infinity where they cannot be counted."""
    counts = [dimension.points() for dimension in space.values()]
    return math.prod(math.inf if points is None else len(points) for points in counts)


def all_points(space: Space) -> Iterable[dict[str, Any]]:
    """Every point of a space that has finitely many, the last argument moving fastest."""
    values = [dimension.points() or () for dimension in space.values()]
    return (dict(zip(space, point, strict=True)) for point in product(*values))
