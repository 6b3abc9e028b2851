import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from rich.console import Console

from datamodules.errors import RequestError
from intentbench.results.lock import LOCK, is_locked
from intentbench.results.record import TrialRecord
from intentbench.results.store import (
    load_records,
    read_record,
    save_ranks,
    trial_folder,
    write_record,
)
from intentbench.runner.executors import plan_slots
from intentbench.runner.grid import RunOptions, plan_grid, run_grid
from intentbench.runner.jobs import Slot, record_failure, run_in_slot
from intentbench.runner.worker import Worker, group_memory
from tests.runner.conftest import PLUGIN, MakeSpec, write_spec
from tests.runner.toy_plugin import report_slot


def run(make_spec: MakeSpec, out: Path, models: dict[str, Any], **more: Any) -> list[TrialRecord]:
    options = RunOptions(out=out, devices="cpu", trials_per_device=2)
    result = run_grid(make_spec(models, **more), options, Console(file=io.StringIO()))
    failed = [record for _, record in result.trials if record.status == "failed"]
    assert {record.trial for record in failed} == {record.trial for record in result.failed}
    return [record for _, record in result.trials]


class Start(Protocol):
    def __call__(self, spec: Path, out: Path) -> subprocess.Popen[str]: ...


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the command as at a terminal of its own."""
    started: list[subprocess.Popen[str]] = []
    # Tests that a shell runs in the background ignore Ctrl-C, and what they start would, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(spec: Path, out: Path) -> subprocess.Popen[str]:
        arguments = {
            "--plugin": PLUGIN,
            "--out": out,
            "--leaderboards": out.parent / "boards",
            "--devices": "cpu",
            "--trials-per-device": 3,
        }
        given = [str(part) for pair in arguments.items() for part in pair]
        process = subprocess.Popen(
            [sys.executable, "-m", "intentbench.cli", "run", str(spec), *given],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    signal.signal(signal.SIGINT, before)
    for process in started:
        with process:
            process.kill()  # its workers end with it


def results(out: Path) -> dict[Path, int]:
    """When each record was written."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}


def wait_until(ready: Callable[[], bool]) -> None:
    """Poll, and fail where it never happens."""
    deadline = time.monotonic() + 600
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_more_results(out: Path, count: int) -> None:
    wait_until(lambda: len(results(out)) > count)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state != "Z"


def find_pids(out: Path) -> list[int]:
    """The processes of a trial with the fault "native"."""
    return [int(pid) for path in out.rglob("pids") for pid in path.read_text().split()]


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


def test_trials_past_a_limit_end_with_all_they_started(make_spec: MakeSpec, tmp_path: Path) -> None:
    models = {name: {"method": "toy", "fault": name} for name in ("hang", "native", "leak")}
    limits = {"timeout": 20, "memory": "1.5GiB"}
    records = run(make_spec, tmp_path, models, seeds=[0], **limits)
    found = {record.label: (record.status, record.reason) for record in records}
    leak = found.pop("leak")
    assert found == {
        "hang": ("failed", "took longer than 20 s"),
        "native": ("failed", "took longer than 20 s"),
    }
    assert leak[0] == "failed"
    assert re.fullmatch(r"held \d+ MiB of memory, limit 1536 MiB", leak[1])
    assert attempts(tmp_path) == [1] * 3  # none is retried
    pids = find_pids(tmp_path)
    assert len(pids) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_failed_trials_are_tried_again_by_the_next_run(make_spec: MakeSpec, tmp_path: Path) -> None:
    models = {"toy": {"fault": "raise"}}
    (first,) = run(make_spec, tmp_path, models, seeds=[0])
    (second,) = run(make_spec, tmp_path, models, seeds=[0])
    assert first.status == second.status == "failed"
    assert first.finished < second.finished
    assert attempts(tmp_path) == [2]


def test_grid_killed_half_way_goes_on_and_repeats_nothing(
    make_spec: MakeSpec, start: Start, tmp_path: Path
) -> None:
    slow = {name: {"method": "toy", "fault": "slow"} for name in "abc"}
    models, out = {"native": {"method": "toy", "fault": "native"}, **slow}, tmp_path / "runs"
    process = start(write_spec(tmp_path, models), out)  # two slots hang, one works
    wait_until(lambda: len(results(out)) >= 1 and len(find_pids(out)) == 4)
    process.kill()  # the runner alone
    process.communicate()
    pids = find_pids(out)
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    before = results(out)
    assert 1 <= len(before) < 6
    assert [record.status for record in run(make_spec, out, slow)] == ["done"] * 6
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_interrupted_runs_keep_what_has_finished_and_go_on(start: Start, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"toy": {"fault": "slow"}}, seeds=list(range(8)))
    out = tmp_path / "runs"
    kept = results(out)
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start(spec, out)
        wait_for_more_results(out, len(kept))
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as Ctrl-C does: to all in the foreground
        else:
            process.send_signal(number)
        text = process.communicate()[0]
        assert process.returncode == status, text
        assert "Traceback" not in text
        assert "the same command goes on" in text
        assert results(out).items() >= kept.items()
        kept = results(out)
        wait_until(lambda: not any(is_locked(path.parent) for path in out.rglob("config.yaml")))
        assert results(out) == kept
    assert len(kept) < 8
    process = start(spec, out)
    assert "all done" in process.communicate()[0]
    assert process.returncode == 0
    assert results(out).items() >= kept.items()
    assert [record.status for _, record in load_records(out / "synthetic-tiny" / "toy")] == [
        "done"
    ] * 8


def test_two_runners_share_a_grid(start: Start, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"toy": {"fault": "slow"}}, seeds=list(range(6)))
    out = tmp_path / "runs"
    runners = [start(spec, out) for _ in range(2)]
    texts = [runner.communicate()[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], texts
    assert attempts(out) == [1] * 6
    records = [record for _, record in load_records(out) if record.label == "toy"]
    assert [record.status for record in records] == ["done"] * 6


def test_lock_that_a_killed_runner_left_blocks_nothing(make_spec: MakeSpec, tmp_path: Path) -> None:
    (planned,) = plan_grid(make_spec({"counts": {}}), RunOptions(out=tmp_path))
    planned.job.folder.mkdir(parents=True)
    (planned.job.folder / LOCK).write_text("4711")
    (record,) = run(make_spec, tmp_path, {"counts": {}})
    assert record.status == "done"


def test_trial_that_recorded_itself_before_it_was_lost_stands(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    (planned,) = plan_grid(make_spec({"counts": {}}), RunOptions(out=tmp_path))
    job = planned.job
    done = replace(job.blank, status="done", finished="2026-01-02")
    write_record(job.folder, done)
    assert record_failure(job, "lost") == done
    again = replace(job, replaces="2026-01-02")
    failed = record_failure(again, "\x1blost\x07")
    assert (failed.status, failed.reason) == ("failed", " lost ")
    assert read_record(job.folder) == failed


def test_workers_are_bound_to_their_slots(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa, GPU-bb")
    (planned,) = plan_grid(make_spec({"counts": {}}), RunOptions(out=tmp_path))
    planned.job.folder.mkdir(parents=True)
    slots = plan_slots("auto", 2, 9)
    workers = [Worker(planned.job, slot, report_slot) for slot in slots]
    wait_until(lambda: sum(worker.ended() for worker in workers) == 4)
    assert [worker.answer for worker in workers] == [
        {"CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": "2", "torch": 2, "blas": [2]}
        for device in ("GPU-aa", "GPU-bb", "GPU-aa", "GPU-bb")
    ]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aa, GPU-bb"


def test_memory_of_a_group_is_what_its_processes_hold() -> None:
    code = "import time; held = b'x' * 2**27; print(flush=True); time.sleep(600)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 2**10
        assert group_memory()[process.pid] == pytest.approx(resident, rel=0.02)
        assert resident > 2**27
        process.kill()


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 2**32), ("512MiB", 2**29), ("1.5 GiB", 3 * 2**29), (None, None)]
)
def test_memory_limit_is_a_size(text: str | None, size: int | None, make_spec: MakeSpec) -> None:
    assert make_spec({"counts": {}}, memory=text).memory == size


@pytest.mark.parametrize("text", ["4", 4, "4GB", "0GiB", "-1GiB", "much", True])
def test_what_is_no_size_is_refused(text: object, make_spec: MakeSpec) -> None:
    with pytest.raises(RequestError, match="memory: expected a size such as 4GiB"):
        make_spec({"counts": {}}, memory=text)


def test_cores_are_divided_among_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    assert [slot.threads for slot in plan_slots("cpu", None, 100)] == [1] * 8
    assert [slot.threads for slot in plan_slots("cpu", None, 3)] == [2] * 3
    assert plan_slots("cpu", 1, 100) == [Slot(0, "", 8)]
    assert [slot.threads for slot in plan_slots("cpu", None, 100, processes=2)] == [2] * 4
    assert plan_slots("cpu", None, 0) == [Slot(0, "", 8)]


def test_gpus_are_pinned_by_their_visible_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert plan_slots("auto", None, 9) == [Slot(0, "3", 4), Slot(1, "5", 4)]
    assert [slot.device for slot in plan_slots("1", 2, 9)] == ["5", "5"]
    assert [slot.device for slot in plan_slots("auto", 2, 9)] == ["3", "5", "3", "5"]
    assert [slot.device for slot in plan_slots("auto", 2, 3)] == ["3", "5", "3"]
    assert [slot.device for slot in plan_slots("cpu", 2, 9)] == ["", ""]
    with pytest.raises(RequestError, match="no device '2' here; allowed: auto, cpu, 0, 1"):
        plan_slots("0,2", None, 9)
    with pytest.raises(RequestError, match="1 is named twice"):
        plan_slots("1,1", None, 9)
    assert [slot.device for slot in plan_slots("auto", 2, 9, processes=2)] == ["3,5", "3,5"]
    with pytest.raises(RequestError, match="3 processes need as many GPUs, there are 2"):
        plan_slots("auto", None, 9, processes=3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [slot.device for slot in plan_slots("auto", None, 9)] == ["0", "1"]


def test_no_slots_are_refused() -> None:
    with pytest.raises(RequestError, match="at least 1"):
        plan_slots("cpu", 0, 3)


def test_trial_that_was_done_and_runs_again_is_missing_if_cut_short(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (planned,) = plan_grid(make_spec({"counts": {}}), RunOptions(out=tmp_path))
    job = replace(planned.job, replaces="2026-01-02")
    write_record(job.folder, replace(job.blank, status="done", finished="2026-01-02"))
    targets = np.array([0]), np.array([0])
    save_ranks(job.folder, *targets, np.array([3]))

    def stopped(*_: object) -> None:
        save_ranks(job.folder, *targets, np.array([7]))
        raise KeyboardInterrupt

    monkeypatch.setattr("intentbench.runner.jobs.enter_slot", lambda *_: None)
    monkeypatch.setattr("intentbench.runner.jobs.run_trial", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_in_slot(job, Slot(0, "", 1))
    assert read_record(job.folder) is None
