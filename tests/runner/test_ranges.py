"""Numbers outside their range are refused before anything trains."""

import inspect
from fnmatch import fnmatchcase

import pytest

from datamodules.errors import RequestError
from intentbench.models import METHODS, load_method
from intentbench.runner.arguments import resolve_arguments
from intentbench.runner.entrants import FROM_DATASET
from intentbench.runner.ranges import OWN, RANGES, check_ranges


def _resolve(method: str, **arguments: object) -> dict[str, object]:
    cls = load_method(method)
    needed = {"text": "ids"} if "text" in inspect.signature(cls).parameters else {}
    return resolve_arguments(cls, {**needed, **arguments}, "spec.yaml: models.x", FROM_DATASET)


@pytest.mark.parametrize(
    ("method", "name", "value", "message"),
    [
        ("irllrec", "intents", 0, "must be at least 1, found 0"),
        ("irllrec", "alpha", 2.0, "must be at least 0 and at most 1, found 2"),
        ("irllrec", "beta", -1.0, "must be at least 0 and at most 1, found -1"),
        ("irllrec", "temperature", 0.0, "must be above 0, found 0"),
        ("lightgcn", "keep", 7.0, "must be above 0 and at most 1, found 7"),
        ("lightgcn", "keep", 0.0, "must be above 0 and at most 1, found 0"),
        ("sgl", "contrast_weight", -0.1, "must be at least 0, found -0.1"),
        ("sasrec", "learning_rate", float("nan"), "must be above 0, found nan"),
        ("sasrec", "learning_rate", -1.0, "must be above 0, found -1"),
        ("gru4rec", "embedding_dropout", 1.5, "must be at least 0 and at most 1, found 1.5"),
    ],
)
def test_a_number_outside_its_range_is_refused_twice(
    method: str, name: str, value: float, message: str
) -> None:
    for _ in range(2):  # what was resolved once is kept
        with pytest.raises(RequestError) as error:
            _resolve(method, **{name: value})
        assert str(error.value) == f"spec.yaml: models.x: {name}: {message}"


def test_ends_of_ranges_flags_and_words_pass() -> None:
    assert _resolve("lightgcn", keep=1.0, layers=0)["keep"] == 1.0
    assert _resolve("irllrec", alpha=1.0, beta=0.0)["alpha"] == 1.0
    assert _resolve("rearec", alpha=5.0)["alpha"] == 5.0  # a weight there
    assert _resolve("igr_sr", mask="drop")["mask"] == "drop"  # a share in CoSeRec
    assert _resolve("intentrec", intents=None)["intents"] is None


def test_what_others_call_by_the_same_name_is_theirs() -> None:
    class Foreign:
        """Keeps so many neighbours."""

    check_ranges(Foreign, {"keep": 7}, "spec.yaml")


@pytest.mark.parametrize("method", METHODS)
def test_defaults_and_tiny_settings_are_in_range(method: str) -> None:
    check_ranges(load_method(method), _resolve(method), method)
    check_ranges(load_method(method), load_method(method).CARD.tiny, method)


def test_the_table_has_no_dead_names() -> None:
    arguments = {
        (cls.__name__, name)
        for cls in map(load_method, METHODS)
        for name in inspect.signature(cls).parameters
    }
    assert OWN.keys() <= arguments
    names = {name for _, name in arguments}
    patterns = [pattern for text in RANGES.values() for pattern in text.split()]
    assert [p for p in patterns if not any(fnmatchcase(name, p) for name in names)] == []
    twice = {name for name in names if sum(fnmatchcase(name, p) for p in patterns) > 1}
    assert twice == set()
