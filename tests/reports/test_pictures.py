"""Pictures of a page: what they show, when they are there, and that they repeat."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from intentbench.reports.cost_pictures import Point, cost_points, costs_line, pareto_front
from intentbench.reports.curves import curves_line, has_curves
from intentbench.reports.figures import (
    FAR,
    add_panels,
    draw_differences,
    label_inches,
    label_rows,
    relative_limits,
)
from intentbench.reports.interval_pictures import difference_in
from intentbench.reports.leaderboard import Leaderboard, Section, build_leaderboard
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish
from intentbench.results.record import Cost, parse_record
from intentbench.stats.contrast import Contrast, contrast
from tests.reports.fake_runs import GRU, KNN, POPULARITY, SASREC, FakeModel, write_runs, write_trial

if TYPE_CHECKING:
    from intentbench.stats.components import Theta

PLAN = Plan(reference="item_knn", seeds=(0, 1, 2))
CURVE = [0.1, 0.25, 0.2]
LONG = FakeModel("a_label_that_is_longer_than_any_panel_is_wide_and_then_some_more", 1.5)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, on the second of which there are two rows; the first has curves of one row."""
    root = tmp_path_factory.mktemp("runs")
    write_runs(root, [POPULARITY, KNN, SASREC, LONG], ["beauty"], n_users=200)
    for seed in (0, 1, 2):
        training = {"max_epochs": 12, "monitor": "ndcg@10", "validate_every": 4}
        write_trial(root, GRU, "beauty", seed, 200, curve=CURVE, best_epoch=7, training=training)
    write_runs(root, [POPULARITY, KNN], ["toys"], n_users=200)
    publish(root, "board", root / "out", PLAN)
    return root / "out"


@pytest.fixture(scope="module")
def board(out: Path) -> Leaderboard:
    from intentbench.reports.archive import read_archive

    return build_leaderboard(*read_archive(out / "ranks" / "board"))


@pytest.fixture(scope="module")
def beauty(board: Leaderboard) -> Section:
    return board.sections[0]


def words(out: Path, name: str) -> list[str]:
    """The texts of a picture."""
    root = ElementTree.fromstring((out / name).read_bytes())
    return ["".join(one.itertext()).strip() for one in root.iter() if one.tag.endswith("}text")]


def test_each_picture_is_there_where_it_says_something(out: Path) -> None:
    assert sorted(path.name for path in out.glob("*.svg")) == [
        "board.beauty.costs.svg",
        "board.beauty.curves.svg",
        "board.beauty.intervals.svg",
        "board.toys.intervals.svg",  # two rows have no front worth drawing
    ]


def test_intervals_name_every_row_in_full_with_its_tier(out: Path, beauty: Section) -> None:
    found = words(out, "board.beauty.intervals.svg")
    for row in beauty.rows:
        assert any(word.startswith(row.label) for word in found)
    assert beauty.family is not None
    tiers = [str(tier) for tier in beauty.family.tiers.values()]
    assert found.count("NDCG@10") == found.count("HR@10") == 1
    for tier in set(tiers):
        assert found.count(tier) >= tiers.count(tier)
    assert "against item_knn (◆), % [95 %]" in found


def test_intervals_of_another_metric_are_its_contrast(beauty: Section) -> None:
    rows = {row.label: row for row in beauty.rows}
    cells = {label: row.cell for label, row in rows.items() if row.cell}
    ours, knn = (
        beauty.table.values(cells[label].ranks, "hit_rate@10") for label in ("gru4rec", "item_knn")
    )
    expected = contrast(ours, knn, deterministic_b=True)
    assert difference_in(beauty, rows["gru4rec"], "hit_rate@10") == expected
    found = difference_in(beauty, rows["gru4rec"], "ndcg@10")
    assert found == beauty.difference(rows["gru4rec"])
    assert difference_in(beauty, rows["item_knn"], "hit_rate@10") is None


def difference(
    value: float | None, low: float | None = None, high: float | None = None
) -> Contrast:
    """A relative difference in %, and its ends."""
    middle, below, above = (None if part is None else part / 100 for part in (value, low, high))
    found = Contrast(0, 1, 9, 0, 1, 0, 0, 1, 0, 0, 1, 1, middle, cast("Theta", None), 0.05)
    vars(found)["relative_ends"] = (below, above)  # where the search would keep them
    return found


def test_axis_holds_every_interval_where_most_are_far() -> None:
    low, high = relative_limits([difference(-90, -95, -80), difference(70, 60, 85)])
    assert low < -95
    assert high > 85
    wide = [difference(-90, -95, -80), difference(400, 300, 600)]
    assert relative_limits(wide)[1] < 400
    assert relative_limits(wide[1:])[1] > 600


def test_far_rows_do_not_stretch_the_axis_of_near_ones() -> None:
    near = [difference(-2, -5, 1), difference(4, 1, 8)]
    assert relative_limits([*near, difference(-90, -95, -80)]) == relative_limits(near)
    assert relative_limits([*near, difference(None)]) == relative_limits(near)


def test_a_row_inside_the_axis_has_all_of_its_interval_there() -> None:
    near = [difference(28, 20, 36), difference(0, -1, 1)]
    low, high = relative_limits([*near, difference(34, 25, 44)])
    assert low < -1
    assert high > 44
    # but no interval takes the axis far beyond all rows
    assert relative_limits([difference(5, -40, 900), *near])[1] < 3 * FAR[0]


def test_panels_leave_their_margins_and_the_names_fit() -> None:
    from matplotlib.figure import Figure

    names = ["sasrec_ce_all", "WWWWW", "item_knn†"]
    figure = Figure(figsize=(9, 3))
    axes = add_panels(figure, 3, (0.18 + label_inches(names), 0.2, 0.5, 0.4), 0.1)
    label_rows(axes[0], names)
    boxes = [axis.get_position() for axis in axes]
    assert [9 * (1 - boxes[2].x1), 3 * (1 - boxes[0].y1)] == pytest.approx([0.2, 0.5])
    assert [3 * boxes[1].y0, 9 * (boxes[1].x0 - boxes[0].x1)] == pytest.approx([0.4, 0.1])
    drawn = [text.get_window_extent() for text in axes[0].texts]
    assert max(box.width for box in drawn) / figure.dpi == pytest.approx(
        label_inches(names), abs=0.03
    )
    left = min(box.x0 for box in drawn) / figure.dpi
    assert 0.05 < left < 0.15


def test_differences_are_drawn_at_their_rows() -> None:
    from matplotlib.figure import Figure

    axis: Any = Figure().subplots()
    found = [
        difference(5, 2, 60),  # the interval leaves at the right
        None,
        difference(-80, -90, -70),  # the row itself is beyond
        difference(None),
        difference(-4),
    ]
    draw_differences(axis, found, (-10.0, 20.0), ["C0", "C1", "C2", "C3", "C4"])
    intervals, dots = axis.collections
    assert [part.tolist() for part in intervals.get_segments()] == [[[2, 0], [60, 0]]]
    assert dots.get_offsets().tolist() == [[5, 0], [-4, 4]]
    assert dots.get_facecolors()[1].tolist() == [1, 1, 1, 1]  # hollow: no interval is known
    marks = [(line.get_marker(), line.get_xydata().tolist()) for line in axis.lines[1:]]
    assert marks == [("<", [[-10, 2]]), (">", [[20, 0]])]
    assert [text.get_text() for text in axis.texts] == ["\N{MINUS SIGN}80"]


def slow_front(points: list[Point]) -> set[int]:
    front = set()
    for one in points:
        beaten = False
        for other in points:
            no_worse = other.value >= one.value and other.cost <= one.cost
            better = other.value > one.value or other.cost < one.cost
            beaten = beaten or (no_worse and better)
        if not beaten:
            front.add(one.number)
    return front


@pytest.mark.parametrize("seed", range(5))
def test_front_equals_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = [
        Point(number, float(cost), float(value))
        for number, (cost, value) in enumerate(random.integers(1, 12, (30, 2)))
    ]
    front = pareto_front(points)
    assert {one.number for one in front} == slow_front(points)
    assert [one.cost for one in front] == sorted(one.cost for one in front)
    assert [one.value for one in front] == sorted(one.value for one in front)


def test_costs_leave_out_rows_that_have_none(out: Path, beauty: Section) -> None:
    panels = cost_points(beauty)
    trained = {point.number for point in panels["seconds_per_epoch"]}
    ranked = [row.label for row in beauty.rows if row.ranked]
    assert {ranked[number - 1] for number in trained} == {"sasrec_ce_all", "gru4rec", LONG.label}
    assert len(panels["seconds"]) == len(panels["latency_256"]) == 5
    seconds = {point.number: point.cost for point in panels["seconds"]}
    assert seconds[1 + ranked.index("gru4rec")] == pytest.approx(701)  # mean of 700, 701 and 702
    found = words(out, "board.beauty.costs.svg")
    assert [f"{number}  {label}" in found for number, label in enumerate(ranked, 1)] == [True] * 5


def test_costs_of_several_machines_are_called_so(beauty: Section) -> None:
    assert "here one kind of machine" in costs_line(beauty)
    row = next(row for row in beauty.rows if row.label == "gru4rec")
    assert row.cell is not None
    elsewhere = {**row.records[0].environment, "cpu": "Another CPU"}
    records = (replace(row.records[0], environment=elsewhere), *row.records[1:])
    moved = replace(row, cell=replace(row.cell, records=records))
    rows = tuple(moved if one is row else one for one in beauty.rows)
    assert "here 2 kinds of machine" in costs_line(replace(beauty, rows=rows))


def test_curves_have_a_panel_a_row_and_epochs_apart(out: Path, board: Leaderboard) -> None:
    beauty, toys = board.sections
    assert [has_curves(beauty), has_curves(toys)] == [True, False]
    assert "NDCG@10 on the validation targets" in curves_line(beauty)
    assert curves_line(toys) == ""
    found = words(out, "board.beauty.curves.svg")
    assert "gru4rec" in found
    assert "item_knn" not in found
    assert "12" in found  # the third validation, every four epochs, was after the twelfth


def test_pictures_repeat_in_another_process(out: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from intentbench.reports.publish import render; "
        "render(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    again = out / "again"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # another order of sets
    call = [sys.executable, "-c", program, str(out / "ranks" / "board"), str(again)]
    subprocess.run(call, check=True, env=environment)
    for path in out.glob("*.svg"):
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_records_without_a_curve_do_not_mention_it(beauty: Section) -> None:
    record = next(row for row in beauty.rows if row.label == "gru4rec").records[0]
    assert parse_record(record.to_json()) == record
    assert record.curve == CURVE
    older = replace(record, curve=[], cost=Cost())
    assert "curve" not in older.to_json()
    assert parse_record(older.to_json()) == older
