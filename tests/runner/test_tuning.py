import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from intentbench.cli import main
from intentbench.runner import tuning_worker
from intentbench.runner.config import write_config
from intentbench.runner.jobs import Slot
from intentbench.runner.spaces import Choice, Range, Space
from intentbench.runner.trial import run_trial
from intentbench.runner.tuned import Budget, Tuned
from intentbench.runner.tuning import Search, Way, chosen, plan_searches, run_search
from intentbench.runner.tuning_locks import lock_path, lock_storage
from intentbench.runner.tuning_worker import Answer, run_attempt
from intentbench.spec import load_spec
from tests.runner.conftest import PLUGIN, write_spec

optuna = pytest.importorskip("optuna", reason="the extra `tune` is not installed")
from optuna.distributions import IntDistribution  # noqa: E402
from optuna.storages import JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from optuna.storages.journal._file import get_lock_file  # noqa: E402
from optuna.trial import TrialState, create_trial  # noqa: E402

from intentbench.runner.studies import INTERRUPTED, REPEATS, Searcher  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
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


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A spec beside which there is room for `models`."""
    (tmp_path / "models").mkdir()
    return tmp_path


def searches(folder: Path, models: dict[str, Any], **more: Any) -> list[Search]:
    path = write_spec(folder, models, **more)
    spec = load_spec(path, plugin=PLUGIN)
    return plan_searches(spec, tuple(models), folder / "runs", None, 3)


def test_the_row_keeps_its_own_and_what_lies_outside_the_space(board: Path) -> None:
    (board / "models" / "toy.yaml").write_text(
        "datasets: {synthetic-tiny: {scales: [2.0]}}\n"
        "search: {width: {low: 4, high: 16}, learning_rate: [1.0], fault: ['', slow]}"
    )
    text = (board / "models" / "toy.yaml").read_text().replace("learning_rate: [1.0], ", "")
    (board / "models" / "toy.yaml").write_text(text)
    found = searches(
        board,
        {
            "toy": {},
            "fixed": {"method": "toy", "width": 5},
            "outside": {"method": "toy", "width": 99, "fault": "slow"},
            "counts": {},
            "popularity": {},
        },
        seeds=[0],
    )
    free = {search.entrant.label: [*search.space] for search in found}
    assert free["toy"] == ["width", "fault"]
    assert free["fixed"] == ["fault"]
    assert free["outside"] == free["counts"] == free["popularity"] == []
    reasons = {search.entrant.label: search.without for search in found}
    assert reasons["toy"] == ""
    assert "nothing is left to search" in reasons["outside"]
    assert reasons["counts"] == "declares no search space"
    assert reasons["popularity"] == "nothing to tune"
    assert found[0].start == {"width": 8, "fault": ""}
    assert found[0].job.trial.seed == 3
    job = found[0].attempt(board / "out", 7, {"width": 6, "fault": "slow"})
    assert job.trial.arguments["width"] == 6
    assert job.trial.arguments["scales"] == [2.0]
    assert job.folder.name == "0007"
    assert job.trial.name != found[0].job.trial.name


def test_a_row_that_starts_from_another_waits_for_its_checkpoint(board: Path) -> None:
    (board / "models" / "above.yaml").write_text("search: {n_users: []}")
    (board / "models" / "above.yaml").write_text("search: {}")
    models = {"sasrec": {}, "igr_sr": {"pretrained": "sasrec"}}
    base, above = searches(board, models, data={"window": 8})
    assert base.hindrance == ""
    assert "has not been trained" in above.hindrance
    assert "--models sasrec --datasets synthetic-tiny --seeds 3" in above.hindrance


def test_one_search_at_a_time_on_a_storage(tmp_path: Path) -> None:
    place = str(tmp_path / "journal")
    with (
        lock_storage(place, tmp_path),
        pytest.raises(RequestError, match="another `intentbench tune`"),
    ):
        lock_storage(place, tmp_path)
    with lock_storage(place, tmp_path):
        pass


def test_a_database_has_one_lock_wherever_trainings_lie(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path / 'studies.db'}"
    with lock_storage(place, tmp_path / "a"):
        with pytest.raises(RequestError, match="another `intentbench tune`"):
            lock_storage(place, tmp_path / "b")
        with lock_storage(f"sqlite:///{tmp_path / 'more.db'}", tmp_path / "a"):
            pass
    with (
        lock_storage("postgresql://host/one", tmp_path),
        lock_storage("postgresql://host/two", tmp_path),
        pytest.raises(RequestError, match="another `intentbench tune`"),
    ):
        lock_storage("postgresql://host/one", tmp_path)
    for place in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(RequestError, match="is in memory"):
            lock_storage(place, tmp_path)
    with pytest.raises(RequestError, match="--storage ://x"):
        lock_storage("://x", tmp_path)


def test_searches_of_two_storages_do_not_share_a_folder(board: Path) -> None:
    (board / "models" / "toy.yaml").write_text("search: {width: {low: 4, high: 16}}")
    (search,) = searches(board, {"toy": {}})
    searcher = Searcher(str(board / "journal"), search.study, search.space, search.start, 1, 0)
    way = Way([], str(board / "journal"), board / "out", 1, 0)
    with (
        lock_path(search.folder(board / "out"), "there"),
        pytest.raises(RequestError, match=r"--out .*another `intentbench tune`"),
    ):
        next(run_search(search, searcher, way))


def test_a_row_of_several_processes_is_refused(board: Path) -> None:
    with pytest.raises(RequestError, match=r"sasrec: training\.processes: .*processes=1"):
        searches(board, {"sasrec": {"training": {"processes": 2}}, "popularity": {}})


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("the test part was looked at")


@pytest.fixture
def process() -> Iterator[None]:
    """A training has its process to itself: what it sets there is put back."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it, too
        yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def here(process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a search run in this process, and may not see the test part."""
    monkeypatch.setattr(tuning_worker, "enter_slot", lambda *_: None)
    monkeypatch.setattr(SequenceDataModule, "test_dataloader", refuse)
    monkeypatch.setattr(Trainer, "test", refuse)


def train(board: Path, search: Search, point: dict[str, Any], trials: int = 3) -> Answer:
    """The first training of a study, at a point."""
    place = str(board / "journal")
    searcher = Searcher(place, search.study, search.space, point, trials, 0)
    trial, asked = searcher.ask()
    assert asked == point
    job = search.attempt(board / "out", trial.number, asked)
    return run_attempt(place, search.study, trial._trial_id, job, Slot(0, "", 1))


@pytest.mark.parametrize("label", ["item_knn", "sasrec"])
def test_a_training_is_one_of_ours_but_never_ranks_the_test_part(
    board: Path, label: str, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"item_knn": {}, "sasrec": {"width": 16, "blocks": 1}}
    rows = searches(board, models, data={"window": 8, "batch_size": 32})
    (search,) = (row for row in rows if row.entrant.label == label)
    point = {"item_knn": {"gamma": 0.7, "shrink": 10}, "sasrec": {
        "learning_rate": 0.005, "dropout": 0.2, "weight_decay": 0.0}}[label]  # fmt: skip
    answer = train(board, search, point)
    assert answer.state == "complete", answer.reason
    monkeypatch.undo()
    job = search.attempt(board / "again", 0, point)
    job.folder.mkdir(parents=True)
    write_config(job.folder, job.trial)
    record = run_trial(job.folder, job.prepared, "cpu")
    assert record.validation["ndcg@10"] == answer.value
    monkeypatch.setattr(Trainer, "test", refuse)
    with pytest.raises(AssertionError, match="was looked at"):  # the guard guards
        run_trial(job.folder, job.prepared, "cpu")


@pytest.mark.parametrize(("others", "state"), [(0.99, "pruned"), (0.0, "complete")])
def test_a_training_below_the_median_of_the_others_is_pruned(
    board: Path, here: None, others: float, state: str
) -> None:
    (board / "models" / "toy.yaml").write_text("search: {width: {low: 4, high: 16}}")
    training = {"max_epochs": 8, "patience": 8}
    (search,) = searches(board, {"toy": {}}, training=training)
    place = str(board / "journal")
    study = Searcher(place, search.study, search.space, {"width": 8}, 9, 0).study
    for width in (4, 5, 6, 7, 9):
        study.add_trial(
            create_trial(
                params={"width": width},
                distributions={"width": IntDistribution(4, 16)},
                value=others,
                intermediate_values=dict.fromkeys(range(8), others),
            )
        )
    answer = train(board, search, {"width": 8}, 9)
    assert answer.state == state
    reported = study.trials[0].intermediate_values
    assert [*reported] == [*range(6 if state == "pruned" else 8)]
    searcher = Searcher(place, search.study, search.space, {"width": 8}, 9, 0)
    assert searcher.tally().counted == 5  # nobody told the study: that training is made up for


def search_faults(board: Path, faults: str, timeout: float | None) -> dict[str, Answer]:
    (board / "models" / "toy.yaml").write_text(f"search: {{fault: {faults}}}")
    (search,) = searches(board, {"toy": {}})
    place = str(board / "journal")
    searcher = Searcher(place, search.study, search.space, search.start, 3, 0)
    way = Way([Slot(0, "", 1), Slot(1, "", 1)], place, board / "out", 3, 0, timeout)
    found = {a.point["fault"]: a.answer for a in run_search(search, searcher, way)}
    assert not [*board.rglob("*.ckpt")]
    best = chosen(search, searcher)
    assert best is not None
    assert best.arguments == {"fault": ""}
    assert best.budget.before == best.budget.value == round(found[""].value, 6)
    assert best.budget.data == search.job.trial.fingerprint[:16]
    assert (best.budget.trials, best.budget.failed) == (1, len(found) - 1)
    return found


def test_faults_of_trainings_leave_the_search_alive(board: Path) -> None:
    found = search_faults(board, "['', raise, kill]", None)
    assert found[""].state == "complete", found[""].reason
    assert found["raise"].reason == "ValueError: the loss went wrong"
    assert found["kill"].reason == "its process was lost (exit code -9)"


@pytest.mark.slow
def test_a_training_that_hangs_is_ended(board: Path) -> None:
    found = search_faults(board, "['', hang]", 90.0)
    assert found["hang"].reason == "took longer than 90 s"


SPEC = {
    "name": "small",
    "datasets": ["synthetic-tiny"],
    "models": {"popularity": {}, "markov": {}},
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return path


def tune(small: Path, *more: str) -> int:
    out = small.parent / "tuning"
    return main(["tune", str(small), "--trials", "5", "--out", str(out), *more])


def test_the_command_searches_writes_and_does_nothing_twice(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(small, "--write", "--trials-per-device", "2", "--devices", "cpu") == 0
    text = capsys.readouterr().out
    assert "popularity: nothing to tune" in text
    assert "markov: grid over epsilon; 0 of 5 trials done" in text
    assert len(re.findall(r"markov \d/5: ndcg@10 0\.\d{4} in", text)) == 5
    written = small.parent / "models" / "markov.tuned.yaml"
    assert f"wrote {written}" in text
    first = written.read_bytes()
    spec = load_spec(small)
    tuned = spec.entrants[1].tuned["synthetic-tiny"]
    assert spec.entrants[1].arguments_on("synthetic-tiny")["epsilon"] == tuned.arguments["epsilon"]
    assert tuned.budget.before is not None
    assert tuned.budget.value >= tuned.budget.before
    assert (tuned.budget.trials, tuned.budget.pruned, tuned.budget.failed) == (5, 0, 0)
    assert spec.stated.tuning["synthetic-tiny"]["popularity"] == {"instead": "nothing to tune"}
    assert tune(small, "--write", "--model", "markov") == 0
    text = capsys.readouterr().out
    assert "5 of 5 trials done" in text
    assert "markov 1/5" not in text
    assert written.read_bytes() == first


def test_a_row_waits_for_a_base_that_was_given_new_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.yaml"
    models = {"igr_sr": {"pretrained": "sasrec"}, "sasrec": {}}
    small.write_text(yaml.safe_dump({**SPEC, "models": models, "data": {"window": 8}}))
    asked = []

    def find(search: Search, way: Way) -> Tuned:
        asked.append((search.entrant.label, search.present["dropout"]))
        budget = Budget("", "TPE", 0, 5, 0, 0, 1.0, "ndcg@10", 0.2, 0.1, "", "")
        return Tuned({**search.start, "dropout": 0.3}, budget)

    monkeypatch.setattr("intentbench.commands.tune._run", find)
    assert tune(small, "--write") == 1
    text = capsys.readouterr().out
    assert "igr_sr: its base 'sasrec' has new values: run the base first" in text
    assert tune(small, "--write") == 1  # the base keeps its values now, but was never trained
    assert "igr_sr: starts from 'sasrec', which has not been trained" in capsys.readouterr().out
    assert asked == [("sasrec", 0.5), ("sasrec", 0.3)]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--storage", "sqlite://"], "is in memory, name a file"),
        (["--model", "markof"], "'markof' is not in this benchmark"),
        (["--dataset", "beauty"], "'beauty' is not in this benchmark"),
        (["--set", "training.monitor=accuracy"], "unknown metric 'accuracy'"),
        (["--devices", "7"], "no device '7'"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    small: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(small, *more) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_a_missing_extra_is_named(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("intentbench.commands.tune.find_spec", lambda _: None)
    assert tune(small) == 2
    assert "pip install 'intentbench[tune]'" in capsys.readouterr().err


@pytest.fixture
def command(board: Path) -> Iterator[Any]:
    """Starts `intentbench tune`; what still runs in the end is killed."""
    (board / "models" / "toy.yaml").write_text("search: {width: {low: 2, high: 40}}")
    path = write_spec(board, {"toy": {"fault": "slow"}})
    arguments = ["tune", path, "--plugin", PLUGIN, "--trials", "6", "--out", board / "tuning"]
    line = [sys.executable, "-m", "intentbench.cli", *map(str, arguments)]
    start = partial(subprocess.Popen, [*line, "--trials-per-device", "2"], cwd=board, text=True)
    started: list[subprocess.Popen[str]] = []

    def run() -> subprocess.Popen[str]:
        started.append(start(stdout=subprocess.PIPE, bufsize=1))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_stood(command: Any, board: Path) -> None:
    first = command()
    ended = []
    for line in first.stdout:
        if re.search(r"toy \d/6", line):
            ended.append(line)
        if len(ended) == 2:
            break
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(1)
    again = command()
    text = again.communicate()[0]
    assert again.returncode == 0
    (done,) = re.findall(r"(\d) of 6 trials done", text)
    assert int(done) >= 2
    assert len(re.findall(r"toy \d/6", text)) == 6 - int(done)
    searcher = Searcher(
        str(board / "tuning" / "toys.journal"),
        re.findall(r"toys\.synthetic-tiny\.toy\.\w+", (board / "tuning/toys.journal").read_text())[
            0
        ],
        {"width": Range(2, 40)},
        {"width": 8},
        6,
        0,
    )
    trials = searcher.study.trials
    cut_short = [trial for trial in trials if trial.user_attrs.get("reason") == INTERRUPTED]
    assert searcher.tally().counted == 6
    for trial in cut_short:  # each was made up for, where its point had been drawn
        assert not trial.params or any(
            t.params == trial.params and t.state.name == "COMPLETE" for t in trials
        )
