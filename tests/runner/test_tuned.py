from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.errors import RequestError
from intentbench.runner.tuned import Budget, Tuned, load_tuned, save_tuned
from intentbench.spec import BenchmarkSpec, load_spec
from tests.runner.conftest import PLUGIN

FILE = """
presets:
  narrow: {width: 2, fault: slow}
datasets:
  synthetic-tiny: {width: 3, scales: [5]}
search: {width: {low: 2, high: 64}, fault: ["", slow]}
"""
BUDGET = Budget(
    study="toys.synthetic-tiny.toy.01234567",
    sampler="TPE",
    seed=0,
    trials=20,
    pruned=2,
    failed=1,
    seconds=340.2,
    metric="ndcg@10",
    value=0.25,
    before=0.2,
    data="0123456789abcdef",
    commit="abc-dirty",
)


def write(folder: Path, models: dict[str, Any], **more: Any) -> Path:
    (folder / "models").mkdir()
    (folder / "models" / "toy.yaml").write_text(FILE)
    raw = {"name": "toys", "datasets": ["synthetic-tiny", "synthetic"], "models": models, **more}
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def load(path: Path) -> BenchmarkSpec:
    return load_spec(path, plugin=PLUGIN)


def tuned(**arguments: Any) -> Tuned:
    return Tuned(arguments, BUDGET)


def test_what_is_saved_is_read_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "models" / "toy.tuned.yaml"
    assert load_tuned(path, "toys", "toy") == {}
    for board, dataset, label in (
        ("toys", "beauty", "toy"),
        ("toys", "beauty", "other"),
        ("more", "beauty", "toy"),
        ("toys", "toys", "toy"),
    ):
        save_tuned(path, board, dataset, label, tuned(width=len(dataset)))
    first = path.read_bytes()
    save_tuned(path, "toys", "beauty", "toy", tuned(width=9))
    found = load_tuned(path, "toys", "toy")
    assert {name: each.arguments for name, each in found.items()} == {
        "beauty": {"width": 9},
        "toys": {"width": 4},
    }
    assert {each.budget for each in found.values()} == {BUDGET}
    assert load_tuned(path, "toys", "other")["beauty"].arguments == {"width": 6}
    assert load_tuned(path, "more", "toy")["beauty"].arguments == {"width": 6}
    save_tuned(path, "toys", "beauty", "toy", tuned(width=6))
    assert path.read_bytes() == first


def test_order_of_precedence(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "plain": {"method": "toy"},
            "named": {"method": "toy", "preset": "narrow"},
            "own": {"method": "toy", "width": 7},
        },
    )
    places = dict.fromkeys(("plain", "named", "own"), tmp_path / "models" / "toy.tuned.yaml")
    for label, place in places.items():
        save_tuned(place, "toys", "synthetic-tiny", label, tuned(width=9, scales=[6]))
    rows = {entrant.label: entrant for entrant in load(path).entrants}
    widths = {label: row.arguments_on("synthetic-tiny")["width"] for label, row in rows.items()}
    # the row over what was tuned, this over a preset and the dataset's settings
    assert widths == {"plain": 9, "named": 9, "own": 7}
    assert rows["named"].arguments_on("synthetic-tiny")["fault"] == "slow"
    assert rows["own"].arguments_on("synthetic-tiny")["scales"] == [6.0]
    # and on another dataset there is none of it
    assert rows["plain"].arguments_on("synthetic")["width"] == 8
    assert rows["named"].arguments_on("synthetic")["width"] == 2


def test_tuned_values_hold_on_their_board_alone(tmp_path: Path) -> None:
    path = write(tmp_path, {"toy": {}}, name="another")
    save_tuned(
        tmp_path / "models" / "toy.tuned.yaml", "toys", "synthetic-tiny", "toy", tuned(width=9)
    )
    spec = load(path)
    assert spec.entrants[0].arguments_on("synthetic-tiny")["width"] == 3
    assert spec.stated.tuning == {}


def test_a_board_knows_how_each_row_was_chosen(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "toy": {},
            "published": {"method": "toy"},
            "own": {"method": "toy", "width": 7},
            "popularity": {},
            "sasrec": {},
        },
    )
    save_tuned(
        tmp_path / "models" / "toy.tuned.yaml", "toys", "synthetic-tiny", "toy", tuned(width=9)
    )
    described = {
        "toy": {"arguments": {"width": 9}, "search": asdict(BUDGET)},
        "published": {"instead": "published settings"},
        "own": {"instead": "values of the spec"},
        "popularity": {"instead": "nothing to tune"},
        "sasrec": {"instead": "defaults"},
    }
    assert load(path).stated.tuning == {"synthetic-tiny": described}  # nothing of `synthetic`
    only = load_spec(path, plugin=PLUGIN, models=["own"], datasets=["synthetic"])
    assert only.stated.tuning == {"synthetic-tiny": described}  # the page shows the others too


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"arguments": {"widht": 9}, "search": asdict(BUDGET)}, "unknown argument 'widht'"),
        ({"arguments": {"width": "x"}, "search": asdict(BUDGET)}, "width"),
        ({"arguments": {"layout": "all"}, "search": asdict(BUDGET)}, "layout"),
        ({"arguments": {}, "search": asdict(BUDGET)}, "expected keys and values"),
        ({"arguments": {"width": 9}}, "expected keys and values"),
        ({"arguments": {"width": 9}, "search": {"trials": 3}}, "missing or unknown: before"),
        ({"arguments": {"width": 9}, "found": {}}, "unknown key 'found'"),
        ({"arguments": {"width": 9}, "search": {**asdict(BUDGET), "seconds": "x"}}, "seconds: Exp"),
        ({"arguments": {"width": 9}, "search": {**asdict(BUDGET), "trials": 2.5}}, "trials: Exp"),
        ([], "expected keys and values"),
    ],
)
def test_a_damaged_entry_is_refused_in_one_line(tmp_path: Path, entry: Any, words: str) -> None:
    path = write(tmp_path, {"toy": {}})
    content = {"toys": {"synthetic-tiny": {"toy": entry}}}
    (tmp_path / "models" / "toy.tuned.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(RequestError, match=words) as caught:
        load(path)
    assert "toy.tuned.yaml: toys.synthetic-tiny.toy" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("left", ["toys:", "toys: {beauty: }", "toys: {beauty: {toy: }}", ""])
def test_what_a_deleted_entry_leaves_is_nothing(tmp_path: Path, left: str) -> None:
    path = tmp_path / "toy.tuned.yaml"
    path.write_text(left)
    assert load_tuned(path, "toys", "toy") == {}
    save_tuned(path, "toys", "beauty", "toy", tuned(width=9))
    assert load_tuned(path, "toys", "toy")["beauty"].arguments == {"width": 9}


def test_a_board_that_is_none_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "toy.tuned.yaml"
    path.write_text("toys: [beauty]")
    with pytest.raises(RequestError, match="toys: expected keys and values"):
        save_tuned(path, "toys", "beauty", "toy", tuned(width=9))
    assert path.read_text() == "toys: [beauty]"


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.tuned.yaml"
    path.write_text("a: [")
    with pytest.raises(RequestError, match=r"toy\.tuned\.yaml: no YAML"):
        load_tuned(path, "toys", "toy")
    with pytest.raises(RequestError, match="no YAML"):
        save_tuned(path, "toys", "beauty", "toy", replace(tuned(width=1)))
    assert path.read_text() == "a: ["
