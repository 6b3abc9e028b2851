"""`intentbench status` on folders as runs leave them; tests/runner has it beside a running grid."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from intentbench.cli import main
from intentbench.results.lock import LOCK
from intentbench.results.progress import TrialProgress, write_progress
from intentbench.results.store import RESULT
from tests.results.test_status import begin, record


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two done, one failed, one that was cut short in its third epoch, one damaged."""
    for seed in range(2):
        record(begin(tmp_path, "sasrec", seed), "sasrec", seed)
    record(begin(tmp_path, "sasrec", 2), "sasrec", 2, status="failed", reason="OSError: disk full")
    cut = begin(tmp_path, "a_longer_row", 3)
    state = TrialProgress("training", 3, 9, 2, 6, "ndcg@10", 0.1, 0.2, 60.0, 12, "here")
    write_progress(cut, state)
    (begin(tmp_path, "sasrec", 4) / RESULT).write_text("{")
    return tmp_path


def test_rows_and_troubles_are_printed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        f"{runs}: 5 trials: 2 done, 1 failed, 1 interrupted, 1 damaged",
        "",
        "dataset  row           done  failed  interrupted  damaged",
        "tiny     a_longer_row                          1",
        "tiny     sasrec           2       1                     1",
    ]
    assert "  tiny sasrec seed 2: OSError: disk full" in lines
    assert "  tiny a_longer_row seed 3: epoch 3/9, ndcg@10 0.1000 (best 0.2000)" in lines
    (damaged,) = (line for line in lines if line.startswith("  tiny sasrec seed 4: "))
    assert RESULT in damaged
    assert "no trial record" in damaged
    assert any("sets them aside" in line for line in lines)


def test_a_running_trial_says_how_far_it_is(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = next((runs / "tiny" / "a_longer_row").iterdir())
    with FileLock(folder / LOCK):
        assert main(["status", str(runs / "tiny" / "a_longer_row")]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("  tiny a_longer_row seed 3: epoch 3/9, ndcg@10 0.1000 (best 0.2000), ")
    assert "60 s an epoch, 2m-6m left" in line
    assert line.endswith(", pid 12 on here")


def test_json_says_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counts = {"done": 2, "failed": 1, "running": 0, "interrupted": 1, "damaged": 1}
    assert found["totals"] == {"trials": 5, **counts}
    assert [row["row"] for row in found["rows"]] == ["a_longer_row", "sasrec"]
    assert found["rows"][1]["done"] == 2
    (failed,) = found["failed"]
    assert (failed["row"], failed["seed"]) == ("sasrec", 2)
    assert failed["reason"] == "OSError: disk full"
    (cut,) = found["interrupted"]
    assert (cut["epoch"], cut["best"], cut["pid"]) == (3, 0.2, 12)
    assert "seconds_left" not in cut
    assert found["running"] == []

    folder = Path(cut["folder"])
    with FileLock(folder / LOCK):
        assert main(["status", str(runs), "--json"]) == 0
    (running,) = json.loads(capsys.readouterr().out)["running"]
    least, most = running["seconds_left"]
    assert 0 < least <= 120 < most <= 360
    assert running["began"].startswith(time.strftime("%Y-", time.gmtime()))


def test_an_empty_folder_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 0 trials\n"


def test_no_folder_and_published_ranks_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(tmp_path / "none")]) == 2
    assert "none: no such folder of runs" in capsys.readouterr().err
    (tmp_path / "board.json").write_text("{}")
    assert main(["status", str(tmp_path)]) == 2
    assert "intentbench import" in capsys.readouterr().err


def test_no_torch_is_loaded(runs: Path) -> None:
    code = (
        "import sys; from intentbench.cli import main; status = main(sys.argv[1:]);"
        "sys.exit(status or bool({'torch', 'lightning', 'polars'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "status", str(runs)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
