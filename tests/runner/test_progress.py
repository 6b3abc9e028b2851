import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from datamodules.console import plain_console
from intentbench.results.progress import TrialProgress, write_progress
from intentbench.results.record import TrialRecord
from intentbench.runner import progress as module
from intentbench.runner.progress import HEARTBEAT, REFRESH, Progress


@dataclass
class FakeJob:
    trial: Any
    folder: Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands in for the module `time`; stands still until it is told otherwise."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., FakeJob]:
    def make(seed: int = 4, dataset: str = "tiny", label: str = "toy") -> FakeJob:
        folder = tmp_path / str(seed)
        folder.mkdir()
        return FakeJob(SimpleNamespace(dataset=dataset, label=label, seed=seed), folder)

    return make


@pytest.fixture
def job(make_job: Callable[..., FakeJob]) -> FakeJob:
    return make_job()


def tell(job: FakeJob, **more: Any) -> None:
    """What the trial's process would write."""
    state: dict[str, Any] = {
        "phase": "training",
        "epoch": 2,
        "max_epochs": 9,
        "metric": "ndcg@10",
        "value": 0.0625,
        "best": 0.125,
        "seconds_per_epoch": 10.0,
        "fewest_left": 3,
        "most_left": 7,
        "began": 980.0,
        "updated": 1000.0,
    }
    write_progress(job.folder, TrialProgress(**{**state, **more}))


def make_record(**more: Any) -> TrialRecord:
    given = {"status": "done", "metrics": {"ndcg@10": 0.25}, "training": {"monitor": "ndcg@10"}}
    return TrialRecord(
        trial="a", dataset="tiny", data_fingerprint="", label="toy", method="toy", seed=4,
        **{**given, **more},
    )  # fmt: skip


def terminal(width: int = 80) -> Console:
    return plain_console(file=Terminal(), width=width, height=40, _environ={"TERM": "xterm"})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_log_gets_a_line_for_each_event(job: FakeJob) -> None:
    text = io.StringIO()
    with Progress(plain_console(file=text), total=3, slots=1) as progress:
        progress.started(job, 0)
        progress.tick()
        progress.finished(job, 0, make_record())
        progress.started(job, 0)
        progress.finished(job, 0, None)
        progress.started(job, 0)
        progress.finished(job, 0, make_record(status="failed", reason="ValueError: x" * 20))
    lines = text.getvalue().splitlines()
    assert len(lines) == 6  # long lines are not folded
    assert lines[0] == "start  tiny toy seed 4"
    assert lines[1] == "done   tiny toy seed 4 in 0.0 s, ndcg@10 0.2500 [1/3, about 0s left]"
    assert lines[3].startswith("later  tiny toy seed 4")
    assert lines[5].startswith(
        "FAILED tiny toy seed 4 after 0.0 s [2/3, 1 failed, about 0s left]: "
    )
    assert lines[5].endswith("ValueError: x")


def test_a_log_has_names_as_they_are(job: FakeJob) -> None:
    text, job.trial.label = io.StringIO(), "p:ok:[red]q[/x]"
    with Progress(plain_console(file=text), total=1, slots=1) as progress:
        progress.started(job, 0)
    assert text.getvalue() == "start  tiny p:ok:[red]q[/x] seed 4\n"


def test_a_monitored_metric_that_is_not_published_is_left_out(job: FakeJob) -> None:
    text = io.StringIO()
    record = make_record(training={"monitor": "recall@20"})
    with Progress(plain_console(file=text), total=1, slots=1) as progress:
        progress.started(job, 0)
        progress.finished(job, 0, record)
    assert "done   tiny toy seed 4 in 0.0 s [1/1, all done]" in text.getvalue()


def test_log_hears_of_running_trials_once_a_heartbeat(
    make_job: Callable[..., FakeJob], clock: Clock
) -> None:
    text, jobs = io.StringIO(), [make_job(0), make_job(1)]
    with Progress(plain_console(file=text), total=3, slots=2) as progress:
        for slot, job in enumerate(jobs):
            progress.started(job, slot)
        tell(jobs[0])
        for _ in range(int(3.5 * HEARTBEAT)):
            clock.now += 1
            progress.tick()
    lines = [line for line in text.getvalue().splitlines() if line.startswith("at ")]
    assert len(lines) == 2 * 3
    assert lines[0] == (
        "at     tiny toy seed 0, slot 0 for 1m: epoch 2/9, ndcg@10 0.0625 (best 0.1250), "
        "10 s an epoch, 0s-10s left [0/3, at most 45s left]"
    )
    assert lines[1].startswith("at     tiny toy seed 1, slot 1 for 1m: starting [0/3, ")


def test_a_file_is_no_terminal_even_where_colour_is_forced(
    job: FakeJob, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = plain_console(file=io.StringIO())
    assert console.is_terminal
    with Progress(console, total=1, slots=1) as progress:
        progress.started(job, 0)
        for _ in range(20):
            clock.now += 1
            progress.tick()
        progress.finished(job, 0, make_record())
    assert "\x1b[" not in written(console).replace("\x1b[0m", "")
    assert len(written(console).splitlines()) == 2


def test_terminal_gets_a_table_of_slots(job: FakeJob, clock: Clock) -> None:
    console = terminal()
    tell(job, updated=997.0)
    with Progress(console, total=3, slots=1) as progress:
        progress.started(job, 0)
        clock.now += 1
        progress.tick()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written(console)).splitlines()
    headings = next(line for line in lines if line.startswith("slot"))
    assert headings.split() == [
        "slot",
        "dataset",
        "row",
        "seed",
        "epoch",
        "ndcg@10",
        "best",
        "s/epoch",
        "left",
    ]
    row = next(line for line in lines if "toy" in line)
    assert row.split() == ["0", "tiny", "toy", "4", "2/9", "0.0625", "0.1250", "10", "26s-1m"]
    assert "start" not in written(console)


def test_terminal_shows_failures_and_survives_half_a_file(job: FakeJob, clock: Clock) -> None:
    console = terminal()
    with Progress(console, total=3, slots=1) as progress:
        progress.started(job, 0)
        progress.finished(job, 0, make_record(status="failed", reason="ValueError: " + "x" * 99))
        progress.started(job, 0)
        (job.folder / "progress.json").write_text("{")
        clock.now += 1
        progress.tick()
    assert "1/3, 1 failed" in written(console)
    assert "last failure: tiny toy seed 4: ValueError: xx" in written(console)
    assert "starting" in written(console)


@pytest.mark.parametrize("width", [80, 72])
def test_long_names_are_cut_and_numbers_are_not(
    make_job: Callable[..., FakeJob], clock: Clock, width: int
) -> None:
    console = terminal(width)
    job = make_job(3, "a-dataset-with-a-very-long-name", "a_row_with_a_very_long_name_indeed")
    tell(job, epoch=1234, max_epochs=2000, most_left=7654, seconds_per_epoch=123.4)
    with Progress(console, total=999, slots=16) as progress:
        for slot in range(16):
            progress.started(job, slot)
        clock.now += 1
        progress.tick()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written(console))
    rows = [line for line in text.splitlines() if "0.1250" in line]
    assert len(rows) == 2 * 16  # drawn again when it ends, then removed
    for row in rows:
        assert len(row) <= width
        assert row.count("…") == 2
        assert row.split()[3:] == ["3", "1234/2000", "0.0625", "0.1250", "123", "6m-10d22h"]


def test_terminal_is_drawn_at_most_four_times_a_second(job: FakeJob, clock: Clock) -> None:
    console = terminal()
    with Progress(console, total=1, slots=1) as progress:
        progress.started(job, 0)
        for _ in range(100):
            clock.now += 0.1  # ten seconds
            progress.tick()
    pictures = written(console).count("dataset")
    assert 10 / REFRESH * 0.8 <= pictures <= 10 / REFRESH


def test_time_left_of_the_grid(make_job: Callable[..., FakeJob], clock: Clock) -> None:
    text, jobs = io.StringIO(), [make_job(seed) for seed in range(3)]

    def last() -> str:
        return text.getvalue().splitlines()[-1].split("[")[1].split("]")[0]

    progress = Progress(plain_console(file=text), total=9, slots=2)
    progress.started(jobs[0], 0)
    progress.started(jobs[1], 1)
    clock.now += 100
    progress.finished(jobs[0], 0, make_record(status="failed", reason="x"))
    assert last() == "1/9, 1 failed, time left unknown"
    progress.started(jobs[0], 0)
    tell(jobs[1], updated=clock.now, seconds_per_epoch=60.0)
    clock.now += 60
    progress.finished(jobs[0], 0, make_record(status="failed", reason="x"))
    # The one that runs takes 360 s more at most, and six to come 160 s + 360 s each, in two slots.
    assert last() == f"2/9, 2 failed, at most {(360 + 6 * 520) // 2 // 60}m left"
    progress.finished(jobs[1], 1, make_record())
    assert last() == f"3/9, 2 failed, about {6 * 160 // 2 // 60}m left"
