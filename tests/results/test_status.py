import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from datamodules.errors import RequestError
from intentbench.results.lock import LOCK, is_locked
from intentbench.results.progress import TrialProgress, write_progress
from intentbench.results.record import TrialRecord
from intentbench.results.status import TrialStatus, read_status
from intentbench.results.store import CONFIG, RESULT, trial_folder, write_record

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def begin(root: Path, label: str, seed: int) -> Path:
    """A trial's folder as it is while the trial runs, but for the lock."""
    folder = trial_folder(root, "tiny", label, f"{seed:016x}")
    folder.mkdir(parents=True)
    (folder / LOCK).touch()
    (folder / CONFIG).write_text(yaml.safe_dump({"seed_everything": seed}))
    return folder


def record(folder: Path, label: str, seed: int, **more: str) -> None:
    made = TrialRecord(
        trial=folder.name,
        dataset="tiny",
        data_fingerprint="",
        label=label,
        method=label,
        seed=seed,
        **{"status": "done", **more},  # type: ignore[arg-type]  # strings all
    )
    write_record(folder, made)


def states(root: Path) -> dict[tuple[str, int | None], str]:
    return {(trial.label, trial.seed): trial.state for trial in read_status(root)}


def test_every_state_is_told_from_the_folders(tmp_path: Path) -> None:
    record(begin(tmp_path, "a", 0), "a", 0)
    record(begin(tmp_path, "a", 1), "a", 1, status="failed", reason="ValueError: no")
    running = begin(tmp_path, "b", 0)
    write_progress(running, TrialProgress(epoch=3))
    begin(tmp_path, "b", 1)
    damaged = begin(tmp_path, "c", 2)
    (damaged / RESULT).write_text("{")
    with FileLock(running / LOCK):
        found = read_status(tmp_path)
    by_state = {trial.state: trial for trial in found}
    assert [(trial.label, trial.seed, trial.state) for trial in found] == [
        ("a", 0, "done"),
        ("a", 1, "failed"),
        ("b", 0, "running"),
        ("b", 1, "interrupted"),
        ("c", 2, "damaged"),
    ]
    assert {trial.dataset for trial in found} == {"tiny"}
    assert by_state["failed"].reason == "ValueError: no"
    assert str(damaged / RESULT) in by_state["damaged"].reason
    assert by_state["running"].progress is not None
    assert by_state["running"].progress.epoch == 3
    assert by_state["interrupted"].progress is None
    assert states(tmp_path)["b", 0] == "interrupted"  # once its lock is free


def test_a_trial_that_runs_again_is_running_whatever_it_left(tmp_path: Path) -> None:
    folder = begin(tmp_path, "a", 0)
    record(folder, "a", 0, status="failed", reason="x")
    with FileLock(folder / LOCK):
        assert states(tmp_path) == {("a", 0): "running"}
        (folder / RESULT).write_text("{")
        assert states(tmp_path) == {("a", 0): "running"}


def test_imported_trials_have_a_record_alone(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, "tiny", "other", "0123456789abcdef")
    record(folder, "other", 7)
    assert states(tmp_path) == {("other", 7): "done"}
    assert read_status(folder) == read_status(tmp_path) == read_status(tmp_path / "tiny")


def test_what_lies_inside_a_trial_is_no_other_trial(tmp_path: Path) -> None:
    folder = begin(tmp_path, "a", 0)
    record(folder, "a", 0)
    inside = folder / "noise" / "swap-0.1"
    inside.mkdir(parents=True)
    (inside / CONFIG).touch()
    assert len(read_status(tmp_path)) == 1


def test_a_free_lock_alone_is_no_trial_and_reading_changes_nothing(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, "tiny", "a", "0123456789abcdef")
    folder.mkdir(parents=True)
    assert not is_locked(folder)
    assert list(folder.iterdir()) == []
    (folder / LOCK).touch()
    assert read_status(tmp_path) == []
    with FileLock(folder / LOCK):  # a trial that has only just begun
        (begun,) = read_status(tmp_path)
        assert begun == TrialStatus(folder, "tiny", "a", None, "running")
        assert is_locked(folder)
        assert is_locked(folder)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", HOLD, str(tmp_path / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_locked(tmp_path)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert not is_locked(tmp_path)


def test_no_folder_is_refused_and_an_empty_one_is_empty(tmp_path: Path) -> None:
    assert read_status(tmp_path) == []
    with pytest.raises(RequestError, match="no such folder"):
        read_status(tmp_path / "none")
