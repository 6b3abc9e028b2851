"""Lines below a table: what was not run, and where the rest ran."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from intentbench.reports.cells import read_results
from intentbench.reports.leaderboard import Section, build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.plan import Plan
from intentbench.reports.provenance import environment_lines, gaps, sign_lines
from tests.reports.fake_runs import KNN, POPULARITY, SASREC, write_runs

PLAN = Plan(datasets=("beauty",), labels=("sasrec_ce_all", "item_knn", "popularity", "a", "b"))


def _section(runs: Path, environments: list[dict[str, Any]]) -> Section:
    """Three trials of a row, each with an environment of its own."""
    write_runs(runs, [SASREC], ["beauty"], seeds=range(3))
    results = [
        (replace(record, environment=environment), ranks)
        for (record, ranks), environment in zip(read_results(runs), environments, strict=True)
    ]
    return build_leaderboard("board", Plan(), results).sections[0]


def test_commits_of_one_machine_share_a_line(tmp_path: Path) -> None:
    machine: dict[str, Any] = {"python": "3.11.9", "cpu": "Some CPU"}
    commits: list[dict[str, Any]] = [
        {"commit": "a" * 40},
        {"commit": "b" * 40, "dirty": True},
        {"commit": "a" * 40},
    ]
    section = _section(tmp_path, [machine | commit for commit in commits])
    (line,) = environment_lines(section)
    assert line.startswith(
        "Environment: Python 3.11.9; Some CPU; commits `aaaaaaaaaaaa` (2 trials), "
        "`bbbbbbbbbbbb` with uncommitted changes (1 trial). Trials finished "
    )


def test_machines_have_a_line_each(tmp_path: Path) -> None:
    one = {"python": "3.11.9", "commit": "a" * 40}
    section = _section(tmp_path, [one, {"python": "3.12.1"}, one])
    first, second = environment_lines(section)
    assert first.startswith("Environment of 2 trials: Python 3.11.9; commit `aaaaaaaaaaaa`. ")
    assert second.startswith("Environment of 1 trial: Python 3.12.1. ")


def test_nothing_recorded_is_said(tmp_path: Path) -> None:
    (line,) = environment_lines(_section(tmp_path, [{}, {}, {}]))
    assert line.startswith("Environment: not recorded. ")


def test_a_seed_is_named_once_a_sign(tmp_path: Path) -> None:
    write_runs(tmp_path, [SASREC], ["beauty"], seeds=range(3))
    twice = ["intent collapse: cosine 1", "intent collapse: share 0.93", "overfitting: late"]
    results = [
        (replace(record, signs=twice if record.seed else []), ranks)
        for record, ranks in read_results(tmp_path)
    ]
    section = build_leaderboard("board", Plan(), results).sections[0]
    assert sign_lines(section) == [
        "Sign of trouble in `sasrec_ce_all`: intent collapse (seed 1, 2).",
        "Sign of trouble in `sasrec_ce_all`: overfitting (seed 1, 2).",
    ]


def test_rows_without_a_trial_are_named_and_not_shown(tmp_path: Path) -> None:
    write_runs(tmp_path, [SASREC, KNN, POPULARITY], ["beauty"], seeds=range(2))
    board = build_leaderboard("board", PLAN, read_results(tmp_path))
    (section,) = board.sections
    assert [row.label for row in section.rows][3:] == ["a", "b"]
    assert [row.label for row in section.tried.rows] == [r.label for r in section.rows[:3]]
    page = render_markdown(board)
    assert "- **Not run:** `a`, `b`.\n" in page
    assert "| `a` |" not in page


def test_rows_that_lack_the_same_seeds_share_a_line(tmp_path: Path) -> None:
    write_runs(tmp_path, [SASREC], ["beauty"], seeds=range(2))
    write_runs(tmp_path, [replace(SASREC, label="item_knn")], ["beauty"], seeds=range(2))
    write_runs(tmp_path, [replace(SASREC, label="popularity")], ["beauty"], seeds=range(1))
    plan = replace(PLAN, labels=PLAN.labels[:3], seeds=(0, 1, 2))
    section = build_leaderboard("board", plan, read_results(tmp_path)).sections[0]
    assert sorted(gaps(section, "")) == [
        "**Incomplete:** `item_knn`, `sasrec_ce_all`: 2/3 seeds; seed 2 not run.",
        "**Incomplete:** `popularity`: 1/3 seeds; seed 1, 2 not run.",
    ]
