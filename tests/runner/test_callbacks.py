"""Recall of several validation targets a user, logged before the module forgets its ranks."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from datamodules.prepared import (
    TEST,
    TRAIN,
    VALID,
    Meta,
    PreparedDataset,
    compute_fingerprint,
    write_prepared,
)
from datamodules.sequence import SequenceDataModule
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import quiet_trainer
from intentbench.metrics.users import metric_names
from intentbench.results.progress import TrialProgress, read_progress, write_progress
from intentbench.results.record import TrialRecord
from intentbench.results.store import load_ranks
from intentbench.runner.callbacks import RECALLS, EpochWatch, UserRecall
from intentbench.runner.config import Training, Trial, write_config
from intentbench.runner.recommend import load_checkpoint
from intentbench.runner.signs import UNVALIDATED
from intentbench.runner.trial import run_trial
from tests.metrics import reference
from tests.runner.conftest import MakeSpec
from tests.runner.toy_plugin import Toy

USERS, ITEMS, WINDOW = 30, 40, 8


PARTS = (TRAIN, 4, 7), (VALID, 1, 6), (TEST, 1, 6)


def several_targets(parts: Sequence[tuple[int, int, int]] = PARTS) -> PreparedDataset:
    """Users of 4 to 6 training items with a set of validation and of test items, none twice."""
    generator = np.random.default_rng(0)
    items: list[int] = []
    split: list[int] = []
    offsets = [0]
    for _ in range(USERS):
        for part, low, high in parts:
            split += [part] * int(generator.integers(low, high))
        count = len(split) - offsets[-1]
        items += (1 + generator.permutation(ITEMS)[:count]).tolist()
        offsets.append(len(split))
    tensors = {
        "items": torch.tensor(items, dtype=torch.int32),
        "split": torch.tensor(split, dtype=torch.uint8),
        "offsets": torch.tensor(offsets),
    }
    recipe = {"split": "pre_split"}
    statistics: dict[str, float] = {"users": USERS, "items": ITEMS, "interactions": len(items)}
    fingerprint = compute_fingerprint(tensors, recipe)
    meta = Meta("several", fingerprint, recipe, "train", statistics, {})
    return PreparedDataset(meta, tensors["items"], tensors["split"], tensors["offsets"])


def slow_means(model: Toy, data: PreparedDataset, part: int) -> dict[str, float]:
    """Recall and NDCG of sets: each user scored alone from the last training item, then loops."""
    found: dict[str, list[float]] = {name: [] for name in metric_names("train")}
    for begin, end in zip(data.offsets[:-1].tolist(), data.offsets[1:].tolist(), strict=True):
        events = list(
            zip(data.items[begin:end].tolist(), data.split[begin:end].tolist(), strict=True)
        )
        training = [item for item, of in events if of == TRAIN]
        scores = (model.outputs.weight @ model.inputs.weight[training[-1]]).tolist()
        targets = [item for item, of in events if of == part]
        ranks = [reference.rank(scores, target, training) for target in targets]
        for name, values in found.items():
            values.append(reference.set_metric(name, ranks))
    return {name: float(np.mean(values)) for name, values in found.items()}


def validating(epochs: int, *callbacks: Any, **more: Any) -> Trainer:
    return quiet_trainer(epochs, limit_val_batches=1.0, callbacks=list(callbacks), **more)


class Recorder(UserRecall):
    """Notes what was logged, and that it was called."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.logged: list[dict[str, float]] = []
        self.expected: list[dict[str, float]] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self.calls.append("callback")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.logged.append({name: float(metrics[f"val/{name}"]) for name in RECALLS})
        assert isinstance(pl_module, Toy)
        data = trainer.datamodule.dataset  # type: ignore[attr-defined]  # Lightning sets it
        slow = slow_means(pl_module, data, VALID)
        self.expected.append({name: slow[name] for name in RECALLS})


class Noting(Toy):
    """Notes when the module's own hook is called."""

    calls: list[str]

    def on_validation_epoch_end(self) -> None:
        self.calls.append("module")
        super().on_validation_epoch_end()


def test_recall_of_each_epoch_is_logged_before_the_ranks_are_forgotten() -> None:
    data = several_targets()
    model = Noting(ITEMS, USERS, WINDOW)
    model.calls, model.learning_rate = [], 0.1
    recorder = Recorder(model.calls)
    trainer = validating(3, recorder)
    trainer.fit(model, SequenceDataModule(data, window=WINDOW, batch_size=8))
    assert model.calls == ["callback", "module"] * 3
    assert len(recorder.logged) == 3
    for logged, expected in zip(recorder.logged, recorder.expected, strict=True):
        assert logged == pytest.approx(expected, abs=1e-6)
    assert len({logged["recall@10"] for logged in recorder.logged}) > 1
    # Over targets, not users, is what the module logs: the two differ here.
    metrics = trainer.callback_metrics
    assert metrics["val/recall@10"] != pytest.approx(float(metrics["val/hit_rate@10"]), abs=1e-4)


def test_with_one_target_a_user_recall_is_the_hit_rate() -> None:
    data = planted_cycles()
    trainer = validating(2, UserRecall())
    model = Toy(data.n_items, data.n_users, WINDOW)
    trainer.fit(model, SequenceDataModule(data, window=WINDOW))
    for k in (10, 20):
        found = trainer.callback_metrics[f"val/recall@{k}"]
        assert found == trainer.callback_metrics[f"val/hit_rate@{k}"] > 0


def test_watch_keeps_the_epoch_of_the_best_recall(tmp_path: Path) -> None:
    recorder, watch = Recorder([]), EpochWatch(tmp_path, "recall@20")
    model = Toy(ITEMS, USERS, WINDOW)
    module = SequenceDataModule(several_targets(), window=WINDOW, batch_size=8)
    validating(5, watch, recorder).fit(model, module)
    recalls = [logged["recall@20"] for logged in recorder.logged]
    assert watch.best_epoch == int(np.argmax(recalls))
    assert watch.best["recall@20"] == max(recalls)
    assert watch.curve == recalls


class States(Callback):
    """Keeps what `EpochWatch`, which comes before it, has just written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[TrialProgress] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = read_progress(self.folder)
        assert state is not None
        self.seen.append(state)


@pytest.mark.parametrize("every", [1, 2])
def test_progress_foretells_the_end_if_nothing_improves(tmp_path: Path, every: int) -> None:
    began = time.time()
    write_progress(tmp_path, TrialProgress(began=5.0))
    watch, states = EpochWatch(tmp_path, "ndcg@10"), States(tmp_path)
    stopping = EarlyStopping("val/ndcg@10", mode="max", patience=3, check_on_train_epoch_end=False)
    model = Toy(ITEMS, USERS, WINDOW)
    model.learning_rate = 0.0  # the first validation is the best
    module = SequenceDataModule(several_targets(), window=WINDOW, batch_size=8)
    trainer = validating(50, stopping, watch, states, check_val_every_n_epoch=every)
    trainer.fit(model, module)
    last = every + 3 * every  # validations without improvement after the first
    assert [state.epoch for state in states.seen] == list(range(1, last + 1))
    assert [s.fewest_left for s in states.seen[every - 1 :]] == list(range(last - every, -1, -1))
    assert [s.most_left for s in states.seen] == [*(50 - e for e in range(1, last)), 0]
    assert {state.value for state in states.seen[every - 1 :]} == {watch.curve[0]}
    assert {state.best for state in states.seen[every - 1 :]} == {watch.best["ndcg@10"]}
    assert {(state.max_epochs, state.metric) for state in states.seen} == {(50, "ndcg@10")}
    assert {state.began for state in states.seen} == {5.0}
    for state in states.seen:
        assert 0 < state.seconds_per_epoch * state.epoch <= state.updated - began
    ended = read_progress(tmp_path)
    assert ended is not None
    assert (ended.phase, ended.epoch) == ("testing", last)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrialRecord]:
    """Runs a trial of the toy, in `tmp_path / "trial"`, on data of several targets."""

    def run(data: PreparedDataset, training: Training, **noise: Any) -> TrialRecord:
        prepared, folder = tmp_path / "prepared", tmp_path / "trial"
        prepared.mkdir()
        folder.mkdir()
        users, items = ([str(number) for number in range(count)] for count in (USERS, ITEMS))
        write_prepared(data, prepared, users, items)
        trial = Trial(
            dataset="several",
            source=str(prepared),
            fingerprint=data.fingerprint,
            label="toy",
            method="toy",
            class_path="tests.runner.toy_plugin.Toy",
            arguments={"n_items": ITEMS, "n_users": USERS, "window": WINDOW},
            data={
                "layout": "all",
                "window": WINDOW,
                "batch_size": 8,
                "targets": "last",
                "mask_history": True,
            },
            training=training,
            seed=0,
            noise=noise,
        )
        write_config(folder, trial)
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it, too
        deterministic = torch.are_deterministic_algorithms_enabled()
        record = run_trial(folder, prepared, "cpu")
        torch.use_deterministic_algorithms(deterministic)  # a trial has its process to itself
        return record

    return run


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_trial_on_sets_records_recall_and_ndcg_of_users(
    tmp_path: Path, run: Callable[..., TrialRecord]
) -> None:
    data, folder = several_targets(), tmp_path / "trial"
    training = Training(max_epochs=4, monitor="recall@20")
    record = run(data, training, kinds=["swap"], rates=[0.3])
    assert UNVALIDATED not in record.signs
    assert record.protocol["history"] == "train"
    model = load_checkpoint(folder / "best.ckpt")
    assert isinstance(model, Toy)
    assert record.metrics == pytest.approx(slow_means(model, data, TEST), abs=1e-9)
    assert tuple(record.metrics) == metric_names("train")
    assert len(record.curve) == 4
    assert record.curve[record.best_epoch] == max(record.curve)
    assert max(record.curve) == pytest.approx(record.validation["recall@20"], abs=1e-6)
    assert tuple(record.noise[0]["metrics"]) == metric_names("train")
    validation = slow_means(model, data, VALID)
    for name in RECALLS:
        assert record.validation[name] == pytest.approx(validation[name], abs=1e-6)
    assert len(load_ranks(folder)["rank"]) == int((data.split == TEST).sum()) > USERS


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, of what is then said
def test_a_trial_without_validation_says_so(run: Callable[..., TrialRecord]) -> None:
    data = several_targets([(TRAIN, 4, 7), (TEST, 1, 6)])
    record = run(data, Training(max_epochs=3, patience=1, monitor="recall@20"))
    assert UNVALIDATED in record.signs
    assert (record.cost.epochs, record.best_epoch, record.validation) == (3, -1, {})


@pytest.mark.parametrize("monitor", RECALLS)
def test_a_spec_may_monitor_recall(make_spec: MakeSpec, monitor: str) -> None:
    spec = make_spec({"toy": {}}, training={"monitor": monitor})
    assert spec.entrants[0].training.monitor == monitor
