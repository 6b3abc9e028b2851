"""Searches of rows: their trainings, locks and faults."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from intentbench.runner import tuning_worker
from intentbench.runner.config import write_config
from intentbench.runner.jobs import Slot
from intentbench.runner.trial import run_trial
from intentbench.runner.tuning import UNSAID, Search, Way, chosen, plan_searches, run_search
from intentbench.runner.tuning_locks import lock_path, lock_storage
from intentbench.runner.tuning_worker import Answer, run_attempt
from intentbench.spec import load_spec
from tests.runner.conftest import PLUGIN, write_spec

optuna = pytest.importorskip("optuna", reason="the extra `tune` is not installed")
from optuna.distributions import IntDistribution  # noqa: E402
from optuna.trial import create_trial  # noqa: E402

from intentbench.runner.studies import Searcher  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")


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
    assert reasons["counts"] == f"{UNSAID} in {board / 'models' / 'counts.yaml'}"
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
