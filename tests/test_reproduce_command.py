"""`intentbench run --reproduce`: from a published cell to the same ranks, or to what differs."""

import io
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from intentbench.cli import main
from intentbench.metrics.formulas import compute_metric

CELL = "small/synthetic-tiny/markov/0"


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    spec = {"name": "small", "datasets": ["synthetic-tiny"], "models": {"markov": {}}}
    (folder / "small.yaml").write_text(yaml.safe_dump(spec))
    out = folder / "boards"
    places = ["--leaderboards", str(out), "--out", str(folder / "runs")]
    assert main(["run", str(folder / "small.yaml"), *places]) == 0
    return out


def test_a_published_cell_is_reproduced_and_left_alone(
    boards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in boards.rglob("*") if path.is_file()}
    again = ["run", "--reproduce", CELL, "--leaderboards", str(boards), "--out", str(tmp_path)]
    for _ in range(2):  # the second finds the first, and trains none the less
        assert main(again) == 0
        text = capfd.readouterr().out
        assert "done   synthetic-tiny markov seed 0" in text
        assert "ranks    equal, all " in text
        assert "the same name" in text
    assert len(list(tmp_path.glob("small/synthetic-tiny/markov/*/ranks.npz"))) == 1
    assert {path: path.read_bytes() for path in boards.rglob("*") if path.is_file()} == before


def test_other_ranks_are_counted_and_fail(
    boards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = boards / "ranks/small/synthetic-tiny/markov.npz"
    record = path.with_suffix(".json")
    whole = path.read_bytes(), record.read_bytes()
    with np.load(path) as arrays:
        rank = arrays["rank"].copy()
    rank[0, :2] += 1
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rank=rank)
    path.write_bytes(buffer.getvalue())
    (content,) = json.loads(record.read_text())
    content["metrics"]["mrr"] = float(compute_metric("mrr", rank[0]).mean())
    record.write_text(json.dumps([content]))
    try:
        places = ["--leaderboards", str(boards), "--out", str(tmp_path)]
        assert main(["run", "--reproduce", CELL, *places]) == 1
    finally:
        path.write_bytes(whole[0])
        record.write_bytes(whole[1])
    assert f"ranks    2 of {rank.shape[1]:,} differ" in capfd.readouterr().out


def test_the_commands_of_a_page_of_ones_own_data_and_method_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They name the spec, the plug-in and the changes that made the page."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{u} {' '.join(str((u * 7 + k * 3) % 20 + 1) for k in range(6))}" for u in range(30)]
    Path("events.txt").write_text("\n".join(rows))
    entry = {"reader": "sequence_text", "files": {"events": str(tmp_path / "events.txt")}}
    content = {"datasets": [{"mine": entry}], "models": {"counts": {}}}
    Path("own.yaml").write_text(yaml.safe_dump(content))
    plugin = "toy_of_ones_own.py"  # no other test imports a module of this name
    shutil.copy(Path(__file__).parent / "runner/toy_plugin.py", plugin)
    changes = ["--plugin", plugin, "--set", "title=My data"]
    assert main(["run", "own.yaml", *changes, "--seeds", "0"]) == 0
    page = Path("leaderboards/own.md").read_text()
    (whole,) = re.findall(r"^intentbench (run own.yaml .*?title=\S+ \S+)$", page, re.MULTILINE)
    assert shlex.split(whole) == ["run", "own.yaml", *changes]
    (cell,) = re.findall(r"^intentbench (run .*--reproduce .*)$", page, re.MULTILINE)
    assert main(shlex.split(cell)) == 0
    assert "ranks    equal" in capfd.readouterr().out
    assert main(["run", "--plugin", plugin, *shlex.split(cell)[-2:]]) == 2
    assert "give its spec" in capfd.readouterr().err


def test_the_commands_of_a_page_in_another_folder_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"datasets": ["synthetic-tiny"], "models": {"markov": {}, "popularity": {}}}
    Path("small.yaml").write_text(yaml.safe_dump(spec))
    pages = Path("my pages")
    assert main(["run", "small.yaml", "--leaderboards", str(tmp_path / pages)]) == 0
    page = (pages / "small.md").read_text()
    commands = re.findall(r"^intentbench (.*?)(?:   #.*)?$", page, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        assert str(tmp_path) not in command
        assert main(shlex.split(command)) == 0
        assert (pages / "small.md").read_text() == page
    assert "ranks    equal" in capfd.readouterr().out
    assert not Path("leaderboards").exists()
    assert main(["report", "my pages/ranks/small", "--groups", "2", "-o", "other"]) == 0
    assert "intentbench report other/ranks/small -o other" in Path("other/small.md").read_text()
    assert main(["report", "runs", "--name", "all", "-o", "other"]) == 0
    text = Path("other/all.md").read_text()
    (cell,) = re.findall(r"^intentbench (run --reproduce .*)$", text, re.MULTILINE)
    assert main(shlex.split(cell)) == 0


def test_the_usual_folder_is_not_named_wherever_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"datasets": ["synthetic-tiny"], "models": {"markov": {}}}
    Path("small.yaml").write_text(yaml.safe_dump(spec))
    named = [["--leaderboards", place] for place in ("leaderboards", f"{tmp_path}/leaderboards")]
    found = []
    for place in ([], *named):
        assert main(["run", "small.yaml", *place]) == 0
        board = Path("leaderboards/ranks/small/board.json").read_bytes()
        found.append((board, Path("leaderboards/small.md").read_bytes()))
    assert found == found[:1] * 3
    assert b'"folder"' not in found[0][0]
    assert b"--leaderboards" not in found[0][1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--reproduce", "small/markov/0"], "expected BOARD/DATASET/LABEL/SEED"),
        (["--reproduce", "large/synthetic-tiny/markov/0"], "no readable leaderboard ranks"),
        (["--reproduce", "small/synthetic-tiny/markov/7"], "there are synthetic-tiny/markov/0"),
        (["--reproduce", "small/synthetic-tiny/ease/0"], "there are synthetic-tiny/markov, "),
        (["--reproduce", "small/synthetic-tiny/oracle/0"], "nothing is trained"),
        (["some.yaml", "--reproduce", CELL], "some.yaml: no such file"),
        (["--reproduce", CELL, "--seeds", "1", "--dry-run"], "leave out seeds, dry_run"),
        ([], "give a spec"),
    ],
)
def test_one_clear_line(
    arguments: list[str],
    words: str,
    boards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = ["--leaderboards", str(boards), "--out", str(tmp_path / "out")]
    assert main(["run", *arguments, *places]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "out").exists()
