import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.errors import RequestError
from datamodules.loader import BatchLoader, BatchOrder
from datamodules.prepare import prepare
from intentbench.models import DIVISIBLE, METHODS, load_method
from intentbench.results.store import CHECKPOINT, load_ranks
from intentbench.runner import distributed
from intentbench.runner.build import build_data, build_model, build_trainer
from intentbench.runner.config import Training, Trial, write_config
from intentbench.runner.distributed import (
    ERROR,
    GlobalBatchStrategy,
    LostProcessError,
    TrialProcessError,
    batch_share,
    run_in_processes,
)
from intentbench.runner.grid import RunOptions, plan_grid
from intentbench.runner.jobs import Job
from tests.runner.conftest import MakeSpec

PLUGIN = '''
import os
from torch import Tensor
from datamodules.types import SequenceBatch
from intentbench.models.sasrec import SASRec

class Broken(SASRec):
    """Fails in one process, while the other waits for its gradients."""

    divisible = True

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        if os.environ["LOCAL_RANK"] == "1":
            raise ValueError("no loss today\\nand more")
        return super().loss(batch)
'''


def sasrec_job(make_spec: MakeSpec, out: Path, **training: Any) -> Job:
    row = {"loss": "ce", "width": 8, "blocks": 1, "training": {"max_epochs": 2, **training}}
    (planned,) = plan_grid(make_spec({"sasrec": row}, seeds=[3]), RunOptions(out=out))
    return planned.job


def test_settings_at_their_defaults_are_unsaid(make_spec: MakeSpec, tmp_path: Path) -> None:
    trial = sasrec_job(make_spec, tmp_path).trial
    before = {"max_epochs", "patience", "monitor", "validate_every", "precision"}
    assert trial.training.settings().keys() == before == trial.config()["trial"]["training"].keys()
    plain = trial.config()["trainer"]
    assert plain["devices"] == 1
    assert not {"strategy", "accumulate_grad_batches"} & plain.keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"processes": 2}, "strategy"),
        ({"accumulate": 2}, "accumulate_grad_batches"),
        ({"compile": True}, "callbacks"),
    ],
)
def test_other_settings_are_said_and_change_the_name(
    make_spec: MakeSpec, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    plain = sasrec_job(make_spec, tmp_path).trial
    trial = replace(plain, training=replace(plain.training, **change))
    assert trial.name != plain.name
    assert change.items() <= trial.training.settings().items()
    assert trial.config()["trainer"][said] != plain.config()["trainer"].get(said)
    assert Trial.from_config(trial.config()) == trial


@pytest.mark.parametrize(
    ("models", "more", "words"),
    [
        ({"popularity": {}}, {}, ["models.popularity", "gradient", "processes: 1"]),
        ({"toy": {}}, {}, ["models.toy", "not known to be the same"]),
        ({"gru4rec": {}}, {"data": {"batch_size": 33}}, ["models.gru4rec", "33", "multiple"]),
        ({"gru4rec": {"training": {"compile": True}}}, {}, ["models.gru4rec", "compile"]),
        ({"gru4rec": {"training": {"processes": 0}}}, {}, ["training.processes", "at least 1"]),
    ],
)
def test_what_cannot_be_shared_is_refused_before_the_run(
    make_spec: MakeSpec, models: dict[str, Any], more: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(RequestError) as refused:
        make_spec(models, **{"training": {"processes": 2}, **more})
    assert "\n" not in (line := str(refused.value))
    for word in words:
        assert word in line


def test_every_method_with_gradients_is_divisible() -> None:
    gradient = {key for key in METHODS if load_method(key).CARD.gradient}
    assert gradient == DIVISIBLE


def test_processes_take_the_rows_of_one_processs_batches() -> None:
    alone = list(BatchOrder(83, 16, seed=5))
    shared = []
    for rank in range(2):
        given: BatchLoader[Any] = BatchLoader(BatchOrder(83, 16, 5, rank, 2), lambda rows: rows)
        loader = GlobalBatchStrategy().process_dataloader(given)
        assert isinstance(loader, BatchLoader)
        shared.append(list(loader.sampler))
    assert len(alone) == len(shared[0]) == len(shared[1])
    for batch, *parts in zip(alone, *shared, strict=True):
        assert abs(len(parts[0]) - len(parts[1])) <= 1
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(batch))


def test_evaluation_is_left_as_the_data_module_cuts_it() -> None:
    given: BatchLoader[Any] = BatchLoader(BatchOrder(83, 16, None, 1, 2), lambda rows: rows)
    assert GlobalBatchStrategy().process_dataloader(given) is given


def test_rows_that_cannot_be_shared() -> None:
    with pytest.raises(RequestError, match="batch_size of 15 cannot be shared by 2"):
        batch_share(15, 2)
    given: BatchLoader[Any] = BatchLoader(BatchOrder(81, 16, 5, 0, 2), lambda rows: rows)
    with pytest.raises(RequestError, match="last batch of an epoch has 1 of 81 rows"):
        GlobalBatchStrategy().process_dataloader(given)


def test_several_processes_need_as_many_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RequestError, match="2 processes need as many GPUs, the trial has 1"):
        run_in_processes(tmp_path, None, "gpu", 2)


def test_a_trainer_whose_processes_nobody_starts_is_refused(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    trial = sasrec_job(make_spec, tmp_path, processes=2).trial
    with pytest.raises(RequestError, match="intentbench run"):
        build_trainer(trial.config(), tmp_path, "cpu")


@pytest.fixture
def scripts() -> Any:
    """Starts processes that run a line of Python each; they end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*lines: str) -> list[subprocess.Popen[bytes]]:
        started.extend(
            subprocess.Popen([sys.executable, "-c", line], stdin=subprocess.PIPE) for line in lines
        )
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


WAITS = "import time; time.sleep(600)"
KILLED = "import os; os.kill(os.getpid(), 9)"
PEER_FAILS = "import time; time.sleep(0.5); raise SystemExit(1)"


def test_a_failed_process_ends_the_wait(
    tmp_path: Path, scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "GRACE", 0.3)
    (tmp_path / ERROR).write_text("process 1: ValueError: no")
    with pytest.raises(TrialProcessError, match="process 1: ValueError: no"):
        distributed._watch(scripts(WAITS, "raise SystemExit(1)"), tmp_path)


def test_a_killed_process_is_the_cause_of_what_its_peers_say(tmp_path: Path, scripts: Any) -> None:
    (tmp_path / ERROR).write_text("process 0: RuntimeError: connection closed by peer")
    with pytest.raises(LostProcessError, match="process 1 of 2 was lost") as lost:
        distributed._watch(scripts(PEER_FAILS, KILLED), tmp_path)
    assert lost.value.signal == signal.SIGKILL


def test_processes_that_end_well(tmp_path: Path, scripts: Any) -> None:
    distributed._watch(scripts("pass", "pass"), tmp_path)


@pytest.mark.ddp
def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    child = (
        "import threading, time, os; from intentbench.runner.rank import _end_with_parent;"
        "threading.Thread(target=_end_with_parent, daemon=True).start();"
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    parent = (
        "import subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE);"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.kill()
        for _ in range(600):
            if not _runs(number):
                break
            time.sleep(0.05)
        assert not _runs(number)


def _runs(process: int) -> bool:
    """Whether a process runs still; one that has ended and that nobody waited for does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.ddp
@pytest.mark.parametrize(
    "more", [{}, {"precision": "bf16-mixed", "accumulate": 2}], ids=["plain", "bf16"]
)
def test_a_trial_on_two_processes(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    job = sasrec_job(make_spec, tmp_path, processes=2, **more)
    job.folder.mkdir(parents=True)
    write_config(job.folder, job.trial)
    record = run_in_processes(job.folder, job.prepared, "cpu", 2)
    assert record.status == "done"
    assert record.training["processes"] == 2
    assert record.cost.epochs == 2
    assert len(record.curve) == 2

    config = replace(job.trial, training=Training(max_epochs=2, **more)).config()
    model, data = build_model(config), build_data(config)
    state = torch.load(job.folder / CHECKPOINT, weights_only=True)["state_dict"]
    model.load_state_dict(state)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it, too
    try:
        build_trainer(config, tmp_path, "cpu").test(model, data, verbose=False)
    finally:
        torch.use_deterministic_algorithms(False)
    ranks = load_ranks(job.folder)
    assert model.table is not None
    assert ranks["user"].tolist() == list(range(data.n_users))
    for name in ("user", "key", "rank"):
        np.testing.assert_array_equal(ranks[name], getattr(model.table, name))
    writers = {file.name.split(".")[-2] for file in job.folder.rglob("events.out.tfevents*")}
    assert len(writers) == 1  # the number of the process
    assert len(list(job.folder.glob("*.ckpt"))) == 1


@pytest.mark.ddp
def test_an_error_in_one_process_ends_the_trial(make_spec: MakeSpec, tmp_path: Path) -> None:
    file, folder = tmp_path / "broken.py", tmp_path / "trial"
    file.write_text(PLUGIN)
    folder.mkdir()
    trial = sasrec_job(make_spec, tmp_path, processes=2).trial
    broken = replace(trial, plugin=str(file), class_path="broken.Broken")
    write_config(folder, broken)
    with pytest.raises(TrialProcessError, match=r"process 1: ValueError: no loss today$"):
        run_in_processes(folder, prepare("synthetic-tiny"), "cpu", 2)
    assert not (folder / "result.json").exists()


def test_lightnings_own_trainer_takes_the_strategy() -> None:
    trainer = Trainer(accelerator="cpu", devices=2, strategy=GlobalBatchStrategy(), logger=False)
    assert isinstance(trainer.strategy, GlobalBatchStrategy)
    assert trainer.world_size == 2
