"""Trials on a Ray cluster: what a node does, alone; then, slow, clusters of several nodes."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from rich.console import Console

from datamodules.errors import FormatError, RequestError
from datamodules.prepare import cache_folder
from intentbench.results.record import TrialRecord
from intentbench.results.store import (
    CHECKPOINT,
    CONFIG,
    LOG,
    RESULT,
    load_ranks,
    load_records,
    trial_folder,
    write_record,
)
from intentbench.runner import ray_executor
from intentbench.runner.config import read_config
from intentbench.runner.grid import RunOptions, plan_grid, run_grid
from intentbench.runner.jobs import Job
from intentbench.runner.parcels import Files, pack_folder, unpack_dataset
from intentbench.runner.ray_cluster import ClusterOptions, Share, connected, plan_share
from intentbench.runner.ray_worker import (
    Delivery,
    News,
    Order,
    UnfitNodeError,
    check_code,
    run_order,
    trial_code,
)
from intentbench.spec import load_spec
from tests.runner.conftest import PLUGIN, MakeSpec, write_spec

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'intentbench[ray]'")
if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

TOYS: dict[str, Any] = {"toy": {}, "counts": {}}
BASED: dict[str, Any] = {
    "above": {"pretrained": "base"},
    "base": {"method": "sasrec", "width": 8, "heads": 1, "blocks": 1, "loss": "ce"},
}
NOWHERE = Path("/nowhere")
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


@pytest.fixture(autouse=True)
def _variables_that_ray_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")


def cluster_options(**more: Any) -> ClusterOptions:
    given = {"address": "auto", "out": NOWHERE, "devices": "auto", "trials_per_device": None}
    return ClusterOptions(**{**given, "trials": 100, **more})


@pytest.mark.parametrize(
    ("nodes", "options", "share"),
    [
        ([{"CPU": 4}, {"CPU": 8}], {}, Share(threads=1, gpus=0, slots=12)),
        ([{"CPU": 4}, {"CPU": 8}], {"trials": 3}, Share(threads=4, gpus=0, slots=3)),
        ([{"CPU": 4}, {"CPU": 8}], {"trials_per_device": 2}, Share(threads=2, gpus=0, slots=6)),
        ([{}, {"CPU": 2}], {"trials": 1}, Share(threads=2, gpus=0, slots=1)),
        ([{"memory": 1e9}], {}, Share(threads=1, gpus=0, slots=1)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 64}], {}, Share(threads=4, gpus=1, slots=4)),
        (
            [{"CPU": 16, "GPU": 4}, {"CPU": 8, "GPU": 1}],
            {"trials_per_device": 2},
            Share(threads=2, gpus=0.5, slots=10),
        ),
        ([{"CPU": 2, "GPU": 4}], {"devices": "cpu"}, Share(threads=1, gpus=0, slots=2)),
        ([{"CPU": 2, "GPU": 4}], {}, Share(threads=1, gpus=1, slots=4)),
    ],
)
def test_cluster_is_divided(
    nodes: list[dict[str, float]], options: dict[str, Any], share: Share
) -> None:
    assert plan_share(nodes, cluster_options(**options)) == share


@pytest.mark.parametrize(
    ("options", "words"),
    [({"devices": "0,1"}, "Ray chooses them"), ({"trials_per_device": 0}, "at least 1")],
)
def test_shares_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        plan_share([{"CPU": 4}], cluster_options(**options))


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"pip install 'intentbench\[ray\]'"), connected("auto"):
        pass


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


@dataclass
class Local:
    """Trials that the local executor has run, with the jobs that describe them."""

    jobs: dict[str, Job]
    out: Path

    def order(self, label: str, **more: Any) -> Order:
        job = self.jobs[label]
        given: dict[str, Any] = {
            "number": 7,
            "job": job,
            "code": trial_code(job.trial),
            "threads": 1,
            "gpu": False,
            "timeout": None,
            "memory": None,
            "cwd": Path.cwd(),
            "token": self.out,
            "data": pack_folder(job.prepared),
            "plugin": PLUGIN.read_bytes(),
        }
        return Order(**{**given, **more})


@pytest.fixture(scope="module")
def local(make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> Local:
    out = tmp_path_factory.mktemp("local")
    spec = make_spec({**TOYS, **BASED}, seeds=[0])
    options = RunOptions(out=out, devices="cpu", trials_per_device=2)
    jobs = [planned.job for planned in plan_grid(spec, options)]
    assert run_grid(spec, options, Console(file=io.StringIO())).failed == []
    return Local({job.trial.label: job for job in jobs}, out)


def elsewhere(order: Order) -> Order:
    """The order as it looks on a machine that shares no disk with the runner."""
    trial = order.job.trial
    if trial.plugin:
        trial = replace(trial, plugin=str(NOWHERE / PLUGIN.name))
    job = replace(order.job, trial=trial, prepared=NOWHERE / order.job.prepared.name)
    return replace(order, job=job, token=NOWHERE / "token")


def same_ranks(folder: Path, other: Path) -> bool:
    ours, theirs = load_ranks(folder), load_ranks(other)
    return all(np.array_equal(ours[name], theirs[name]) for name in ("user", "key", "rank"))


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


def test_record_is_written_last(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(ray_executor, "unpack_files", lambda files, _: written.extend(list(files)))
    files: Files = {name: np.zeros(1, np.uint8) for name in (RESULT, LOG, CONFIG, "a", "z")}
    job = replace(local.jobs["toy"], folder=tmp_path)
    ray_executor._store(job, Delivery(job.blank, None, files))
    assert written == ["a", "z", RESULT]


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
    result = run_grid(make_spec(models, **more), options, Console(file=text, width=200))
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
    records, _ = run(make_spec, tmp_path, cluster.address, {**TOYS, **BASED}, seeds=[0])
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
    result = run_grid(spec, options, Console(file=text, width=200))
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
    result = run_grid(make_spec({"counts": {}, "toy": {}}), options, Console(file=text))
    assert len(result.failed) == 3
    for _, record in result.trials:
        assert "GPU" in record.reason or "gpu" in record.reason, record.reason
    logs = [log.read_text() for log in tmp_path.rglob(LOG)]
    assert all("device='0', threads=1" in log or "device='1', threads=1" in log for log in logs)
    assert len(logs) == 3


def test_clusters_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(RequestError, match=r"--address auto: .*instance\.; start a cluster"),
        connected("auto"),
    ):
        pass


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
