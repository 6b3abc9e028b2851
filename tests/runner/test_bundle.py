"""What goes into a bundle: all that is needed, nothing of this machine, always the same bytes."""

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from intentbench.cli import main
from intentbench.results.environment import describe_environment
from intentbench.results.store import CHECKPOINT, save_ranks, write_record
from intentbench.runner.bundle import Bundle, collect, write_bundle
from intentbench.runner.config import write_config
from intentbench.runner.grid import Planned, RunOptions, plan_grid
from intentbench.runner.tuned import Tuned, save_tuned, tuned_path
from intentbench.spec import load_spec
from intentbench.text.features import offline_features
from tests.runner.conftest import PLUGIN, write_spec
from tests.runner.test_tuned import BUDGET

Contents = dict[str, bytes]


def _pack(path: Path, output: Path, *arguments: object) -> Contents:
    assert main(["pack", str(path), "-o", str(output), *map(str, arguments)]) == 0
    return _read(output)


def _read(output: Path) -> Contents:
    with tarfile.open(output) as tape:
        found = {}
        for member in tape:
            assert member.isreg()
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (
                (0, 0, 0, "", "")
            )
            assert member.mode == 0o644
            file = tape.extractfile(member)
            assert file is not None
            top, _, name = member.name.partition("/")
            assert top == "toys"
            assert ".." not in Path(name).parts
            found[name] = file.read()
    return found


def _manifest(contents: Contents) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(contents["manifest.json"])
    return manifest


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_spec(tmp_path, {"popularity": {}, "markov": {}})


def test_the_same_input_gives_the_same_bytes(spec: Path, tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        _pack(spec, tmp_path / name, "--out", tmp_path / "runs")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "one.tar").read_bytes()


def test_the_manifest_states_every_file(spec: Path, tmp_path: Path) -> None:
    contents = _pack(spec, tmp_path / "b.tar", "--out", tmp_path / "runs")
    manifest = _manifest(contents)
    del contents["manifest.json"]
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    assert manifest["trials"] == {"all": 2, "done": 0}
    prepared = manifest["datasets"]["synthetic-tiny"]
    meta = json.loads(contents[f"{prepared['folder']}/meta.json"])
    assert meta["fingerprint"] == prepared["fingerprint"]
    commit = json.loads(contents["code/COMMIT.json"])
    here = describe_environment("", 0)
    assert commit == {"commit": here["commit"], "dirty": here["dirty"]}
    assert not any("__pycache__" in name for name in contents)
    assert contents["code/intentbench/cli.py"]
    assert contents["code/datamodules/catalog.yaml"]


def test_what_was_chosen_is_what_will_be_run(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sasrec.yaml").write_text("presets: {small: {width: 8}}")
    models = {"sasrec": {"preset": "small"}, "mine": {"method": "toy"}, "popularity": {}}
    path = write_spec(tmp_path / "studies", models)
    contents = _pack(
        path, tmp_path / "b.tar", "--out", tmp_path / "runs", "--plugin", PLUGIN,
        "--models", "sasrec,mine", "--seeds", "3,4", "--set", "training.max_epochs=1",
    )  # fmt: skip
    for name, content in contents.items():
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(content)
    words = _manifest(contents)["run"]
    assert words[:5] == ["benchmarks/toys.yaml", "--data-root", "data", "--out", "runs"]
    assert words[5:] == [
        "--no-page", "--plugin", "plugin/toy_plugin.py",
        "--set=training.max_epochs=1", "--models=sasrec,mine", "--seeds=3,4",
    ]  # fmt: skip
    there = load_spec(
        tmp_path / "there" / words[0], ["training.max_epochs=1"], ["sasrec", "mine"], None, [3, 4],
        PLUGIN,
    )  # fmt: skip
    assert [entrant.label for entrant in there.entrants] == ["sasrec", "mine"]
    assert there.entrants[0].arguments["width"] == 8
    assert contents["plugin/toy_plugin.py"] == PLUGIN.read_bytes()
    options = RunOptions(data_root=tmp_path / "there" / "data")
    assert plan_grid(there, options)[0].job.prepared.is_relative_to(tmp_path / "there")


@pytest.mark.parametrize("near", [(), ("own",), ("tuned",), ("own", "tuned")])
@pytest.mark.parametrize("far", [("own",), ("tuned",), ("own", "tuned")])
def test_arguments_are_those_of_home_wherever_settings_lie(
    near: tuple[str, ...], far: tuple[str, ...], tmp_path: Path
) -> None:
    home, there = tmp_path / "home" / "studies", tmp_path / "there"
    for value, (folder, kinds) in enumerate(((home, near), (home.parent, far)), start=1):
        (folder / "models").mkdir(parents=True)
        place = folder / "models" / "item_knn.yaml"
        if "own" in kinds:
            place.write_text(f"datasets: {{synthetic-tiny: {{gamma: 0.{value}}}}}")
        if "tuned" in kinds:
            found = Tuned({"shrink": value}, BUDGET)
            save_tuned(tuned_path(place, "item_knn"), "toys", "synthetic-tiny", "item_knn", found)
    path = write_spec(home, {"item_knn": {}})
    bundle = collect(load_spec(path), path, RunOptions(out=tmp_path / "runs"))
    for name, source in bundle.files.items():
        if name.endswith(".yaml") and isinstance(source, Path):
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            (there / name).write_bytes(source.read_bytes())
    (ours,), (theirs,) = (
        load_spec(path).entrants,
        load_spec(there / "benchmarks/toys.yaml").entrants,
    )
    assert theirs.arguments_on("synthetic-tiny") == ours.arguments_on("synthetic-tiny")


def _finish(planned: Planned, checkpoint: bool) -> None:
    """Leave what a trial leaves."""
    job = planned.job
    write_config(job.folder, job.trial)
    save_ranks(job.folder, np.arange(3), np.zeros(3, int), np.ones(3, int))
    if checkpoint:
        torch.save({"state_dict": {}}, job.folder / CHECKPOINT)
    write_record(job.folder, replace(job.blank, status="done", finished="2026"))


def test_what_is_done_is_carried_and_what_others_start_from(tmp_path: Path) -> None:
    models = {
        "sasrec": {},
        "popularity": {},
        "igr_sr": {"pretrained": "sasrec"},
    }
    path = write_spec(tmp_path, models, seeds=[0])
    spec = load_spec(path)
    options = RunOptions(out=tmp_path / "runs")
    grid = {planned.job.trial.label: planned for planned in plan_grid(spec, options)}
    _finish(grid["sasrec"], checkpoint=True)
    _finish(grid["popularity"], checkpoint=True)
    bundle = collect(spec, path, options)
    done = {name.partition("/synthetic-tiny/")[2] for name in bundle.files if name[:5] == "done/"}
    sasrec, popularity = (
        f"{label}/{grid[label].job.trial.name}" for label in ("sasrec", "popularity")
    )
    assert done == {
        *(f"{row}/{name}" for row in (sasrec, popularity) for name in
          ("config.yaml", "ranks.npz", "result.json")),
        f"{sasrec}/best.ckpt",
    }  # fmt: skip
    assert bundle.manifest["trials"] == {"all": 3, "done": 2}


def test_text_folders_come_along_by_relative_paths_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    features = offline_features(load_prepared(prepare("synthetic-tiny")), dims=8)
    features.write(tmp_path / "text" / "tiny")
    path = write_spec(tmp_path, {"semantic": {"text": "text/tiny", "profile_width": 8}})
    options = RunOptions(out=tmp_path / "runs")
    files = collect(load_spec(path), path, options).files
    assert {"text/tiny/features.safetensors", "text/tiny/manifest.json"} <= files.keys()
    overrides = [f"models.semantic.text={tmp_path / 'text' / 'tiny'}"]
    with pytest.raises(RequestError, match="relative path"):
        collect(load_spec(path, overrides), path, options)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--models", "popularty"], "popularity"),
        (["--datasets", "beuty"], "beuty"),
        (["--set", "models.markov.depth=3"], "depth"),
        (["--plugin", "none.py"], "none.py"),
        (["--wheels", "nowhere"], "nowhere"),
        (["--data-root", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    arguments: list[str],
    word: str,
    spec: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["pack", str(spec), "-o", str(tmp_path / "out" / "b.tar"), *arguments]) == 2
    line = capsys.readouterr().err
    assert word in line
    assert len(line.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_had_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"reader": "sequence_text", "files": {"events": str(tmp_path / "gone.txt")}}
    spec = tmp_path / "own.yaml"
    spec.write_text(yaml.safe_dump({"datasets": [{"mine": entry}], "models": {"popularity": {}}}))
    assert main(["pack", str(spec), "-o", str(tmp_path / "b.tar")]) == 2
    assert "gone.txt" in capsys.readouterr().err
    assert not (tmp_path / "b.tar").exists()


def test_an_older_bundle_stays_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"older")
    bundle = Bundle("toys", {"a": b"a", "b": tmp_path / "gone"}, {})
    with pytest.raises(FileNotFoundError):
        write_bundle(bundle, tmp_path / "b.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]
    assert (tmp_path / "b.tar").read_bytes() == b"older"
