"""Groups of users by activity: the rule, the rows, and what the page shows."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.prepare import prepare
from datamodules.prepared import TEST, load_prepared
from intentbench.cli import main
from intentbench.reports.archive import read_archive
from intentbench.reports.groups import activity_groups, measure_groups
from intentbench.reports.leaderboard import build_leaderboard
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish_results
from intentbench.stats.contrast import contrast
from tests.reports.test_sets import trials

PLAN = Plan(title="Sets", reference="item_knn", seeds=(0, 1, 2), groups=3)


def slow_groups(user: NDArray[np.int64], key: NDArray[np.int64], count: int) -> dict[int, int]:
    """User to group, by a loop over users in the order of activity."""
    events: dict[int, int] = {}
    for one, place in zip(user.tolist(), key.tolist(), strict=True):
        events[one] = place + 1
    total, running, cuts = sum(events.values()), 0, []
    for size in sorted(events.values()):
        before, running = running, running + size
        cuts += [size for g in range(1, count) if before < total * g / count <= running]
    return {one: sum(size > cut for cut in set(cuts)) for one, size in events.items()}


@pytest.mark.parametrize("count", [2, 4, 7])
def test_groups_equal_a_loop(count: int) -> None:
    random = np.random.default_rng(count)
    targets = random.integers(1, 5, 200)
    user = np.repeat(np.arange(200) * 3, targets)  # not all users have a target
    first = np.repeat(random.integers(1, 60, 200), targets)
    place = np.arange(len(user)) - np.repeat(np.cumsum(targets) - targets, targets)
    groups = activity_groups(user, first + place, count)
    expected = slow_groups(user, first + place, count)
    assert groups.member.tolist() == [expected[one] for one in sorted(expected)]
    assert sum(groups.sizes) == 200
    assert len(groups.headings) == len(groups.sizes)


def test_users_alike_are_one_group() -> None:
    groups = activity_groups(np.arange(50), np.full(50, 7), 4)
    assert groups.cuts == ()
    assert groups.sizes == (50,)


@pytest.mark.parametrize(
    ("name", "cuts", "sizes"),
    [
        ("amazon-book", (13, 25, 59), (5612, 2473, 1306, 469)),
        ("yelp-cf", (17, 32, 69), (5853, 2681, 1497, 562)),
        ("amazon-movie", (8, 15, 32), (5339, 2541, 1258, 439)),
    ],
)
def test_groups_of_irllrec(
    real_data: Path, name: str, cuts: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    """The paper's first group of amazon-book has 5,612 users of at most 13 interactions."""
    data = load_prepared(prepare(name, real_data))
    events = np.flatnonzero(data.split.numpy() == TEST)
    offsets = data.offsets.numpy()
    user = np.searchsorted(offsets, events, side="right") - 1
    groups = activity_groups(user, events - offsets[user], 4)
    assert groups.cuts == cuts
    assert groups.sizes == sizes


def test_rows_are_those_of_the_group_alone() -> None:
    section = build_leaderboard("sets", PLAN, trials()).sections[0]
    table, groups = section.table, section.groups
    assert groups is not None
    cells = {cell.label: cell for cell in table.cells}
    rows = measure_groups(table, groups, [*cells.values()], "item_knn", table.primary, 0.05)
    for row in rows:
        own = table.values(cells[row.label].ranks, table.primary)
        for number in range(len(groups.sizes)):
            mask = groups.member == number
            assert row.means[number] == pytest.approx(own[:, mask].mean())
            if row.label == "item_knn":
                assert row.differences is None
                continue
            knn = table.values(cells["item_knn"].ranks, table.primary)[:, mask]
            assert row.differences is not None
            fixed = cells[row.label].deterministic
            found = contrast(own[:, mask], knn, deterministic_a=fixed, deterministic_b=True)
            assert row.differences[number].est == pytest.approx(found.est)
            assert row.differences[number].low == pytest.approx(found.low)


def test_page_has_groups_where_they_are_asked_for(tmp_path: Path) -> None:
    publish_results(trials(), "sets", tmp_path, PLAN)
    page = (tmp_path / "sets.md").read_text(encoding="utf-8")
    assert "By activity of users:" in page
    assert "(sets.yelp-cf.groups.svg)" in page
    found = json.loads((tmp_path / "sets.json").read_text(encoding="utf-8"))["datasets"]
    assert len(found[0]["groups"]["rows"]["item_knn"]["means"]) == 3
    picture = tmp_path / "sets.yelp-cf.groups.svg"
    assert ElementTree.fromstring(picture.read_bytes()).tag.endswith("svg")
    # the option of `report` changes the published plan, and 0 takes the groups away
    ranks = tmp_path / "ranks" / "sets"
    assert main(["report", str(ranks), "-o", str(tmp_path), "--groups", "0"]) == 0
    assert read_archive(ranks)[1].groups == 0
    assert "By activity" not in (tmp_path / "sets.md").read_text(encoding="utf-8")
    assert main(["report", str(ranks), "-o", str(tmp_path), "--groups", "3"]) == 0
    assert (tmp_path / "sets.md").read_text(encoding="utf-8") == page
