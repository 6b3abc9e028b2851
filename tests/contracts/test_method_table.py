"""The table of methods, their folder and their presets agree."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

import intentbench.models
from intentbench.contracts.checks import CHECKS
from intentbench.models import METHODS, load_method, method_table

ROOT = Path(intentbench.models.__path__[0])
PRESETS = ROOT.parents[1] / "benchmarks" / "models"


def test_each_file_is_a_method_and_each_method_a_file() -> None:
    files = {path.stem for path in ROOT.glob("*.py")} - {
        "__init__",
        "base",
        "card",
        "events",
        "graph",
        "graph_text",
        "intent",
        "pretrained",
        "takes",
        "takes_texts",
    }
    assert files == METHODS.keys()


def test_titles_differ() -> None:
    titles = Counter(load_method(key).CARD.title for key in method_table())
    assert max(titles.values()) == 1


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_belong_to_a_method(path: Path) -> None:
    assert path.stem in METHODS
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_each_check_has_one_test() -> None:
    tests = [
        line.split('"')[1]
        for path in (ROOT.parent / "contracts").glob("test_*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("@pytest.mark.contract(")
    ]
    assert sorted(tests) == sorted(CHECKS)
