"""What a node of a Ray cluster does, alone."""

import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import FormatError
from datamodules.prepare import cache_folder
from intentbench.results.store import CHECKPOINT, LOG, RESULT, load_records
from intentbench.runner import ray_executor
from intentbench.runner.config import read_config
from intentbench.runner.grid import RunOptions, plan_grid
from intentbench.runner.parcels import pack_folder, unpack_dataset
from intentbench.runner.ray_worker import (
    News,
    UnfitNodeError,
    check_code,
    run_order,
    trial_code,
)
from tests.runner.conftest import PLUGIN, MakeSpec
from tests.runner.orders import NOWHERE, Local, elsewhere, same_ranks

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'intentbench[ray]'")


def test_loading_what_a_node_runs_needs_no_polars() -> None:
    code = (
        "import sys, intentbench.runner.ray_worker;"
        "sys.exit(bool({'polars', 'datasets', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@dataclass
class FakeQueue:
    items: list[News] = field(default_factory=list)

    def put(self, item: News) -> None:
        self.items.append(item)


def test_node_with_the_same_disk_runs_in_place(local: Local, tmp_path: Path) -> None:
    folder = local.jobs["toy"].trial.folder(tmp_path)
    order = local.order("toy")
    news = FakeQueue()
    delivery = run_order(replace(order, job=replace(order.job, folder=folder)), news)  # type: ignore[arg-type]
    assert news.items == [(7, True, b"")]
    assert delivery.files is None
    assert load_records(tmp_path) == [(folder, delivery.record)]
    assert same_ranks(folder, local.jobs["toy"].folder)


def test_node_without_the_disk_sends_back_the_whole_folder(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = local.order("toy")
    monkeypatch.delitem(sys.modules, PLUGIN.stem)  # no node has imported it from here
    monkeypatch.setattr(ray, "get", lambda files: files)
    monkeypatch.setenv("INTENTBENCH_CACHE", str(tmp_path / "cache"))
    news = FakeQueue()
    delivery = run_order(elsewhere(order), news)  # type: ignore[arg-type]
    assert {shared for _, shared, _ in news.items} == {False}
    assert any(b'"max_epochs": 2' in reached for _, _, reached in news.items)
    assert delivery.record is not None
    assert delivery.record.status == "done"
    assert len(list((cache_folder() / "shipped").glob("*/meta.json"))) == 1

    job = replace(local.jobs["toy"], folder=local.jobs["toy"].trial.folder(tmp_path / "runs"))
    job.folder.mkdir(parents=True)
    (job.folder / LOG).write_text("--- attempt before\n")
    ray_executor._store(job, delivery)
    assert load_records(tmp_path / "runs") == [(job.folder, delivery.record)]
    assert same_ranks(job.folder, local.jobs["toy"].folder)
    assert read_config(job.folder) == read_config(local.jobs["toy"].folder)
    assert (job.folder / LOG).read_text().count("--- attempt") == 2
    names = {path.name for path in pack_paths(job.folder)}
    assert names == {path.name for path in pack_paths(local.jobs["toy"].folder)}


def pack_paths(folder: Path) -> list[Path]:
    """Paths of what a trial's folder holds, the names of event files without their end."""
    return [Path(name.partition(".tfevents")[0]) for name in pack_folder(folder)]


def test_checkpoint_to_start_from_travels_too(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get", lambda files: files)
    monkeypatch.setenv("INTENTBENCH_CACHE", str(tmp_path / "cache"))
    base = local.jobs["base"].folder
    files = {name: np.fromfile(base / name, np.uint8) for name in (CHECKPOINT, RESULT)}
    order = local.order("above", base=files)
    monkeypatch.delitem(sys.modules, PLUGIN.stem)
    delivery = run_order(elsewhere(order), FakeQueue())  # type: ignore[arg-type]
    assert delivery.record is not None
    assert delivery.record.reason == ""
    assert delivery.files is not None
    (tmp_path / "ranks.npz").write_bytes(delivery.files["ranks.npz"].tobytes())
    assert same_ranks(tmp_path, local.jobs["above"].folder)


def test_limits_hold_on_a_node(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec({"toy": {"fault": "hang"}}, seeds=[0])
    (planned,) = plan_grid(spec, RunOptions(out=tmp_path))
    order = Local({"toy": planned.job}, tmp_path).order("toy", timeout=8)
    delivery = run_order(order, FakeQueue())  # type: ignore[arg-type]
    assert delivery.record is not None
    assert delivery.record.reason == "took longer than 8 s"


def test_lost_process_is_told_with_its_log(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec({"toy": {"fault": "kill"}}, seeds=[0])
    (planned,) = plan_grid(spec, RunOptions(out=tmp_path))
    order = Local({"toy": planned.job}, tmp_path).order("toy", token=NOWHERE)
    delivery = run_order(order, FakeQueue())  # type: ignore[arg-type]
    assert (delivery.record, delivery.exitcode) == (None, -signal.SIGKILL)
    assert delivery.files is not None
    assert b"--- attempt" in delivery.files[LOG].tobytes()
    ray_executor._store(planned.job, delivery)
    assert (planned.job.folder / LOG).exists()
    assert not (planned.job.folder / RESULT).exists()


def test_other_code_is_refused(local: Local) -> None:
    trial = local.jobs["toy"].trial
    check_code(trial, trial_code(trial))
    assert trial_code(trial) == trial.code
    with pytest.raises(UnfitNodeError, match=r"its code of toy is not the runner's \(.*, not ab\)"):
        check_code(trial, "ab")
    gone = replace(trial, plugin="", class_path="no_such_package.Method")
    with pytest.raises(UnfitNodeError, match="No module named 'no_such_package'"):
        check_code(gone, trial.code)


def test_dataset_is_unpacked_once_and_verified(local: Local, tmp_path: Path) -> None:
    job = local.jobs["toy"]
    files = pack_folder(job.prepared)
    folder = unpack_dataset(files, "tiny", job.trial.fingerprint, tmp_path)
    for name, content in files.items():
        assert (folder / name).read_bytes() == content.tobytes()
    assert unpack_dataset({}, "tiny", job.trial.fingerprint, tmp_path) == folder
    changed = dict(files)
    tensors = changed["tensors.safetensors"].copy()
    tensors[-1] ^= 1
    changed["tensors.safetensors"] = tensors
    with pytest.raises(FormatError, match="arrived with fingerprint"):
        unpack_dataset(changed, "other", job.trial.fingerprint, tmp_path)
    assert not list(tmp_path.glob("*other*/"))
