"""`intentbench intents` on a trial with categories, and on one with interests beside intents."""

import errno
import json
import os
from pathlib import Path

import polars as pl
import pytest
import yaml

from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from intentbench.cli import main

SPEC = {
    "name": "small",
    "datasets": ["synthetic-tiny"],
    "models": {
        "markov": {},
        "icsrec": {"clusters": 4, "width": 8},
        "idclrec": {"width": 8, "dropout": 0.1},
    },
    "seeds": [0],
    "training": {"max_epochs": 1},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    (root / "small.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    places = ["--out", str(root / "runs"), "--leaderboards", str(root / "boards")]
    assert main(["run", str(root / "small.yaml"), *places]) == 0
    return root / "runs" / "synthetic-tiny"


def _trial(runs: Path, label: str) -> str:
    return str(next((runs / label).iterdir()))


def test_table_numbers_and_pictures_of_intents_beside_interests(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "intents.parquet"
    arguments = ["--projector", str(tmp_path / "projector"), "--tsne"]
    assert main(["intents", _trial(runs, "idclrec"), "-o", str(out), *arguments]) == 0
    streams = capsys.readouterr()
    numbers = json.loads(streams.out)
    assert numbers == json.loads(out.with_suffix(".json").read_text())
    dataset = load_prepared(prepare("synthetic-tiny"))
    frame = pl.read_parquet(out)
    assert len(frame) == numbers["positions"] == len(dataset.items)
    assert frame.columns == ["user", "position", "item", "intent", "vector", "interest"]
    assert numbers["categories"].startswith("k-means")
    assert {"interest", "interest_and_intent", "ndcg@20", "planted"} <= numbers.keys()
    for name in ("pca", "tsne"):
        picture = (tmp_path / "new" / f"intents.{name}.svg").read_text()
        assert picture.lstrip().startswith("<?xml")
        assert str(tmp_path / "new" / f"intents.{name}.svg") in streams.err
    assert list((tmp_path / "projector").rglob("tensors.tsv"))


def test_categories_are_the_methods_own(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "intents.parquet"
    assert main(["intents", _trial(runs, "icsrec"), "-o", str(out), "--users", "10"]) == 0
    frame = pl.read_parquet(out)
    assert frame["user"].n_unique() == 10
    assert frame["intent"].is_between(0, 3).all()
    assert "interest" not in frame.columns
    assert json.loads(out.with_suffix(".json").read_text())["categories"] == "the method's"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["{icsrec}", "-o", "{tmp}/x.csv"], "such a file"),
        (["{icsrec}", "-o", "{tmp}/x.parquet", "--users", "0"], "at least 1"),
        (["{icsrec}", "-o", "{tmp}/x.parquet", "--users", "1"], "intents of 1 users"),
        (["{markov}", "-o", "{tmp}/x.parquet"], "Markov models no intents"),
        (["{tmp}", "-o", "{tmp}/x.parquet"], "no such checkpoint"),
    ],
)
def test_requests_that_cannot_be_met(
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    names = {label: _trial(runs, label) for label in ("icsrec", "markov")}
    filled = [argument.format(tmp=tmp_path, **names) for argument in arguments]
    assert main(["intents", *filled]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert part in line


def test_two_users_are_enough(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    assert main(["intents", _trial(runs, "icsrec"), "-o", str(out), "--users", "2"]) == 0


@pytest.mark.parametrize("written", range(3))
def test_a_full_disk_leaves_the_older_files(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    written: int,
) -> None:
    """A file takes two calls of fsync, one of its folder."""
    room = [None] * (2 * written)

    def full(_: int) -> None:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room.pop()

    files = [tmp_path / f"x.{end}" for end in ("parquet", "json", "pca.svg")]
    for file in files:
        file.write_text("older")
    monkeypatch.setattr("os.fsync", full)
    command = ["intents", _trial(runs, "icsrec"), "-o", str(files[0]), "--users", "10"]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "No space left on device" in line
    assert str(files[written]) in line
    assert [file.read_bytes() == b"older" for file in files] == [n >= written for n in range(3)]
    assert sorted(tmp_path.iterdir()) == sorted(files)
