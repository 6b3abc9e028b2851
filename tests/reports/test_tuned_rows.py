from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intentbench.reports.archive import read_archive
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish, render
from tests.reports.fake_runs import KNN, POPULARITY, SASREC, write_runs

SEARCH = {
    "study": "board.beauty.sasrec.01234567",
    "sampler": "TPE",
    "seed": 0,
    "trials": 20,
    "pruned": 2,
    "failed": 0,
    "seconds": 1340.4,
    "metric": "ndcg@10",
    "value": 0.25,
    "before": 0.2,
}
TUNING: dict[str, dict[str, dict[str, Any]]] = {
    "beauty": {
        "popularity": {"instead": "nothing to tune"},
        "item_knn": {"instead": "defaults"},
        "sasrec_ce_all": {"arguments": {"loss": "ce"}, "search": SEARCH},
    }
}
PLAN = Plan(title="A board", reference="sasrec_ce_all", seeds=(0, 1, 2))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_runs(root, [POPULARITY, KNN, SASREC], ["beauty", "synthetic"])
    return root


def page(runs: Path, folder: Path, plan: Plan) -> str:
    publish(runs, "board", folder, plan)
    return (folder / "board.md").read_text(encoding="utf-8")


def test_the_page_says_how_each_row_was_chosen_where_one_was_tuned(
    runs: Path, tmp_path: Path
) -> None:
    text = page(runs, tmp_path, replace(PLAN, tuning=TUNING))
    beauty, synthetic = text.split("## beauty")[1].split("## synthetic")
    cost = beauty.split("Cost of a trial:")[1].split("![")[0].strip().splitlines()
    last = {line.split(" | ")[0].strip("|` "): line.split(" | ")[-1].strip("| ") for line in cost}
    assert last == {
        "model": "arguments",
        ":--": "--:",
        "sasrec_ce_all": "tuned: 20 trials, 2 pruned, 1,340 s",
        "item_knn": "defaults",
        "popularity": "nothing to tune",
    }
    assert (
        "- Tuned values of `sasrec_ce_all`: loss ce (NDCG@10 0.2500 on validation, 0.2000 with "
        "those before; TPE, seed 0, study `board.beauty.sasrec.01234567`)." in beauty
    )
    table = synthetic.split("## How to read")[0]
    assert "tuned" not in table
    assert "defaults" not in table
    assert "| arguments" not in table


def test_failed_trials_are_said(runs: Path, tmp_path: Path) -> None:
    found = {"arguments": {"loss": "ce"}, "search": {**SEARCH, "failed": 3, "before": None}}
    plan = replace(PLAN, tuning={"beauty": {"sasrec_ce_all": found}})
    text = page(runs, tmp_path, plan)
    assert "tuned: 20 trials, 2 pruned, 3 failed, 1,340 s" in text
    assert "(NDCG@10 0.2500 on validation; TPE" in text


def test_a_row_that_ran_with_other_values_is_not_called_tuned(runs: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = {"arguments": {"loss": "bce1"}, "search": SEARCH}
    plan = replace(PLAN, tuning={"beauty": {"sasrec_ce_all": found}})
    text = page(runs, tmp_path / "other", plan)
    assert text == page(runs, tmp_path / "none", PLAN)


def test_a_board_without_tuned_rows_has_files_as_before(runs: Path, tmp_path: Path) -> None:
    page(runs, tmp_path, PLAN)
    assert "tuning" not in (tmp_path / "ranks" / "board" / "board.json").read_text()
    assert "Tuned" not in (tmp_path / "board.md").read_text()


def test_budgets_survive_publishing(runs: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, tuning=TUNING)
    text = page(runs, tmp_path, plan)
    folder = tmp_path / "ranks" / "board"
    assert read_archive(folder)[1].tuning == TUNING
    assert Plan.from_json(plan.to_json()).tuning == TUNING
    again = tmp_path / "again"
    render(folder, again)
    assert (again / "board.md").read_text(encoding="utf-8") == text
