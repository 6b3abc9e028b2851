"""A search's study: what is asked, told, kept and made up for."""

import math
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import RequestError
from intentbench.runner import tuning_worker
from intentbench.runner.spaces import Choice, Range, Space
from intentbench.runner.tuning_worker import Answer

optuna = pytest.importorskip("optuna", reason="the extra `tune` is not installed")
from optuna.storages import JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from optuna.storages.journal._file import get_lock_file  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from intentbench.runner.studies import INTERRUPTED, REPEATS, Searcher  # noqa: E402

SPACE: Space = {
    "rate": Range(1e-4, 1e-2, log=True),
    "dropout": Range(0.1, 0.7, step=0.1),
    "kind": Choice(("a", "b")),
}
START = {"rate": 1e-3, "dropout": 0.5, "kind": "b"}


def open_searcher(folder: Path, budget: int = 12, **changes: Any) -> Searcher:
    arguments = {"space": SPACE, "start": START, "budget": budget, "seed": 0, **changes}
    return Searcher(str(folder / "journal"), "study", **arguments)


def judge(point: dict[str, Any]) -> Answer:
    """A known optimum, at a rate of 0.003 and a dropout of 0.2."""
    value = 1 - abs(math.log10(point["rate"] / 0.003)) / 2 - abs(point["dropout"] - 0.2)
    return Answer("complete", value, seconds=1.0)


def finish(searcher: Searcher) -> list[dict[str, Any]]:
    points = []
    while searcher.wants(0):
        trial, point = searcher.ask()
        searcher.tell(trial, judge(point))
        points.append(point)
    return points


def test_a_search_starts_from_what_stands_there_and_keeps_to_its_budget(tmp_path: Path) -> None:
    searcher = open_searcher(tmp_path)
    points = finish(searcher)
    assert points[0] == START
    assert len(points) == 12
    assert len({str(point) for point in points}) == 12
    assert searcher.sampler == "TPE"
    assert searcher.before() == judge(START).value
    best = max(points, key=lambda point: judge(point).value)
    assert searcher.best() == (best, judge(best).value)
    tally = searcher.tally()
    assert (tally.complete, tally.pruned, tally.failed, tally.seconds) == (12, 0, 0, 12.0)
    again = open_searcher(tmp_path)
    assert finish(again) == []
    assert again.best() == searcher.best()
    more = finish(open_searcher(tmp_path, budget=14))
    assert len(more) == 2


def test_the_seed_and_what_is_known_decide_the_points(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        found.append(finish(open_searcher(tmp_path / name, seed=seed)))
    assert found[0] == found[1] != found[2]


def test_what_was_cut_short_is_made_up_for(tmp_path: Path) -> None:
    searcher = open_searcher(tmp_path)
    for _ in range(3):
        trial, point = searcher.ask()
        searcher.tell(trial, judge(point))
    _, lost = searcher.ask()
    _, also = searcher.ask()
    resumed = open_searcher(tmp_path)
    cut_short = resumed.study.get_trials(states=[TrialState.FAIL])
    assert [trial.user_attrs["reason"] for trial in cut_short] == [INTERRUPTED] * 2
    assert resumed.tally().failed == 0
    points = finish(resumed)
    assert points[:2] == [lost, also]
    assert resumed.tally().counted == 12
    assert len(points) == 9


def test_an_unfinished_last_line_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    finish(open_searcher(tmp_path, budget=3))
    journal = tmp_path / "journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "work')
    assert open_searcher(tmp_path, budget=3).tally().counted == 3
    assert journal.read_bytes().startswith(whole)
    first, rest = whole.split(b"\n", 1)
    journal.write_bytes(first + b'\n{"op_code": 4, "work{"op_code"\n' + rest)
    with pytest.raises(RequestError, match=r"journal: cannot be read: line 2 is damaged"):
        open_searcher(tmp_path, budget=3)
    journal.write_bytes(first[:5])
    assert open_searcher(tmp_path, budget=3).tally().counted == 0


@pytest.mark.parametrize("content", [b"{]\n", b"SQLite format 3\0 and more", b"my notes"])
def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(RequestError, match=r"no journal of searches; a database is sqlite:///"):
        open_searcher(tmp_path)
    assert (tmp_path / "journal").read_bytes() == content


@pytest.mark.parametrize("there", [False, True])
def test_a_lock_that_a_killed_search_left_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("studies").mkdir()
    if there:
        open_searcher(Path("studies"))
    Path("studies/journal.lock").symlink_to("studies/journal")  # as Optuna would: leads nowhere
    assert not Path("studies/journal.lock").exists()
    assert len(finish(open_searcher(Path("studies"), 2))) == 2


def test_optunas_lock_leads_to_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("studies").mkdir()
    storage = tuning_worker.open_storage("studies/journal")
    assert isinstance(storage, JournalStorage)
    backend = storage._backend
    assert isinstance(backend, JournalFileBackend)
    with get_lock_file(backend._lock):  # a stale one is found by its age, which a broken link lacks
        assert Path("studies/journal.lock").exists()


def test_a_database_will_do(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path / 'studies.db'}"
    points = finish(Searcher(place, "study", SPACE, START, 8, 0))
    assert points == finish(open_searcher(tmp_path, budget=8))
    assert Searcher(place, "study", SPACE, START, 8, 0).tally().counted == 8
    for wrong in (f"sqlite:///{tmp_path}/no/such/folder.db", "postgresql+pg8000://host/studies"):
        with pytest.raises(RequestError, match=r"cannot be read: .\w") as caught:
            Searcher(wrong, "study", SPACE, START, 8, 0)
        assert len(str(caught.value).splitlines()) == 1


def test_a_small_space_is_tried_whole(tmp_path: Path) -> None:
    space = {"width": Range(1, 3), "kind": Choice(("a", "b"))}
    searcher = open_searcher(tmp_path, 6, space=space, start={"width": 2, "kind": "a"})
    seen = []
    while searcher.wants(0):
        trial, point = searcher.ask()
        searcher.tell(trial, Answer("complete", float(point["width"])))
        seen.append(tuple(point.values()))
    assert searcher.sampler == "grid"
    assert seen[0] == (2, "a")
    assert sorted(seen) == [(width, kind) for width in (1, 2, 3) for kind in "ab"]
    best = searcher.best()
    assert best is not None
    assert best[0] == {"width": 3, "kind": "a"}  # of equals the earliest


def test_known_points_use_up_nothing(tmp_path: Path) -> None:
    space = {"width": Range(1, 7)}
    searcher = open_searcher(tmp_path, 6, space=space, start={"width": 4})
    widths = []
    while searcher.wants(0):
        trial, point = searcher.ask()
        searcher.tell(trial, Answer("complete", -abs(point["width"] - 4.0)))
        widths.append(point["width"])
    assert searcher.sampler == "TPE"
    assert len(widths) == 6 == len(set(widths))
    again = [trial for trial in searcher.study.trials if REPEATS in trial.user_attrs]
    assert {trial.state for trial in again} <= {TrialState.FAIL}
    assert searcher.tally().failed == 0


@pytest.mark.parametrize("state", ["failed", "pruned"])
def test_a_point_that_did_not_complete_is_not_tried_again(tmp_path: Path, state: Any) -> None:
    space = {"width": Range(1, 9)}
    searcher = open_searcher(tmp_path, 5, space=space, start={"width": 4})
    trial, point = searcher.ask()
    searcher.tell(trial, Answer(state, reason="ValueError: no"))
    _, beside = searcher.ask()  # is being tried
    for width in (point["width"], beside["width"]):
        searcher.study.enqueue_trial({"width": width})
    _, third = searcher.ask()
    assert third not in (point, beside)
    assert [REPEATS in t.user_attrs for t in searcher.study.trials[2:4]] == [True, True]
    assert {trial.state for trial in searcher.study.trials[2:4]} == {TrialState.FAIL}
    tally = searcher.tally()
    assert (tally.counted, tally.failed) == ((0, 1) if state == "failed" else (1, 0))


def test_present_values_come_second_where_they_lie_in_the_space(tmp_path: Path) -> None:
    present = {"rate": 0.002, "dropout": 0.30000000000000004, "kind": "a"}
    points = finish(open_searcher(tmp_path, 3, present=present))
    assert points[:2] == [START, {**present, "dropout": 0.3}]
    (tmp_path / "outside").mkdir()
    outside = open_searcher(tmp_path / "outside", 3, present={**present, "kind": "c"})
    assert "c" not in {point["kind"] for point in finish(outside)}
    best = outside.best()
    assert best is not None
    assert finish(open_searcher(tmp_path / "outside", 3, present=best[0])) == []
    waiting = outside.study.get_trials(states=[TrialState.WAITING])
    assert waiting == []  # what was found is known


def test_failures_are_told_apart_and_end_a_search_at_last(tmp_path: Path) -> None:
    searcher = open_searcher(tmp_path, budget=4)
    tried = 0
    while searcher.wants(0):
        trial, _ = searcher.ask()
        searcher.tell(trial, Answer("failed", reason="ValueError: no", seconds=0.5))
        tried += 1
    assert tried == 4
    tally = searcher.tally()
    assert (tally.counted, tally.failed, tally.seconds) == (0, 4, 2.0)
    assert searcher.best() is None
    assert searcher.before() is None
