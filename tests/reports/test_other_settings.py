"""Rows that were made with other settings than their benchmark has now are named on its page."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from intentbench.cli import main
from intentbench.reports.cells import read_results
from intentbench.reports.exports import render_json
from intentbench.reports.leaderboard import build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.other_settings import changed_settings
from intentbench.reports.plan import Plan
from intentbench.results.record import TrialRecord
from tests.reports.fake_runs import KNN, SASREC, write_runs

RECORD = TrialRecord(
    "t", "done", "beauty", "f", "row", "sasrec", 0,
    arguments={"n_items": 9, "window": 50, "width": 64, "betas": [0.9, 0.98], "net": {"layers": 2}},
    data={"window": 50, "layout": "all"},
    training={"max_epochs": 3},
)  # fmt: skip
NOW: dict[str, Any] = {
    "method": "sasrec",
    "arguments": {"width": 64, "betas": (0.9, 0.98), "net": {"layers": 2}},
    "data": {"window": 50, "layout": "all"},
    "training": {"max_epochs": 3},
}


@pytest.mark.parametrize(
    ("part", "given", "changes"),
    [
        ("training", {}, {}),
        ("training", {"max_epochs": 2}, {"training.max_epochs": {"was": 3, "now": 2}}),
        ("data", {"window": 20}, {"data.window": {"was": 50, "now": 20}}),
        ("arguments", {"net": {"layers": 4}}, {"net.layers": {"was": 2, "now": 4}}),
        ("arguments", {"dropout": None}, {"dropout": {"now": None}}),
        ("arguments", {"net": {}}, {"net.layers": {"was": 2}}),
    ],
)
def test_every_setting_is_compared(
    part: str, given: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert changed_settings(RECORD, {**NOW, part: NOW[part] | given}) == changes


def test_of_another_method_no_argument_is_compared() -> None:
    now = {**NOW, "method": "gru4rec", "arguments": {"hidden": 8}}
    assert changed_settings(RECORD, now) == {"method": {"was": "sasrec", "now": "gru4rec"}}


def test_rows_that_differ_alike_share_a_line(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC, replace(SASREC, label="gru4rec", window=20)], n_users=60)
    results = read_results(tmp_path)
    made = {record.label: record for record, _ in results}
    fewer = {
        label: {
            "method": record.method,
            "arguments": record.arguments,
            "data": record.data,
            "training": {"max_epochs": 100},
        }
        for label, record in made.items()
    }
    fewer["item_knn"]["training"] = made["item_knn"].training
    fewer["absent"] = fewer["gru4rec"]
    plan = Plan(command="intentbench run b.yaml", labels=("absent",))
    page = render_markdown(build_leaderboard("b", plan, results))
    assert "Other settings" not in page
    board = build_leaderboard("b", replace(plan, settings={"beauty": fewer}), results)
    (line,) = [line for line in render_markdown(board).splitlines() if "Other settings" in line]
    named = [
        row.label for row in board.sections[0].rows if row.label in ("sasrec_ce_all", "gru4rec")
    ]
    assert line == (
        f"- **Other settings:** `{named[0]}`, `{named[1]}` made with others than the spec has now: "
        "`training.max_epochs` was `200`, now `100`. Anew with `intentbench run b.yaml --datasets "
        f"beauty --models {','.join(named)}`."
    )
    rows = {row["label"]: row for row in json.loads(render_json(board))["datasets"][0]["rows"]}
    expected = {"training.max_epochs": {"was": 200, "now": 100}}
    assert rows["gru4rec"]["other_settings"] == expected
    assert "other_settings" not in rows["item_knn"]


def test_a_page_of_mixed_settings_says_so_until_they_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = {"markov": {}, "bpr_mf": {"width": 8}, "ease": {}}
    spec = {"datasets": ["synthetic-tiny"], "models": rows, "seeds": [0]}
    page, ranks = Path("pages/b2.md"), Path("pages/ranks/b2")

    def run(epochs: int, *more: str) -> str:
        content = {**spec, "training": {"max_epochs": epochs}}
        Path("b2.yaml").write_text(yaml.safe_dump(content))
        assert main(["run", "b2.yaml", "--leaderboards", "pages", *more]) == 0
        text = page.read_text()
        assert main(["report", str(ranks), "-o", "pages"]) == 0
        assert page.read_text() == text
        return text

    assert "Other settings" not in run(2)
    assert "settings" not in json.loads((ranks / "board.json").read_text())["plan"]
    mixed = run(1, "--models", "bpr_mf")
    (line,) = [line for line in mixed.splitlines() if line.startswith("- **Other settings:**")]
    assert "`training.max_epochs` was `2`, now `1`" in line
    labels, command = line.partition(" made with ")[0], line.split("`")[-2]
    assert "`markov`" in labels
    assert "`ease`" in labels
    assert "bpr_mf" not in line
    assert main(["verify", "pages"]) == 0
    assert main(shlex.split(command)[1:]) == 0
    assert "Other settings" not in page.read_text()
    assert "settings" not in json.loads((ranks / "board.json").read_text())["plan"]
