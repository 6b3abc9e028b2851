import json
from pathlib import Path

import numpy as np
import pytest

from intentbench.reports.cells import read_results
from intentbench.reports.exports import render_json
from intentbench.reports.leaderboard import Leaderboard, build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.overall import overall_lines, overall_reference, overall_table
from intentbench.reports.plan import Plan
from tests.reports.fake_runs import (
    GRU,
    KNN,
    ORACLE,
    POPULARITY,
    SASREC,
    write_failure,
    write_runs,
    write_trial,
)

DATASETS = [f"set{i}" for i in range(7)]


def board(runs: Path, plan: Plan | None = None) -> Leaderboard:
    return build_leaderboard("board", plan or Plan(), read_results(runs))


def cells(found: Leaderboard) -> dict[str, dict[str, str]]:
    """Heading to label to text."""
    columns = overall_table(found)
    labels = [text.strip("`") for text in columns[0][1]]
    return {heading: dict(zip(labels, texts, strict=True)) for heading, texts in columns}


def test_one_dataset_has_nothing_overall(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC], n_users=40)
    found = board(tmp_path)
    assert found.across is None
    assert (overall_table(found), overall_lines(found)) == ([], [])
    assert "## Overall" not in render_markdown(found)
    assert "overall" not in json.loads(render_json(found))


def test_overall_is_what_the_sections_say(tmp_path: Path) -> None:
    write_runs(tmp_path, [POPULARITY, KNN, SASREC, ORACLE], ["beauty", "toys", "yelp"])
    write_trial(tmp_path, GRU, "beauty", 0)
    found = board(tmp_path, Plan(reference="item_knn", datasets=("yelp", "absent")))
    shown = cells(found)
    ratios = [
        row.means["ndcg@10"] / other.means["ndcg@10"]
        for section in found.sections
        for row in section.rows
        for other in section.rows
        if (row.label, other.label) == ("sasrec_ce_all", "item_knn")
    ]
    assert len(ratios) == 3
    text = shown["against `item_knn`, % [95 %]"]
    percent = 100 * (np.exp(np.mean(np.log(ratios))) - 1)
    assert text["sasrec_ce_all"].startswith(f"{percent:+.1f} [")
    assert text["item_knn"] == "reference"
    assert shown["mean rank"] == {"sasrec_ce_all": "1.00", "item_knn": "2.00", "popularity": "3.00"}
    marks = [
        section.family.mark("sasrec_ce_all", "item_knn")
        for section in found.sections
        if section.family
    ]
    counts = f"{marks.count('^')} / {marks.count('=')} / {marks.count('v')}"
    assert shown["datasets won / tied / lost against `item_knn`"]["sasrec_ce_all"] == counts
    page = render_markdown(found)
    assert page.index("## yelp") < page.index("## Overall") < page.index("## How to read")
    assert "- NDCG@10 on 3 datasets: yelp, beauty, toys.\n" in page
    assert "No test over datasets: the smallest two-sided p that signed ranks of 3 datasets" in page
    assert "- Left out, for they lack datasets: `gru4rec` (yelp, toys).\n" in page
    overall = json.loads(render_json(found))["overall"]
    assert overall["left_out"] == {"gru4rec": ["yelp", "toys"]}
    assert overall["pairs"][0]["a"] == "sasrec_ce_all"
    assert overall["pairs"][0]["ratio"] == pytest.approx(1 + percent / 100)
    assert overall["friedman"] is None


def test_two_datasets_give_no_interval(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC], ["beauty", "toys"], n_users=60)
    shown = cells(board(tmp_path))
    assert "[" not in shown["against `sasrec_ce_all`, %"]["item_knn"]


def test_six_datasets_are_tested(tmp_path: Path) -> None:
    write_runs(tmp_path, [POPULARITY, KNN, SASREC], DATASETS, n_users=60)
    found = board(tmp_path)
    shown = cells(found)
    assert shown["p (Holm)"]["popularity"] == f"{3 * 2 / 2**7:.3g}"
    first, second = overall_lines(found)[1:3]
    assert first == (
        "Friedman's test over datasets: every dataset ranks the rows alike (chi-squared 14.00); "
        "F after Iman and Davenport is infinite."
    )
    assert "exact, on log ratios, Holm over 3: " in second
    assert "`sasrec_ce_all` over `popularity`" in second


def test_six_datasets_do_not_suffice_for_many_rows(tmp_path: Path) -> None:
    write_runs(tmp_path, [POPULARITY, KNN, SASREC], DATASETS[:6], n_users=40)
    line = overall_lines(board(tmp_path))[2]
    assert "0 separated at 0.05. 6 datasets cannot separate a single pair of so many: " in line
    assert line.endswith("the smallest p after Holm is 0.094.")
    alone = Plan(reference="item_knn", family="reference")
    assert "Holm over 2: " in overall_lines(board(tmp_path, alone))[2]


def test_rows_that_share_no_datasets_are_not_compared(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN], ["beauty"], n_users=20)
    write_runs(tmp_path, [POPULARITY], ["toys"], n_users=20)
    write_failure(tmp_path, SASREC, "yelp", 0, "it broke")
    found = board(tmp_path)
    assert overall_table(found) == []
    assert overall_lines(found) == [
        "NDCG@10 on 2 datasets: beauty, toys.",
        "Fewer than two rows have results on all of them: nothing to compare.",
        "Left out, for they lack datasets: `item_knn` (toys), `popularity` (beauty).",
    ]


def test_a_reference_that_lacks_a_dataset_stands_aside(tmp_path: Path) -> None:
    write_runs(tmp_path, [POPULARITY, KNN], ["beauty", "toys"], n_users=40)
    write_runs(tmp_path, [SASREC], ["beauty"], n_users=40)
    assert overall_reference(board(tmp_path, Plan(reference="sasrec_ce_all"))) == "item_knn"
    assert overall_reference(board(tmp_path, Plan(reference="popularity"))) == "popularity"
