"""Sweeps: which rows make one, what the page shows of them, and that other pages have none."""

import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from intentbench.cli import main
from intentbench.reports.archive import read_archive
from intentbench.reports.cells import read_results
from intentbench.reports.leaderboard import Section, build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish
from intentbench.reports.sweeps import draw_sweeps, find_sweeps, sweep_line
from tests.reports.fake_runs import GRU, POPULARITY, FakeModel, write_runs, write_trial

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
PLAN = Plan(reference="full")

FULL: dict[str, Any] = {
    "base": "lightgcn",
    "base_arguments": {"layers": 3, "keep": 1.0},
    "intents": 128,
    "pair": 0.03,
    "graph": True,
    "noise": 1,
}
CHANGES: dict[str, dict[str, Any]] = {
    "full": {},
    "pair_0": {"pair": 0.0},
    "pair_0.005": {"pair": 0.005},
    "pair_0.1": {"pair": 0.1},
    "intents_8": {"intents": 8},
    "intents_32": {"intents": 32},
    "noise_0": {"noise": 0},  # two rows make no sweep
    "without_graph": {"graph": False},  # a switch is no number
    "layers_1": {"base_arguments": {"layers": 1, "keep": 1.0}},  # nor is a mapping
    "layers_2": {"base_arguments": {"layers": 2, "keep": 1.0}},
    "layers_4": {"base_arguments": {"layers": 4, "keep": 1.0}},
    "both": {"pair": 0.05, "intents": 64},
}


def row(label: str, strength: float, method: str = "irllrec", **changes: Any) -> FakeModel:
    arguments = tuple({**FULL, **changes}.items())
    return FakeModel(label, strength, method=method, arguments=arguments)


ROWS = [row(label, 1.2 + 0.05 * n, **change) for n, (label, change) in enumerate(CHANGES.items())]


def section_of(runs: Path, plan: Plan = PLAN) -> Section:
    return build_leaderboard("board", plan, read_results(runs)).sections[0]


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    runs = tmp_path_factory.mktemp("runs")
    write_runs(runs, [*ROWS, POPULARITY, GRU])
    other = row("pair_0.3_longer", 1.0, pair=0.3)
    for seed in range(3):
        write_trial(runs, other, "beauty", seed, training={"max_epochs": 5})
        write_trial(runs, row("pair_0.3_data", 1.0, pair=0.3), "beauty", seed, data={"window": 9})
        write_trial(runs, row("pair_0.3_method", 1.0, "other", pair=0.3), "beauty", seed)
    return section_of(runs)


def test_sweeps_are_the_sets_that_pairs_of_rows_make(section: Section) -> None:
    found = {sweep.argument: {p.label for p in sweep.points} for sweep in find_sweeps(section)}
    # slowly: of which argument does each pair of rows differ, where it is one number alone?
    slow: dict[str, set[str]] = {}
    for a, b in combinations([r for r in section.rows if r.ranked], 2):
        one, two = a.records[0], b.records[0]
        if (one.method, one.data, one.training) != (two.method, two.data, two.training):
            continue
        names = [n for n in one.arguments if one.arguments[n] != two.arguments.get(n)]
        if len(names) == 1 and type(one.arguments[names[0]]) in (int, float):
            slow.setdefault(names[0], set()).update({a.label, b.label})
    assert found == {name: labels for name, labels in slow.items() if len(labels) > 2}
    assert found == {
        "intents": {"full", "intents_8", "intents_32"},
        "pair": {"full", "pair_0", "pair_0.005", "pair_0.1"},
    }


def test_points_are_means_and_deviations_over_seeds(section: Section) -> None:
    metric = section.table.primary
    for sweep in find_sweeps(section):
        assert [p.value for p in sweep.points] == sorted(p.value for p in sweep.points)
        for point in sweep.points:
            (row,) = [row for row in section.rows if row.label == point.label]
            values = [record.metrics[metric] for record in row.records]
            assert len(values) == 3
            assert point.value == row.records[0].arguments[sweep.argument]
            assert point.mean == pytest.approx(mean(values))
            assert point.deviation == pytest.approx(stdev(values))
            assert point.ends == pytest.approx(
                (mean(values) - stdev(values), mean(values) + stdev(values))
            )


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([1, 2, 3], False),
        ([0.0, 5e-4, 1e-2], True),  # 20 times, 0 left out
        ([1, 5, 19.9], False),
        ([8, 32, 256], True),
        ([-1, 1, 100], False),
    ],
)
def test_axis_is_logarithmic_where_values_are_positive_and_far_apart(
    tmp_path: Path, values: list[float], logarithmic: bool
) -> None:
    write_runs(tmp_path, [row(f"r{v:g}", 1.0, pair=v) for v in values], seeds=(0,), n_users=40)
    (sweep,) = find_sweeps(section_of(tmp_path))
    assert sweep.logarithmic is logarithmic
    assert all(point.deviation is None for point in sweep.points)  # of one seed
    assert all(point.ends == (point.mean, point.mean) for point in sweep.points)
    assert draw_sweeps(section_of(tmp_path))


def test_long_labels_of_near_values_leave_room_for_one_another(tmp_path: Path) -> None:
    values = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    write_runs(tmp_path, [row(f"r{v:g}", 1.0, pair=v) for v in values], seeds=(0,), n_users=40)
    drawn = draw_sweeps(section_of(tmp_path))
    shown = [value for value in values if f">{value:g}<".encode() in drawn]
    assert shown == [0.0, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1]


def test_rows_alike_are_one_point_which_is_the_reference(tmp_path: Path) -> None:
    rows = [row(f"r{v:g}", 1.0, pair=v) for v in (0.0, 0.1, 0.2)]
    twin = row("twin", 1.5, pair=0.1)
    write_runs(tmp_path, [*rows, twin], seeds=(0, 1), n_users=40)
    (best,) = find_sweeps(section_of(tmp_path, Plan(reference="r0")))
    assert [point.label for point in best.points] == ["r0", "twin", "r0.2"]
    (own,) = find_sweeps(section_of(tmp_path, Plan(reference="r0.1")))
    assert [point.label for point in own.points] == ["r0", "r0.1", "r0.2"]


def test_a_grid_is_a_line_for_each_value_of_the_other_argument(tmp_path: Path) -> None:
    rows = [row(f"{a:g}_{b}", a + b, pair=a, intents=b) for a in (0.0, 0.1, 0.3) for b in (4, 5)]
    write_runs(tmp_path, rows, seeds=(0,), n_users=40)
    section = section_of(tmp_path)
    sweeps = find_sweeps(section)
    assert [(sweep.argument, len(sweep.points)) for sweep in sweeps] == [("pair", 3), ("pair", 3)]
    assert sweep_line(section).count("`pair` of `irllrec`") == 1
    drawn = draw_sweeps(section)
    assert b">around<" not in drawn
    legend = [drawn.index(text) for text in (b">intents<", b">4<", b">5<")]
    assert legend == sorted(legend)


def test_a_number_of_the_data_module_is_swept_too_and_noise_unsaid_is_none(tmp_path: Path) -> None:
    for method, strength in (("plain", 1.0), ("other", 1.5)):
        for share in (0.0, 0.05, 0.25):
            label = f"{method}_{share:g}"
            data = {"added_pairs": share} if share else {}
            one = row(label, strength - share, method)
            write_trial(tmp_path, one, "beauty", 0, data={"window": 9, **data})
    section = section_of(tmp_path, Plan(reference="plain_0"))
    sweeps = find_sweeps(section)
    assert [(s.argument, s.method, [p.value for p in s.points]) for s in sweeps] == [
        ("data.added_pairs", method, [0.0, 0.05, 0.25]) for method in ("other", "plain")
    ]
    assert "`data.added_pairs` of `plain`" in sweep_line(section)
    assert b">data.added_pairs<" in draw_sweeps(section)


def test_lines_that_differ_in_several_arguments_go_by_a_row(tmp_path: Path) -> None:
    rows = [
        row(f"{a:g}_{b}", a + b, pair=a, intents=b, noise=b)
        for a in (0.0, 0.1, 0.3)
        for b in (4, 5)
    ]
    write_runs(tmp_path, rows, seeds=(0,), n_users=40)
    assert b">around<" in draw_sweeps(section_of(tmp_path))


def test_page_has_the_picture_and_names_the_arguments(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", ROWS, n_users=60)
    pages = publish(tmp_path / "runs", "board", tmp_path, PLAN)
    picture = tmp_path / "board.beauty.sweeps.svg"
    assert picture in pages
    drawn = picture.read_bytes()
    root = ElementTree.fromstring(drawn)
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"pair", "intents", "0", "0.005", "0.1", "8", "32", "128"} <= words
    page = (tmp_path / "board.md").read_text(encoding="utf-8")
    lines = page.splitlines()
    at = lines.index("![One argument at a time](board.beauty.sweeps.svg)")
    assert "`intents` of `irllrec`, `pair` of `irllrec`" in lines[at + 2]
    assert "`full`" in lines[at + 2]
    assert main(["report", str(tmp_path / "ranks" / "board"), "-o", str(tmp_path / "again")]) == 0
    for name in ("board.md", picture.name):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_page_without_such_rows_says_nothing(tmp_path: Path) -> None:
    write_runs(tmp_path, [GRU, POPULARITY, *ROWS[:3]], n_users=40, seeds=(0,))
    board = build_leaderboard("board", PLAN, read_results(tmp_path))
    assert find_sweeps(board.sections[0])  # three rows of `pair` ...
    write_runs(tmp_path / "two", [GRU, POPULARITY, *ROWS[:2]], n_users=40, seeds=(0,))
    board = build_leaderboard("board", PLAN, read_results(tmp_path / "two"))
    assert find_sweeps(board.sections[0]) == ()  # ... and two are none
    assert "differ in one argument" not in render_markdown(board)


def test_a_published_board_has_none() -> None:
    board = build_leaderboard(*read_archive(LEADERBOARDS / "ranks" / "quickstart"))
    assert [find_sweeps(section) for section in board.sections] == [()] * len(board.sections)
