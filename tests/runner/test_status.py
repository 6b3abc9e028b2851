"""`read_status` beside a grid that runs, is killed, and goes on."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from intentbench.results.status import read_status
from tests.runner.conftest import PLUGIN, write_spec

RUN = """
import sys
from pathlib import Path
from rich.console import Console
from intentbench.runner.grid import RunOptions, run_grid
from intentbench.spec import load_spec
spec, plugin, out = map(Path, sys.argv[1:])
run_grid(load_spec(spec, plugin=plugin), RunOptions(out=out, devices="cpu"), Console())
"""


def start(spec: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, str(spec), str(PLUGIN), str(out)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def test_status_follows_a_grid_that_runs_is_killed_and_goes_on(tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path, {"toy": {"fault": "slow"}}, seeds=[0, 1, 2], training={"max_epochs": 4}
    )
    out = tmp_path / "runs"
    out.mkdir()
    process = start(spec, out)
    try:
        while True:
            assert process.poll() is None
            running = [trial for trial in read_status(out) if trial.state == "running"]
            told = [t.progress for t in running if t.progress is not None and t.progress.epoch]
            if told:
                break
            time.sleep(0.05)
        assert told[0].pid != process.pid
        assert 1 <= told[0].epoch <= told[0].max_epochs == 4
        assert told[0].best is not None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    while any(trial.state == "running" for trial in read_status(out)):
        time.sleep(0.05)  # the workers die with their group, but not at once
    left = Counter(trial.state for trial in read_status(out))
    assert left["interrupted"] >= 1
    assert start(spec, out).wait() == 0
    ended = read_status(out)
    assert sorted((trial.seed, trial.state) for trial in ended) == [
        (0, "done"),
        (1, "done"),
        (2, "done"),
    ]
