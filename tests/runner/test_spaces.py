import inspect
import random
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import RequestError
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import Subject
from intentbench.models import METHODS, load_method
from intentbench.runner.presets import load_settings
from intentbench.runner.spaces import (
    APART,
    Choice,
    Dimension,
    Range,
    Space,
    all_points,
    count_points,
    find_space,
    read_space,
)
from tests.runner.toy_plugin import Toy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NOTHING = {"popularity", "semantic"}
DATA = planted_cycles()


def own_space(method: str) -> Space:
    space = find_space(method, load_method(method), None, "")
    assert space is not None
    return space


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_space_around_its_defaults(method: str) -> None:
    space = own_space(method)
    assert bool(space) == (method not in NOTHING)
    defaults = inspect.signature(load_method(method).__init__).parameters
    for name, dimension in space.items():
        assert name not in APART
        value = defaults[name].default
        assert dimension.holds(value) or value == 0.0, (name, value)


@pytest.mark.parametrize("method", METHODS)
def test_a_space_holds_every_setting_that_was_published(method: str) -> None:
    space = own_space(method)
    settings = load_settings(BENCHMARKS / "any.yaml", method)
    presets = settings.presets.values()
    blocks = [*settings.datasets.values(), *(preset.arguments for preset in presets)]
    blocks += [block for preset in presets for block in preset.datasets.values()]
    for block in blocks:
        for name in block.keys() & space.keys():
            assert space[name].holds(block[name]) or block[name] == 0.0, (name, block[name])


def draw(dimension: Dimension, generator: random.Random) -> Any:
    if isinstance(dimension, Choice):
        return dimension.clean(generator.choice(dimension.values))
    if (points := dimension.points()) is not None:
        return generator.choice(points)
    return dimension.clean(generator.uniform(dimension.low, dimension.high))


def ends(dimension: Dimension) -> tuple[Any, Any]:
    if isinstance(dimension, Choice):
        return dimension.values[0], dimension.values[-1]
    return dimension.clean(dimension.low), dimension.clean(dimension.high)


@pytest.mark.parametrize("method", METHODS)
def test_every_point_of_a_space_makes_the_method(method: str) -> None:
    space, generator = own_space(method), random.Random(0)
    points = [
        {name: ends(dimension)[0] for name, dimension in space.items()},
        {name: ends(dimension)[1] for name, dimension in space.items()},
        *({name: draw(d, generator) for name, d in space.items()} for _ in range(2)),
    ]
    subject = Subject(method, load_method(method), DATA)
    for point in points:
        model = subject.build(changes=point)
        assert {name: model.hparams[name] for name in point} == point


def test_a_range_is_what_it_says() -> None:
    tenths = Range(0.1, 0.7, step=0.1)
    assert tenths.points() == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert all(tenths.holds(value) for value in (0.1, 0.30000000000000004, 0.7))
    assert not any(tenths.holds(value) for value in (0.0, 0.15, 0.8, True, None, "0.1"))
    whole = Range(1, 9, step=2)
    assert whole.points() == (1, 3, 5, 7, 9)
    assert not whole.holds(2)
    assert Range(1, 4).points() == (1, 2, 3, 4)
    assert Range(0, 2**31).points() is None
    assert not Range(1, 4).holds(1.5)
    rate = Range(1e-4, 1e-2, log=True)
    assert rate.points() is None
    assert rate.clean(0.0013385298778232698) == 0.001339
    assert rate.clean(1e-4) == 1e-4
    assert rate.holds(1e-4)
    assert rate.holds(1e-2)


def test_points_of_a_space_are_counted_and_listed() -> None:
    space: Space = {"a": Choice((0, 10)), "b": Range(1, 3)}
    assert count_points(space) == 6 == len(list(all_points(space)))
    assert list(all_points(space))[1] == {"a": 0, "b": 2}
    assert count_points({**space, "c": Range(0.0, 1.0)}) == float("inf")
    assert Choice((0, 10)).clean(10.0) == 10
    assert isinstance(Choice((0, 10)).clean(10.0), int)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"widht": [4, 8]}, "unknown argument 'widht'; did you mean 'width'"),
        ({"width": ["narrow"]}, "width"),
        ({"width": [4.5]}, "width"),
        ({"width": {"low": 4, "high": 8.5}}, "width"),
        ({"fault": ["raise", "explode"]}, "fault"),
        ({"window": [5]}, "unknown argument 'window'"),
        ({"n_items": [5]}, "unknown argument 'n_items'"),
        ({"layout": ["all"]}, "layout: is chosen by a row"),
        ({"width": []}, "expected different plain values"),
        ({"width": [4, 4]}, "expected different plain values"),
        ({"width": 4}, "expected keys and values"),
        ({"width": {"low": 4}}, "expected numbers low and high"),
        ({"width": {"low": 8, "high": 4}}, "low must be below high"),
        ({"width": {"low": 4, "high": 8, "stop": 2}}, "unknown key 'stop'"),
        ({"width": {"low": 0, "high": 8, "log": True}}, "log needs a low above 0"),
        ({"width": {"low": 4, "high": 8, "log": "yes"}}, "expected true or false"),
        ({"width": {"low": 4, "high": 8, "step": 3}}, "steps from low must reach high"),
        ({"width": {"low": 4, "high": 8, "step": 1e12}}, "steps from low must reach high"),
        ({"width": {"low": 1, "high": 2, "step": 0.25}}, r"whole step, write 1\.0 and 2\.0"),
        ({"width": {"low": 1, "high": 4, "step": 1.5}}, "whole ends need a whole step"),
        ({"width": {"low": 1, "high": 10**400}}, "expected numbers low and high"),
        ({"width": {"low": -1.5e308, "high": 1.5e308}}, "low must be below high"),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(space: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        read_space(space, Toy, "toy.yaml: search")
    assert str(caught.value).startswith("toy.yaml: search")
    assert "\n" not in str(caught.value)


def test_a_methods_file_stands_in_place_of_the_suites_space() -> None:
    cls = load_method("item_knn")
    assert find_space("item_knn", cls, {"gamma": [0.5, 1.0]}, "file") == {
        "gamma": Choice((0.5, 1.0))
    }
    assert find_space("item_knn", cls, {}, "file") == {}
    assert find_space("toy", Toy, None, "file") is None
