import io
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from intentbench.results.record import TrialRecord
from intentbench.runner.progress import Progress


@dataclass
class FakeJob:
    trial: Any
    folder: Path


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    return FakeJob(SimpleNamespace(dataset="tiny", label="toy", seed=4), tmp_path)


def make_record(**more: Any) -> TrialRecord:
    given = {"status": "done", "metrics": {"ndcg@10": 0.25}, "training": {"monitor": "ndcg@10"}}
    return TrialRecord(
        trial="a", dataset="tiny", data_fingerprint="", label="toy", method="toy", seed=4,
        **{**given, **more},
    )  # fmt: skip


def test_log_gets_a_line_for_each_event(job: FakeJob) -> None:
    text = io.StringIO()
    with Progress(Console(file=text), total=3, slots=1) as progress:
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
    assert lines[1].startswith(
        "done   tiny toy seed 4 in 0.0 s, ndcg@10 0.2500 [1/3, about 0:00:00"
    )
    assert lines[3].startswith("later  tiny toy seed 4")
    assert lines[5].startswith("FAILED tiny toy seed 4 after 0.0 s [2/3]: ValueError: x")


def test_a_monitored_metric_that_is_not_published_is_left_out(job: FakeJob) -> None:
    text = io.StringIO()
    record = make_record(training={"monitor": "recall@20"})
    with Progress(Console(file=text), total=1, slots=1) as progress:
        progress.started(job, 0)
        progress.finished(job, 0, record)
    assert "done   tiny toy seed 4 in 0.0 s [1/1, all done]" in text.getvalue()


def test_terminal_gets_a_table_of_slots(job: FakeJob) -> None:
    text = io.StringIO()
    state = {"epoch": 2, "max_epochs": 9, "metric": "ndcg@10", "best": 0.125}
    (job.folder / "progress.json").write_text(json.dumps(state))
    console = Console(file=text, force_terminal=True, width=100)
    with Progress(console, total=3, slots=1) as progress:
        progress.started(job, 0)
        progress.tick()
        assert "2/9" in text.getvalue()
        assert "ndcg@10 0.1250" in text.getvalue()
        (job.folder / "progress.json").write_text("{")
        progress.tick()
