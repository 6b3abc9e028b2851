import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from datamodules.errors import RequestError
from intentbench.results.record import TrialRecord
from intentbench.results.store import load_records, trial_folder
from intentbench.runner.executors import plan_slots
from intentbench.runner.grid import RunOptions, run_grid
from intentbench.runner.jobs import Slot, describe_error
from tests.runner.conftest import PLUGIN, MakeSpec, write_spec

RUN = """
import sys
from pathlib import Path
from rich.console import Console
from intentbench.runner.grid import RunOptions, run_grid
from intentbench.spec import load_spec
spec, plugin, out = map(Path, sys.argv[1:])
run_grid(load_spec(spec, plugin=plugin), RunOptions(out=out, devices="cpu"), Console())
"""


def run(make_spec: MakeSpec, out: Path, models: dict[str, Any], **more: Any) -> list[TrialRecord]:
    options = RunOptions(out=out, devices="cpu", trials_per_device=2)
    result = run_grid(make_spec(models, **more), options, Console(file=io.StringIO()))
    failed = [record for _, record in result.trials if record.status == "failed"]
    assert {record.trial for record in failed} == {record.trial for record in result.failed}
    return [record for _, record in result.trials]


def start(spec: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, str(spec), str(PLUGIN), str(out)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def attempts(out: Path) -> list[int]:
    """How often each trial was begun."""
    return [log.read_text().count("--- attempt") for log in out.rglob("log.txt")]


def test_trials_that_fail_leave_the_others_alone(make_spec: MakeSpec, tmp_path: Path) -> None:
    faults = ("raise", "full_disk", "kill", "kill_once")
    models = {fault: {"method": "toy", "fault": fault} for fault in faults}
    records = run(make_spec, tmp_path, {**models, "toy": {}, "counts": {}}, seeds=[0])
    found = {record.label: (record.status, record.reason) for record in records}
    lost = "its process was lost twice (exit code -9); killed, perhaps for want of memory"
    assert found == {
        "raise": ("failed", "ValueError: the loss went wrong"),
        "full_disk": ("failed", "OSError: [Errno 28] No space left on device"),
        "kill": ("failed", lost),
        "kill_once": ("done", ""),
        "toy": ("done", ""),
        "counts": ("done", ""),
    }
    tried = {r.label: attempts(tmp_path / "synthetic-tiny" / r.label) for r in records}
    assert tried == {
        "raise": [1], "full_disk": [1], "kill": [2], "kill_once": [2], "toy": [1], "counts": [1]
    }  # fmt: skip
    raised = next(record for record in records if record.label == "raise")
    folder = trial_folder(tmp_path, raised.dataset, raised.label, raised.trial)
    log = (folder / "log.txt").read_text()
    assert "Traceback" in log
    assert "toy_plugin.py" in log
    assert [record for _, record in load_records(tmp_path) if record.label == "raise"] == [raised]


def test_trial_that_hangs_is_stopped_at_its_limit(make_spec: MakeSpec, tmp_path: Path) -> None:
    models = {"hang": {"method": "toy", "fault": "hang"}, "counts": {}}
    hang, counts = run(make_spec, tmp_path, models, seeds=[0], timeout=6)
    assert (hang.status, hang.reason) == ("failed", "took longer than 6 s")
    assert counts.status == "done"


def test_failed_trials_are_tried_again_by_the_next_run(make_spec: MakeSpec, tmp_path: Path) -> None:
    models = {"toy": {"fault": "raise"}}
    (first,) = run(make_spec, tmp_path, models, seeds=[0])
    (second,) = run(make_spec, tmp_path, models, seeds=[0])
    assert first.status == second.status == "failed"
    assert first.finished < second.finished
    assert attempts(tmp_path) == [2]


def test_grid_killed_half_way_goes_on_and_repeats_nothing(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    models = {"toy": {"fault": "slow"}}
    seeds = list(range(6))
    out = tmp_path / "runs"
    process = start(write_spec(tmp_path, models, seeds=seeds), out)
    while len(list(out.rglob("result.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert 2 <= len(before) < len(seeds)
    records = run(make_spec, out, models, seeds=seeds)
    assert [(record.seed, record.status) for record in records] == [(s, "done") for s in seeds]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_two_runners_share_a_grid(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"toy": {"fault": "slow"}}, seeds=list(range(6)))
    out = tmp_path / "runs"
    runners = [start(spec, out) for _ in range(2)]
    assert [runner.wait() for runner in runners] == [0, 0]
    assert attempts(out) == [1] * 6
    assert [record.status for _, record in load_records(out)] == ["done"] * 6


def test_cores_are_divided_among_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [slot.threads for slot in plan_slots("cpu", None, 100)] == [1] * 8
    assert [slot.threads for slot in plan_slots("cpu", None, 3)] == [2] * 3
    assert plan_slots("cpu", 1, 100) == [Slot(0, "", 8)]
    assert plan_slots("cpu", None, 0) == [Slot(0, "", 8)]


def test_gpus_are_pinned_by_their_visible_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert plan_slots("auto", None, 9) == [Slot(0, "3", 4), Slot(1, "5", 4)]
    assert [slot.device for slot in plan_slots("1", 2, 9)] == ["5", "5"]
    with pytest.raises(RequestError, match="no device '2' here; allowed: auto, cpu, 0, 1"):
        plan_slots("0,2", None, 9)


def test_no_slots_are_refused() -> None:
    with pytest.raises(RequestError, match="at least 1"):
        plan_slots("cpu", 0, 3)


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("a\nb"), "ValueError: a"), (MemoryError(), "MemoryError")],
)
def test_error_is_told_in_one_line(error: Exception, line: str) -> None:
    assert describe_error(error) == line
