"""`intentbench tune`, from the request to the file of values."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from intentbench.cli import main
from intentbench.runner.spaces import Range
from intentbench.runner.tuned import Budget, Tuned
from intentbench.runner.tuning import Search, Way
from intentbench.spec import load_spec
from tests.runner.conftest import PLUGIN, write_spec

optuna = pytest.importorskip("optuna", reason="the extra `tune` is not installed")

from intentbench.runner.studies import INTERRUPTED, Searcher  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")

SPEC = {
    "name": "small",
    "datasets": ["synthetic-tiny"],
    "models": {"popularity": {}, "markov": {}},
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return path


def tune(small: Path, *more: str) -> int:
    out = small.parent / "tuning"
    return main(["tune", str(small), "--trials", "5", "--out", str(out), *more])


def test_the_command_searches_writes_and_does_nothing_twice(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(small, "--write", "--trials-per-device", "2", "--devices", "cpu") == 0
    text = capsys.readouterr().out
    assert "popularity: nothing to tune" in text
    assert "markov: grid over epsilon; 0 of 5 trials done" in text
    assert len(re.findall(r"markov \d/5: ndcg@10 0\.\d{4} in", text)) == 5
    written = small.parent / "models" / "markov.tuned.yaml"
    assert f"wrote {written}" in text
    first = written.read_bytes()
    spec = load_spec(small)
    tuned = spec.entrants[1].tuned["synthetic-tiny"]
    assert spec.entrants[1].arguments_on("synthetic-tiny")["epsilon"] == tuned.arguments["epsilon"]
    assert tuned.budget.before is not None
    assert tuned.budget.value >= tuned.budget.before
    assert (tuned.budget.trials, tuned.budget.pruned, tuned.budget.failed) == (5, 0, 0)
    assert spec.stated.tuning["synthetic-tiny"]["popularity"] == {"instead": "nothing to tune"}
    assert tune(small, "--write", "--models", "markov") == 0
    text = capsys.readouterr().out
    assert "5 of 5 trials done" in text
    assert "markov 1/5" not in text
    assert written.read_bytes() == first


def test_a_row_waits_for_a_base_that_was_given_new_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.yaml"
    models = {"igr_sr": {"pretrained": "sasrec"}, "sasrec": {}}
    small.write_text(yaml.safe_dump({**SPEC, "models": models, "data": {"window": 8}}))
    asked = []

    def find(search: Search, way: Way) -> Tuned:
        asked.append((search.entrant.label, search.present["dropout"]))
        budget = Budget("", "TPE", 0, 5, 0, 0, 1.0, "ndcg@10", 0.2, 0.1, "", "")
        return Tuned({**search.start, "dropout": 0.3}, budget)

    monkeypatch.setattr("intentbench.commands.tune._run", find)
    assert tune(small, "--write") == 1
    text = capsys.readouterr().out
    assert "igr_sr: its base 'sasrec' has new values: run the base first" in text
    assert tune(small, "--write") == 1  # the base keeps its values now, but was never trained
    assert "igr_sr: starts from 'sasrec', which has not been trained" in capsys.readouterr().out
    assert asked == [("sasrec", 0.5), ("sasrec", 0.3)]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--storage", "sqlite://"], "is in memory, name a file"),
        (["--models", "markof"], "--models: 'markof' is not in this benchmark"),
        (["--datasets", "beauty"], "--datasets: 'beauty' is not in this benchmark"),
        (["--set", "training.monitor=accuracy"], "unknown metric 'accuracy'"),
        (["--devices", "7"], "no device '7'"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    small: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(small, *more) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_a_missing_extra_is_named(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("intentbench.commands.tune.find_spec", lambda _: None)
    assert tune(small) == 2
    assert "pip install 'intentbench[tune]'" in capsys.readouterr().err


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Any]:
    """Starts `intentbench tune`; what still runs in the end is killed."""
    board = tmp_path
    (board / "models").mkdir()
    (board / "models" / "toy.yaml").write_text("search: {width: {low: 2, high: 40}}")
    path = write_spec(board, {"toy": {"fault": "slow"}})
    arguments = ["tune", path, "--plugin", PLUGIN, "--trials", "6", "--out", board / "tuning"]
    line = [sys.executable, "-m", "intentbench.cli", *map(str, arguments)]
    start = partial(subprocess.Popen, [*line, "--trials-per-device", "2"], cwd=board, text=True)
    started: list[subprocess.Popen[str]] = []

    def run() -> subprocess.Popen[str]:
        started.append(start(stdout=subprocess.PIPE, bufsize=1))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_stood(command: Any, tmp_path: Path) -> None:
    journal = tmp_path / "tuning" / "toys.journal"
    first = command()
    ended = []
    for line in first.stdout:
        if re.search(r"toy \d/6", line):
            ended.append(line)
        if len(ended) == 2:
            break
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(1)
    again = command()
    text = again.communicate()[0]
    assert again.returncode == 0
    (done,) = re.findall(r"(\d) of 6 trials done", text)
    assert int(done) >= 2
    assert len(re.findall(r"toy \d/6", text)) == 6 - int(done)
    (study,) = {*re.findall(r"toys\.synthetic-tiny\.toy\.\w+", journal.read_text())}
    searcher = Searcher(str(journal), study, {"width": Range(2, 40)}, {"width": 8}, 6, 0)
    trials = searcher.study.trials
    cut_short = [trial for trial in trials if trial.user_attrs.get("reason") == INTERRUPTED]
    assert searcher.tally().counted == 6
    for trial in cut_short:  # each was made up for, where its point had been drawn
        assert not trial.params or any(
            t.params == trial.params and t.state.name == "COMPLETE" for t in trials
        )
