import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intentbench.reports.cells import read_results
from intentbench.reports.exports import render_json
from intentbench.reports.leaderboard import Leaderboard, build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.plan import Plan
from intentbench.reports.settings import OPEN, settings_block
from intentbench.results.external import EXTERNAL
from tests.reports.fake_runs import GRU, KNN, ORACLE, POPULARITY, FakeModel, write_trial

BASE: dict[str, Any] = {
    "base": "lightgcn",
    "base_arguments": {"layers": 3, "l2": 1e-6, "keep": 1.0},
}
PAPER: dict[str, Any] = {
    **BASE,
    "pair_weight": 0.03,
    "profile_weight": 0.0,
    "translation_weight": 5e-4,
}
RELEASED: dict[str, Any] = {**PAPER, "profile_weight": 1e-3, "translation_weight": 0.0}
SIZES = {"n_items": 400, "n_users": 300}


def row(label: str, method: str = "", **arguments: Any) -> FakeModel:
    given = tuple({**arguments, **SIZES}.items())
    return replace(GRU, label=label, method=method or label, arguments=given)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def board(runs: Path) -> Leaderboard:
    return build_leaderboard("board", Plan(), read_results(runs))


def settings(runs: Path) -> list[str]:
    """Without the fold around them."""
    lines = settings_block(board(runs).sections[0])
    return [line for line in lines if line.lstrip().startswith("- ")]


def test_rows_of_a_method_say_which_form_ran_on_what(runs: Path) -> None:
    for label, arguments in (("a", PAPER), ("b", RELEASED), ("c", {**PAPER, "pair_weight": 1e-3})):
        write_trial(runs, row(label, "irllrec", **arguments), "beauty", 0)
    common, method, *rows = settings(runs)
    assert common == "- rows with epochs, where no other: `training.max_epochs 200`"
    assert method == ("- method `irllrec`, 3 rows: `base lightgcn (keep 1, l2 1e-06, layers 3)`")
    assert sorted(rows) == [
        "  - `a`: `pair_weight 0.03, profile_weight 0, translation_weight 0.0005`",
        "  - `b`: `pair_weight 0.03, profile_weight 0.001, translation_weight 0`",
        "  - `c`: `pair_weight 0.001, profile_weight 0, translation_weight 0.0005`",
    ]


def test_a_row_that_is_called_after_another_form_gives_itself_away(runs: Path) -> None:
    write_trial(runs, row("irllrec_released", "irllrec", **PAPER), "beauty", 0)
    assert settings(runs)[1:] == [
        "- `irllrec_released`, method `irllrec`: `base lightgcn (keep 1, l2 1e-06, layers 3), "
        "pair_weight 0.03, profile_weight 0, translation_weight 0.0005`"
    ]


def test_a_base_with_its_defaults_and_values_of_every_type(runs: Path) -> None:
    given: dict[str, Any] = {"base_arguments": None, "on": True, "beta2": None, "sizes": [1, 2]}
    write_trial(runs, row("kar", base="sgl", **given), "beauty", 0)
    write_trial(runs, row("bare"), "beauty", 0)
    write_trial(runs, row("named", "bare_method"), "beauty", 0)
    assert sorted(settings(runs)[1:]) == [
        "- `kar`: `base sgl (its defaults), beta2 none, on yes, sizes [1, 2]`",
        "- `named`, method `bare_method`: `no arguments`",
    ]


def test_batches_and_training_are_said_where_they_are_other_than_most_rows(runs: Path) -> None:
    plain: dict[str, Any] = {"batch_size": 256, "window": 50, "layout": "pair"}
    for label, more in (("a", {}), ("b", {"added_pairs": 0.05}), ("c", {"batch_size": 64})):
        data, model = plain | more, row(label, "lightgcn", layers=3)
        write_trial(runs, model, "beauty", 0, data=data, training={"patience": 9 if more else 5})
    write_trial(runs, KNN, "beauty", 0, data={"batch_size": 1}, training={})
    common, method, *rows = settings(runs)
    assert common.endswith("`data.batch_size 256, training.patience 9`")
    assert method == "- method `lightgcn`, 3 rows: `layers 3`"
    assert sorted(rows) == [
        "  - `a`: `training.patience 5`",
        "  - `b`: `data.added_pairs 0.05`",
        "  - `c`: `data.batch_size 64`",
    ]


def test_rows_that_were_not_trained_here_have_no_settings(runs: Path) -> None:
    write_trial(runs, POPULARITY, "beauty", 0)
    write_trial(runs, replace(ORACLE, arguments=(("x", 1),)), "beauty", 0)
    write_trial(runs, replace(KNN, method=EXTERNAL, arguments=(("x", 1),)), "beauty", 0)
    assert settings_block(board(runs).sections[0]) == []


def test_what_a_value_says_is_no_markup(runs: Path) -> None:
    write_trial(runs, row("a", text="`<b>\n- **x**"), "beauty", 0)
    assert settings(runs)[1:] == ["- `a`: `text '<b> - **x**`"]


@pytest.mark.parametrize("length", [10, OPEN])
def test_a_long_list_is_folded(runs: Path, length: int) -> None:
    write_trial(runs, row("a", text="x" * length), "beauty", 0)
    first, *_, last, _ = settings_block(board(runs).sections[0])
    assert first == ("<details open>" if length < OPEN else "<details>")
    assert last == "</details>"


def test_page_and_json_have_them(runs: Path) -> None:
    write_trial(runs, row("irllrec", **PAPER), "beauty", 0)
    found = board(runs)
    assert "\n".join(settings_block(found.sections[0])) in render_markdown(found)
    (entry,) = json.loads(render_json(found))["datasets"][0]["rows"]
    assert entry["arguments"] == {**PAPER, **SIZES}
    assert (entry["data"], entry["training"]) == ({"window": 50}, {"max_epochs": 200})
