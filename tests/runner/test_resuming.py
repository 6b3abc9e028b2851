"""A trial that is cut short goes on to the very same result."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from intentbench.models import load_method
from intentbench.models.base import MONITORED, Recommender
from intentbench.results.record import TrialRecord
from intentbench.results.store import CHECKPOINT, load_ranks
from intentbench.runner import fit, resuming
from intentbench.runner.build import build_trainer
from intentbench.runner.config import Training, Trial, write_config
from intentbench.runner.resuming import LAST, KeepLast
from intentbench.runner.trial import run_trial

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")

SMALL: dict[str, dict[str, Any]] = {
    "sasrec": {"loss": "ce", "width": 16, "dropout": 0.2},
    "indirec": {"width": 16, "clusters": 4, "steps": 4, "cluster_members": "accumulate"},
    "indirec_clusters": {"width": 16, "clusters": 4, "steps": 4, "clustering": "frozen"},
    "idclrec": {"width": 16, "blocks": 1},
    "lightrec": {"width": 8, "words": 8},
}


class CutError(Exception):
    """What cuts a trial short."""


class Cut(Callback):
    """Ends a training in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.current_epoch == self.epoch:
            raise CutError


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trial has its process to itself; each epoch is worth a checkpoint."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(resuming, "EVERY", 0.0)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def write_trial(folder: Path, method: str, **training: Any) -> Path:
    """The folder of a trial that is to run."""
    prepared = prepare("synthetic-tiny")
    data = load_prepared(prepared)
    cls = load_method(method)
    sizes = {"n_items": data.n_items, "n_users": data.n_users}
    if method != "lightrec":
        sizes["window"] = 8
    trial = Trial(
        dataset="synthetic-tiny",
        source=str(prepared),
        fingerprint=data.fingerprint,
        label=method,
        method=method,
        class_path=f"{cls.__module__}.{cls.__qualname__}",
        arguments={**SMALL[method], **sizes},
        data={
            "layout": "prefix" if method == "idclrec" else cls.layout,
            "window": 8,
            "batch_size": 32,
            "targets": "last",
            "mask_history": True,
        },
        training=Training(max_epochs=6, **training),
        seed=3,
        code="abc",
    )
    folder.mkdir()
    write_config(folder, trial)
    return folder


def cut_short(folder: Path, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a trial until the middle of an epoch."""

    def build_cut(*given: Any) -> Trainer:
        trainer = build_trainer(*given)
        trainer.callbacks.append(Cut(epoch))  # type: ignore[attr-defined]  # set by Lightning
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(fit, "build_trainer", build_cut)
        with pytest.raises(CutError):
            run_trial(folder, accelerator="cpu")


def note_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which epochs are trained from now on."""
    begun: list[int] = []

    def note(_: KeepLast, trainer: Trainer, module: Recommender) -> None:
        begun.append(trainer.current_epoch)

    monkeypatch.setattr(KeepLast, "on_train_epoch_start", note, raising=False)
    return begun


def assert_same(one: TrialRecord, other: TrialRecord, folders: tuple[Path, Path]) -> None:
    """The same result, whatever it took."""
    assert one.metrics == other.metrics
    assert one.validation == other.validation
    assert one.curve == other.curve
    assert one.signs == other.signs
    assert (one.best_epoch, one.cost.epochs) == (other.best_epoch, other.cost.epochs)
    ours, theirs = (load_ranks(folder)["rank"] for folder in folders)
    assert np.array_equal(ours, theirs)
    states = [torch.load(folder / CHECKPOINT, weights_only=True) for folder in folders]
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(torch.as_tensor(states[1]["state_dict"][name]), torch.as_tensor(tensor))


@pytest.mark.parametrize("method", SMALL)
def test_a_trial_that_was_cut_twice_ends_like_one_that_was_not(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = write_trial(tmp_path / "a", method), write_trial(tmp_path / "b", method)
    record = run_trial(whole, accelerator="cpu")
    for epoch in (2, 4):
        cut_short(cut, epoch, monkeypatch)
        assert torch.load(cut / LAST, weights_only=True)["epoch"] == epoch - 1
    begun = note_epochs(monkeypatch)
    resumed = run_trial(cut, accelerator="cpu")
    assert begun == [4, 5], "only what was missing is trained"
    assert_same(record, resumed, (whole, cut))
    assert resumed.cost.seconds > 0
    assert not list(cut.glob(f"*{LAST}*")), "a finished trial keeps no more than it needs"
    assert not list(whole.glob(f"*{LAST}*"))


def force_metrics(curve: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SASRec's validations come to these values, one an epoch."""

    def forced(self: Recommender) -> None:
        self.val_ranks.reset()
        for name in MONITORED:
            self.log(f"val/{name}", curve[self.trainer.current_epoch])

    monkeypatch.setattr(load_method("sasrec"), "on_validation_epoch_end", forced)


def test_patience_counts_across_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The monitored metric never rises after the first epoch: patience of 3 ends after four."""
    force_metrics([0.1] * 6, monkeypatch)
    folder = write_trial(tmp_path / "a", "sasrec", patience=3)
    cut_short(folder, 2, monkeypatch)
    record = run_trial(folder, accelerator="cpu")
    assert record.cost.epochs == len(record.curve) == 4
    assert record.best_epoch == 0


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("peak", [0, 3, 5])
@pytest.mark.parametrize("cut_at", [1, 4])
def test_the_best_weights_are_of_the_best_epoch_wherever_it_was_cut(
    every: int, peak: int, cut_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [0.3 if epoch <= peak else 0.2 for epoch in range(6)]
    values[peak] = 0.5
    force_metrics(values, monkeypatch)
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        write_trial(folder, "sasrec", validate_every=every)
    record = run_trial(folders[0], accelerator="cpu")
    cut_short(folders[1], cut_at, monkeypatch)
    resumed = run_trial(folders[1], accelerator="cpu")
    assert_same(record, resumed, folders)
    assert torch.load(folders[1] / CHECKPOINT, weights_only=True)["epoch"] == record.best_epoch
    if every == 1:
        assert record.best_epoch == peak


def test_overfitting_is_seen_as_without_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_metrics([0.5, 0.4, 0.3, 0.2, 0.1, 0.05], monkeypatch)
    folders = write_trial(tmp_path / "a", "sasrec"), write_trial(tmp_path / "b", "sasrec")
    record = run_trial(folders[0], accelerator="cpu")
    cut_short(folders[1], 3, monkeypatch)
    assert_same(record, run_trial(folders[1], accelerator="cpu"), folders)
    assert len(record.signs) == 1
    assert record.signs[0].startswith("overfitting: validation fell by 90%")


def test_a_folder_may_be_spelled_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    force_metrics([0.3, 0.5, 0.2, 0.2, 0.2, 0.2], monkeypatch)
    folder = write_trial(tmp_path / "a", "sasrec")
    monkeypatch.chdir(tmp_path)
    cut_short(Path("a"), 3, monkeypatch)
    record = run_trial(folder, accelerator="cpu")
    assert record.best_epoch == 1
    assert torch.load(folder / CHECKPOINT, weights_only=True)["epoch"] == 1


def test_a_disk_that_takes_no_more_does_not_end_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save = Trainer.save_checkpoint

    def full(self: Trainer, path: Path, weights_only: bool | None = None) -> None:
        if "last" in str(path):
            raise OSError(28, "No space left on device")
        save(self, path, weights_only)

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    folder = write_trial(tmp_path / "a", "sasrec")
    assert run_trial(folder, accelerator="cpu").status == "done"
    assert [text for text in caplog.messages if "No space left" in text and "goes on" in text]


def test_events_of_earlier_attempts_stay_where_a_trial_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_trial(tmp_path / "a", "sasrec")
    cut_short(folder, 2, monkeypatch)
    kept = set((folder / "events").glob("events.*"))
    cut_short(folder, 4, monkeypatch)
    assert kept
    assert kept < set((folder / "events").glob("events.*"))
    (folder / LAST).unlink()
    run_trial(folder, accelerator="cpu")
    assert not kept & set((folder / "events").glob("events.*")), "another training, other events"


def test_weights_of_a_later_epoch_do_not_stay_as_the_best_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = write_trial(tmp_path / "a", "sasrec"), write_trial(tmp_path / "b", "sasrec")
    record = run_trial(whole, accelerator="cpu")
    cut_short(cut, 3, monkeypatch)
    (cut / CHECKPOINT).write_bytes(b"of an epoch after the last writing, or half of it")
    assert_same(record, run_trial(cut, accelerator="cpu"), (whole, cut))


@pytest.mark.parametrize("change", ["code", "torch", "damage", "folder"])
def test_what_is_not_the_same_training_starts_anew(
    change: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_trial(tmp_path / "a", "sasrec")
    cut_short(folder, 2, monkeypatch)
    if change == "code":
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config.replace("code: abc", "code: abd"))
    elif change == "torch":
        state = torch.load(folder / LAST, weights_only=True)
        state["conditions"]["torch"] = "0.0"
        torch.save(state, folder / LAST)
    elif change == "damage":
        (folder / LAST).write_bytes((folder / LAST).read_bytes()[:-200])
    else:
        folder = folder.rename(tmp_path / "b")
    begun = note_epochs(monkeypatch)
    record = run_trial(folder, accelerator="cpu")
    assert begun[0] == 0
    assert record.cost.epochs == len(begun) == 6
    wanted = "cannot be read" if change == "damage" else f"of another {change}"
    assert [text for text in caplog.messages if wanted in text and "starts anew" in text]


def test_writing_is_no_more_frequent_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "EVERY", 3600.0)
    folder = write_trial(tmp_path / "a", "sasrec")
    cut_short(folder, 4, monkeypatch)
    assert not (folder / LAST).exists()
