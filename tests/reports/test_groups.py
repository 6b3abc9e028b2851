"""Groups of users by activity, of targets by popularity: the rule, the rows, what a page shows."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import TEST, TRAIN, load_prepared
from intentbench.cli import main
from intentbench.commands.publishing import target_popularity
from intentbench.contracts.data import planted_cycles
from intentbench.metrics.users import user_values
from intentbench.reports.archive import read_archive
from intentbench.reports.groups import (
    activity_groups,
    measure_groups,
    measure_target_groups,
    popularity_groups,
)
from intentbench.reports.leaderboard import build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish_results
from intentbench.results.grouping import parse_grouping
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


def test_a_group_of_one_user_joins_a_neighbour() -> None:
    # the last user has as many events as all others together
    groups = activity_groups(np.arange(9), np.array([4] * 8 + [39]), 2)
    assert groups.sizes == (9,)
    groups = activity_groups(np.arange(10), np.array([1, 1, 3, 3, 3, 3, 3, 3, 3, 60]), 3)
    assert all(size > 1 for size in groups.sizes)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_groups_of_targets_equal_a_loop(count: int) -> None:
    random = np.random.default_rng(count)
    popularity, user = random.geometric(0.05, 400), np.sort(random.integers(0, 90, 400))
    groups = popularity_groups(popularity, user, count)
    ordered = sorted(popularity.tolist())
    passed = [next(i for i in range(400) if i + 1 >= 400 * g / count) for g in range(1, count)]
    cuts = sorted({ordered[place] for place in passed})
    assert groups.cuts == tuple(cuts)
    assert groups.member.tolist() == [sum(one > cut for cut in cuts) for one in popularity]
    assert sum(groups.sizes) == 400


def test_targets_of_a_group_are_judged_alone() -> None:
    section = build_leaderboard("sets", PLAN, trials()).sections[0]
    table = section.table
    popularity = np.random.default_rng(0).integers(0, 30, len(table.user))
    groups = popularity_groups(popularity, table.user, 3)
    rows = measure_target_groups(table, groups, table.cells, "item_knn", "recall@20", 0.05)
    for number in range(3):
        mask = groups.member == number
        users = table.user[mask]
        values = {
            cell.label: user_values("recall@20", users, cell.ranks[:, mask], "train")
            for cell in table.cells
        }
        assert values["item_knn"].shape[1] == len(np.unique(users)) < table.n_users
        hits = [
            np.mean([table.cells[0].ranks[0][mask & (table.user == one)] <= 20])
            for one in np.unique(users)
        ]
        assert rows[0].means[number] == pytest.approx(np.mean(hits))
        for cell, row in zip(table.cells, rows, strict=True):
            assert row.means[number] == pytest.approx(values[cell.label].mean())
            if row.differences is not None:
                found = contrast(
                    values[cell.label],
                    values["item_knn"],
                    deterministic_a=cell.deterministic,
                    deterministic_b=True,
                )
                assert row.differences[number] == found


def test_popularity_of_targets_equals_a_loop() -> None:
    data = planted_cycles()
    offsets, items = data.offsets.tolist(), data.items.tolist()
    events = np.flatnonzero(data.split.numpy() == TEST)
    user = np.searchsorted(data.offsets.numpy(), events, side="right") - 1
    key = events - data.offsets.numpy()[user]
    training = [item for item, of in zip(items, data.split.tolist(), strict=True) if of == TRAIN]
    expected = [
        training.count(items[offsets[one] + place])
        for one, place in zip(user.tolist(), key.tolist(), strict=True)
    ]
    assert target_popularity(data, user, key).tolist() == expected
    assert len(set(expected)) > 1


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


def test_page_has_groups_of_targets_where_popularity_is_known(tmp_path: Path) -> None:
    def popular(ranks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**ranks, "popularity": 1 + ranks["key"] % 7}

    known = [(record, popular(ranks)) for record, ranks in trials() if ranks is not None]
    # as where some rows are kept from a page of before
    mixed = [known[0], *trials()[1:]]
    pages = []
    for folder, results in ((tmp_path / "known", known), (tmp_path / "mixed", mixed)):
        publish_results(results, "sets", folder, PLAN)
        pages.append((folder / "sets.md").read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert "By popularity of the target's item:" in pages[0]
    assert "(sets.yelp-cf.popularity.svg)" in pages[0]
    found = json.loads((tmp_path / "known" / "sets.json").read_text(encoding="utf-8"))
    groups = found["datasets"][0]["popularity"]
    assert sum(groups["targets"]) == len(trials()[0][1]["user"])  # type: ignore[index]
    assert len(groups["rows"]["item_knn"]["means"]) == len(groups["targets"])
    picture = tmp_path / "known" / "sets.yelp-cf.popularity.svg"
    assert b"training interactions of their item" in picture.read_bytes()
    # the archive keeps it
    ranks = tmp_path / "known" / "ranks" / "sets"
    again = tmp_path / "again"
    assert main(["report", str(ranks), "-o", str(again)]) == 0
    assert (again / "sets.md").read_text(encoding="utf-8") == pages[0]
    assert (again / picture.name).read_bytes() == picture.read_bytes()
    results = read_archive(ranks)[2]
    assert all((one["popularity"] == 1 + one["key"] % 7).all() for _, one in results if one)
    three, two = np.arange(3), np.arange(2)
    np.savez(ranks / "yelp-cf.npz", user=three, key=three, popularity=two)
    with pytest.raises(RequestError, match="no readable leaderboard ranks"):
        read_archive(ranks)


def test_cuts_may_be_named() -> None:
    """Users with five events, six to eight, and more (a last target at place p has p + 1)."""
    events = np.array([5, 5, 6, 8, 8, 9, 20])
    groups = activity_groups(np.arange(7), events - 1, (5, 8))
    assert groups.headings == ("≤ 5", "6 to 8", "≥ 9")
    assert groups.member.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert groups.named
    assert not activity_groups(np.arange(7), events - 1, 2).named


def test_a_named_cut_with_fewer_than_two_users_beside_it_falls_away() -> None:
    events = np.array([5, 7, 8, 9, 20])
    assert activity_groups(np.arange(5), events - 1, (4, 5, 8, 30)).headings == ("≤ 8", "≥ 9")


@pytest.mark.parametrize("given", ["4.5", "-1", "five", "8,5", "5,5", "0,3", ""])
def test_an_option_that_is_no_grouping_is_refused(given: str) -> None:
    with pytest.raises(RequestError, match=r"^--groups: expected a number of groups of users, or"):
        parse_grouping(given)


def test_a_page_with_named_cuts_says_so_and_comes_back() -> None:
    (shares,) = build_leaderboard("sets", PLAN, trials()).sections
    assert shares.groups is not None
    plan = replace(PLAN, groups=shares.groups.cuts)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    board = build_leaderboard("sets", plan, trials())
    (section,) = board.sections
    assert section.groups is not None
    assert section.groups.cuts == shares.groups.cuts
    assert [row.means for row in section.grouped] == [row.means for row in shares.grouped]
    assert section.target_groups is None
    assert "cut where the benchmark says" in render_markdown(board)
