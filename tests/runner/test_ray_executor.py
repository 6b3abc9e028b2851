"""Trials on a Ray cluster: what comes back from a node; then, slow, clusters of several nodes."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from datamodules.console import plain_console
from intentbench.results.record import TrialRecord
from intentbench.results.store import (
    CHECKPOINT,
    CONFIG,
    LOG,
    RESULT,
    load_records,
    trial_folder,
    write_record,
)
from intentbench.runner import ray_executor
from intentbench.runner.config import read_config
from intentbench.runner.grid import RunOptions, run_grid
from intentbench.runner.ray_worker import Delivery, Order
from intentbench.spec import load_spec
from tests.runner.conftest import PLUGIN, MakeSpec, write_spec
from tests.runner.orders import MODELS, Local, elsewhere, same_ranks

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'intentbench[ray]'")
pytestmark = pytest.mark.usefixtures("ray_variables")
if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from intentbench.runner.parcels import Files

RUN = """
import sys
from pathlib import Path
from rich.console import Console
from intentbench.runner.grid import RunOptions, run_grid
from intentbench.spec import load_spec
spec, plugin, out = map(Path, sys.argv[1:4])
options = RunOptions(out=out, devices="cpu", executor="ray", address=sys.argv[4])
run_grid(load_spec(spec, plugin=plugin), options, Console())
"""


KILLER = """
import os, signal
from multiprocessing import parent_process
from pathlib import Path
from intentbench.models.popularity import Popularity

class Killer(Popularity):
    CARD = Popularity.CARD

    def prepare(self, training):
        marker = Path(self.trainer.default_root_dir) / "killed"
        if not marker.exists():
            marker.touch()
            os.kill(parent_process().pid, signal.SIGKILL)
        super().prepare(training)
"""
"""A method that once kills the task which watches it."""


def test_record_is_written_last(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(ray_executor, "unpack_files", lambda files, _: written.extend(list(files)))
    files: Files = {name: np.zeros(1, np.uint8) for name in (RESULT, LOG, CONFIG, "a", "z")}
    job = replace(local.jobs["toy"], folder=tmp_path)
    ray_executor._store(job, Delivery(job.blank, None, files))
    assert written == ["a", "z", RESULT]


def test_failed_trial_of_a_foreign_runner_stands(local: Local, tmp_path: Path) -> None:
    """What another runner recorded while a trial ran elsewhere is not run over."""
    job = replace(local.jobs["counts"], folder=tmp_path)
    other = replace(job.failed("another runner"), trial=tmp_path.name)
    write_record(tmp_path, other)
    flight = ray_executor._Flight(1, job)
    grid = object.__new__(ray_executor._Grid)
    cancelled: list[Any] = []
    grid.__dict__["_cancel"] = cancelled.append
    grid._lock(flight)
    assert cancelled == [flight]
    assert flight.found == other
    ray_executor._release(flight)


# ---- real clusters ----


@pytest.fixture(scope="module")
def make_cluster() -> Iterator[Callable[..., "Cluster"]]:
    """Starts clusters on this machine: a head without CPUs, and nodes with these resources."""
    from ray.cluster_utils import Cluster

    clusters: list[Cluster] = []

    def make(*nodes: dict[str, Any]) -> Cluster:
        store: dict[str, Any] = {"object_store_memory": 100_000_000}
        head = {"num_cpus": 0, "include_dashboard": False, **store}
        handler = signal.getsignal(signal.SIGTERM)
        clusters.append(Cluster(initialize_head=True, head_node_args=head))
        for resources in nodes:
            clusters[-1].add_node(**resources, **store)
        signal.signal(signal.SIGTERM, handler)  # Ray has set its own
        return clusters[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield make
        for cluster in clusters:
            cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray types most but this


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[..., "Cluster"]) -> "Cluster":
    return make_cluster({"num_cpus": 1}, {"num_cpus": 1})


def run(
    make_spec: MakeSpec, out: Path, address: str, models: dict[str, Any], **more: Any
) -> tuple[dict[tuple[str, int], TrialRecord], str]:
    text = io.StringIO()
    options = RunOptions(out=out, devices="cpu", executor="ray", address=address)
    result = run_grid(make_spec(models, **more), options, plain_console(file=text))
    return {(record.label, record.seed): record for _, record in result.trials}, text.getvalue()


def attempts(out: Path) -> dict[str, int]:
    """How often each trial was begun."""
    return {log.parent.name: log.read_text().count("--- attempt") for log in out.rglob(LOG)}


@pytest.mark.slow
def test_faults_on_a_cluster_are_those_of_one_machine(
    make_spec: MakeSpec, cluster: "Cluster", tmp_path: Path
) -> None:
    faults = ("raise", "kill", "kill_once", "hang")
    models = {fault: {"method": "toy", "fault": fault} for fault in faults}
    records, text = run(
        make_spec, tmp_path, cluster.address, {**models, "toy": {}}, seeds=[0], timeout=60
    )
    found = {record.label: (record.status, record.reason) for record in records.values()}
    assert found == {
        "raise": ("failed", "ValueError: the loss went wrong"),
        "kill": ("failed", "its process was lost 2 times (exit code -9)"),
        "kill_once": ("done", ""),
        "hang": ("failed", "took longer than 60 s"),
        "toy": ("done", ""),
    }
    tried = {r.label: attempts(tmp_path)[r.trial] for r in records.values()}
    assert tried == {"raise": 1, "kill": 2, "kill_once": 2, "hang": 1, "toy": 1}
    assert text.count("later") == 2
    assert not list(tmp_path.glob(".runner-*"))


@pytest.mark.slow
def test_cluster_without_a_shared_disk_gives_the_same_ranks(
    make_spec: MakeSpec,
    cluster: "Cluster",
    local: Local,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_executor, "Order", lambda **given: elsewhere(Order(**given)))
    records, _ = run(make_spec, tmp_path, cluster.address, MODELS, seeds=[0])
    assert [record.reason for record in records.values()] == [""] * 4
    for (label, _), record in records.items():
        folder = trial_folder(tmp_path, record.dataset, label, record.trial)
        ours = local.jobs[label].folder
        assert same_ranks(folder, ours)
        assert read_config(folder) == read_config(ours)
        weights = [
            torch.load(f / CHECKPOINT, weights_only=True)["state_dict"] for f in (folder, ours)
        ]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [record for _, record in load_records(tmp_path)] == sorted(
        records.values(), key=lambda record: (record.label, record.trial)
    )


@pytest.mark.slow
def test_killed_runner_leaves_nothing_running_and_is_resumed(
    make_spec: MakeSpec, cluster: "Cluster", tmp_path: Path
) -> None:
    models, seeds = {"toy": {"fault": "slow"}}, list(range(4))
    out = tmp_path / "runs"
    spec = write_spec(tmp_path, models, seeds=seeds)
    command = [sys.executable, "-c", RUN, str(spec), str(PLUGIN), str(out), cluster.address]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    while len(list(out.rglob(RESULT))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in out.rglob(RESULT)}
    assert 2 <= len(before) < len(seeds)
    records, _ = run(make_spec, out, cluster.address, models, seeds=seeds)
    assert [record.status for record in records.values()] == ["done"] * len(seeds)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {attempts(out)[path.parent.name] for path in before} == {1}


@pytest.mark.slow
def test_lost_node_loses_and_repeats_nothing(
    make_spec: MakeSpec, make_cluster: Callable[..., "Cluster"], tmp_path: Path
) -> None:
    from threading import Thread

    cluster = make_cluster({"num_cpus": 1}, {"num_cpus": 1})
    node = sorted(cluster.worker_nodes, key=lambda node: str(node.node_id))[0]
    finished: dict[Path, int] = {}

    def kill_a_node_that_is_busy() -> None:
        done: set[Path] = set()
        while len(done) < 2 or len({log.parent for log in tmp_path.rglob(LOG)} - done) < 2:
            time.sleep(0.02)
            done = {path.parent for path in tmp_path.rglob(RESULT)}
        finished.update({place: (place / RESULT).stat().st_mtime_ns for place in done})
        cluster.remove_node(node, allow_graceful=False)

    killer = Thread(target=kill_a_node_that_is_busy, daemon=True)
    killer.start()
    seeds = list(range(8))
    records, text = run(
        make_spec, tmp_path, cluster.address, {"toy": {"fault": "slow"}}, seeds=seeds
    )
    killer.join(timeout=60)
    assert [(record.seed, record.status) for record in records.values()] == [
        (seed, "done") for seed in seeds
    ]
    assert 2 <= len(finished) <= 6
    assert {place: (place / RESULT).stat().st_mtime_ns for place in finished} == finished
    tried = attempts(tmp_path)
    assert {tried[place.name] for place in finished} == {1}
    assert sorted(tried.values()) == [1] * 7 + [2]  # what ran there
    assert text.count("later") in (1, 2)  # another may just have been sent there


@pytest.mark.slow
def test_lost_task_takes_its_trial_with_it_and_is_tried_again(
    make_cluster: Callable[..., "Cluster"], tmp_path: Path
) -> None:
    plugin = tmp_path / "killer.py"
    plugin.write_text(KILLER)
    spec = load_spec(write_spec(tmp_path, {"killer": {}}), plugin=plugin)
    address = make_cluster({"num_cpus": 1}).address
    out = tmp_path / "runs"
    options = RunOptions(out=out, devices="cpu", executor="ray", address=address)
    text = io.StringIO()
    result = run_grid(spec, options, plain_console(file=text))
    assert [record.reason for _, record in result.trials] == [""]
    assert list(attempts(out).values()) == [2]
    assert text.getvalue().count("later") == 1


@pytest.mark.slow
def test_shares_of_gpus_reach_the_trials(
    make_spec: MakeSpec, make_cluster: Callable[..., "Cluster"], tmp_path: Path
) -> None:
    cluster = make_cluster({"num_cpus": 4, "num_gpus": 2})  # in name only
    options = RunOptions(out=tmp_path, trials_per_device=2, executor="ray", address=cluster.address)
    text = io.StringIO()
    result = run_grid(make_spec({"counts": {}, "toy": {}}), options, plain_console(file=text))
    assert len(result.failed) == 3
    for _, record in result.trials:
        assert "GPU" in record.reason or "gpu" in record.reason, record.reason
    logs = [log.read_text() for log in tmp_path.rglob(LOG)]
    assert all("device='0', threads=1" in log or "device='1', threads=1" in log for log in logs)
    assert len(logs) == 3
