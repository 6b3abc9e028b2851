"""`run.py` of a bundle, and the whole way: pack, run elsewhere, merge, the ranks of home."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from intentbench.cli import main
from intentbench.results.store import load_ranks, load_records
from intentbench.runner import bundle_start
from intentbench.runner.archives import unpack_runs
from intentbench.runner.bundle_start import check_files, find_lacking
from tests.runner.conftest import write_spec

BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("polars", "datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
"""A sitecustomize.py: a machine without what preparing needs."""


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A bundle, unpacked."""
    spec = write_spec(tmp_path, {"popularity": {}, "sasrec": {"width": 8}}, seeds=[0])
    arguments = ["--out", str(tmp_path / "runs"), "--set", "training.max_epochs=1"]
    assert main(["pack", str(spec), "-o", str(tmp_path / "b.tar"), *arguments]) == 0
    return unpack_runs(tmp_path / "b.tar", tmp_path / "there") / "toys"


def _start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a bundle's `run.py` as a machine would that has nothing but the bundle."""
    bare = folder.parent / "bare"
    bare.mkdir(exist_ok=True)
    (bare / "sitecustomize.py").write_text(BARE)
    cleared = ("INTENTBENCH_DATA", "INTENTBENCH_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in cleared}
    environment |= {"PYTHONPATH": str(bare), "INTENTBENCH_CACHE": str(folder.parent / "cache")}
    command = [sys.executable, str(folder / "run.py"), "--devices", "cpu", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")


@pytest.mark.slow
def test_the_whole_way(unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = _start(unpacked)
    assert done.returncode == 0, done.stderr + done.stdout
    assert not (tmp_path / "there" / "cache").exists()  # nothing was prepared there
    assert not (unpacked / "leaderboards").exists()
    assert main(["merge", str(unpacked / "runs"), "--into", str(tmp_path / "merged")]) == 0
    spec = str(tmp_path / "toys.yaml")
    arguments = ["--set", "training.max_epochs=1", "--devices", "cpu", "--no-page"]
    assert main(["run", spec, "--out", str(tmp_path / "runs"), *arguments]) == 0
    ours, theirs = load_records(tmp_path / "runs"), load_records(tmp_path / "merged")
    assert len(ours) == len(theirs) == 2
    for (home, here), (away, there) in zip(ours, theirs, strict=True):
        assert (here.trial, here.code, here.metrics) == (there.trial, there.code, there.metrics)
        assert here.environment["commit"] == there.environment["commit"]
        for name, array in load_ranks(home).items():
            assert np.array_equal(array, load_ranks(away)[name])
    capsys.readouterr()
    assert main(["merge", str(unpacked / "runs"), "--into", str(tmp_path / "runs")]) == 0
    assert "2 equal" in capsys.readouterr().out
    assert main(["run", spec, "--out", str(tmp_path / "merged"), *arguments]) == 0
    assert "nothing to do" in capsys.readouterr().out

    again = [*arguments[:2], "--out", str(tmp_path / "merged")]
    assert main(["pack", spec, "-o", str(tmp_path / "again.tar"), *again]) == 0
    unpack_runs(tmp_path / "again.tar", tmp_path / "second")
    resumed = _start(tmp_path / "second" / "toys")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 trials (2 done)" in resumed.stdout
    assert "nothing to do" in resumed.stdout


def test_a_changed_file_is_named_and_nothing_runs(unpacked: Path) -> None:
    with (unpacked / "code" / "intentbench" / "cli.py").open("a") as file:
        file.write("# changed\n")
    (unpacked / "benchmarks" / "toys.yaml").unlink()
    done = _start(unpacked)
    assert done.returncode == 2
    assert done.stderr == (
        "bundle: not as packed: benchmarks/toys.yaml, code/intentbench/cli.py (2 in all); unpack "
        "it again\n"
    )
    assert not (unpacked / "runs").exists()


def test_what_the_machine_lacks_is_named(unpacked: Path) -> None:
    path = unpacked / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "needs": ["torch>=1", "no-such-thing>=3"]}))
    done = _start(unpacked)
    assert done.returncode == 2
    assert done.stderr.startswith("bundle: this machine lacks no-such-thing>=3; install")


CLI = """
import sys
from pathlib import Path
with Path("calls").open("a") as file:
    print(*sys.argv[1:], file=file)
if sys.argv[1] == "merge":
    Path(sys.argv[sys.argv.index("--into") + 1]).mkdir(exist_ok=True)
    sys.exit(int(Path("status").read_text()))
"""
"""An `intentbench.cli` that notes how it is called; merging ends as the file `status` says."""


def test_carried_trials_are_merged_whole_before_anything_runs(tmp_path: Path) -> None:
    here = tmp_path / "toys"
    (here / "code" / "intentbench").mkdir(parents=True)
    (here / "code" / "intentbench" / "__init__.py").touch()
    (here / "code" / "intentbench" / "cli.py").write_text(CLI)
    (here / "done").mkdir()
    (here / "run.py").write_bytes(Path(bundle_start.__file__).read_bytes())
    (here / "manifest.json").write_text(json.dumps({"files": {}, "needs": [], "run": ["toys"]}))
    merge = "merge done --into runs.part --checkpoints"
    (here / "status").write_text("1")
    done = _start(here)
    assert done.returncode == 2
    assert done.stderr.startswith("bundle: the trials in done/ cannot be taken")
    assert not (here / "runs").exists()
    assert (here / "calls").read_text().splitlines() == [merge]
    (here / "status").write_text("0")
    assert _start(here).returncode == 0
    assert (here / "runs").is_dir()
    assert not (here / "runs.part").exists()
    assert _start(here).returncode == 0
    run = "run toys --devices cpu"
    assert (here / "calls").read_text().splitlines() == [merge, merge, run, run]


def test_an_older_python_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle_start, "OLDEST", (99, 0))
    with pytest.raises(SystemExit) as stop:
        bundle_start.main([])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("bundle: Python 99.0 or newer is needed, this is 3.")


def test_older_versions_count_as_lacking() -> None:
    assert find_lacking(["numpy>=1", "packaging"]) == []
    (line,) = find_lacking(["numpy>=99"])
    assert line == f"numpy>=99 (found {np.__version__})"


def test_missing_files_count_as_wrong(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no bytes
    files = {"a": {"sha256": empty}, "b": {"sha256": empty}}
    assert check_files(tmp_path, files) == ["b"]


@pytest.mark.parametrize(
    "content", [None, b"", b'{"files": {}, "needs"', b"[]", b'{"files": {}}', b"\xff\xfe"]
)
def test_a_bundle_without_its_manifest_is_refused(tmp_path: Path, content: bytes | None) -> None:
    here = tmp_path / "toys"
    here.mkdir()
    (here / "run.py").write_bytes(Path(bundle_start.__file__).read_bytes())
    if content is not None:
        (here / "manifest.json").write_bytes(content)
    done = _start(here)
    assert done.returncode == 2
    assert done.stderr == (
        "bundle: not as packed: manifest.json is missing or damaged; unpack it again\n"
    )
