"""JSON of a page: laid out as the standard library does it."""

import json
from math import inf, nan
from typing import Any

import pytest

from intentbench.reports.exports import _encode

PLAIN: list[Any] = [
    {},
    [],
    {"a": [], "b": {}, "c": [[], [1, [2, {"d": None}]]]},
    [True, False, None, 0, -7, 10**30, "", 'quote " and \\ and \n', "ü ≤ \u2028 \x01"],
    {"é\t": 0.5, "": [-0.0, 1e-300, 1e22, 123456789.0, 0.1]},
]


@pytest.mark.parametrize("value", PLAIN)
def test_layout_is_that_of_json(value: Any) -> None:
    assert _encode(value) == json.dumps(value, indent=1, ensure_ascii=False)


def test_floats_are_rounded_or_null() -> None:
    found = json.loads(_encode({1: (1 / 3, nan), "x": [inf, -inf]}))
    assert found == {"1": [0.3333333333, None], "x": [None, None]}
