"""Other values of an argument, derived from its type."""

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def other_values(cls: type, name: str, value: Any) -> list[Any]:
    """Values that an argument of a class may take instead, the likeliest first.

    A Literal gives its other values, a bool its negation, an integer n + 1 and 2n, a float its
    half (a probability stays one) or 0.1 in place of 0, an optional argument 1 or 0.5 in place
    of None, a tuple one more of its last element. Other types give none.

    >>> class Method:
    ...     def __init__(self, rate: float, loss: Literal["ce", "bce"], top: int | None): ...
    >>> other_values(Method, "rate", 0.5), other_values(Method, "loss", "ce")
    ([0.25], ['bce'])
    >>> other_values(Method, "top", None)
    [1]
    """
    return _others(get_type_hints(cls.__init__)[name], value)  # type: ignore[misc]  # of a class


def _others(hint: Any, value: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return [other for other in get_args(hint) if other != value]
    if get_origin(hint) in (Union, types.UnionType):
        inner = [part for part in get_args(hint) if part is not types.NoneType]
        start = {int: 0, float: 1.0}
        return [
            other
            for part in inner
            for other in _others(part, start.get(part) if value is None else value)
        ]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int) and hint is int:
        return [value + 1, 2 * value] if value else [1]
    if isinstance(value, int | float):
        return [value / 2 if value else 0.1]
    if isinstance(value, tuple) and value:
        return [(*value, value[-1])]
    return []
