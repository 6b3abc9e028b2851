import json
from pathlib import Path

import pytest

from intentbench.results.progress import PROGRESS, TrialProgress, read_progress, write_progress

HALFWAY = TrialProgress(
    phase="training",
    epoch=5,
    max_epochs=20,
    fewest_left=3,
    most_left=15,
    metric="ndcg@10",
    value=0.1,
    best=0.2,
    seconds_per_epoch=60.0,
    began=1000.0,
    updated=1300.0,
)


def test_what_is_written_is_read_and_nothing_else_stays(tmp_path: Path) -> None:
    write_progress(tmp_path, HALFWAY)
    assert read_progress(tmp_path) == HALFWAY
    assert [path.name for path in tmp_path.iterdir()] == [PROGRESS]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}x", json.dumps({"epoch": 1, "stage": 2}), '{"epoch": 1}']
)
def test_a_file_of_another_form_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / PROGRESS).write_text(content)
    assert read_progress(tmp_path) is None


def test_a_disk_that_takes_nothing_stops_no_trial(tmp_path: Path) -> None:
    write_progress(tmp_path / "gone", HALFWAY)
    assert read_progress(tmp_path / "gone") is None


def test_seconds_left_run_down_between_epochs_and_never_below_zero() -> None:
    assert HALFWAY.seconds_left(1300.0) == (180.0, 900.0)
    assert HALFWAY.seconds_left(1330.0) == (150.0, 870.0)
    assert HALFWAY.seconds_left(9999.0) == (0.0, 0.0)
    assert HALFWAY.seconds_left(0.0) == (180.0, 900.0)  # the clock was set back
    assert HALFWAY.describe(1300.0) == (
        "epoch 5/20, ndcg@10 0.1000 (best 0.2000), 60 s an epoch, 3m-15m left"
    )
    assert HALFWAY.describe() == "epoch 5/20, ndcg@10 0.1000 (best 0.2000)"


def test_outside_of_training_the_phase_is_told() -> None:
    assert TrialProgress().seconds_left(0.0) is None
    assert TrialProgress().describe(0.0) == "starting"
    begun = TrialProgress(phase="training", max_epochs=9)
    assert begun.seconds_left(0.0) is None
    assert begun.describe(0.0) == "training"
    tested = TrialProgress(phase="testing", epoch=9, max_epochs=9)
    assert tested.describe(0.0) == "epoch 9/9, testing"
