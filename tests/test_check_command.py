"""`intentbench check`, `assert_no_worse` and the example of a workflow."""

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from datamodules.errors import RequestError
from intentbench.cli import _parser, main
from intentbench.stats.gate import MARGIN
from intentbench.testing import assert_no_worse
from tests.reports.fake_runs import KNN, SASREC, write_runs

WORKFLOW = Path(__file__).parents[1] / "docs" / "examples" / "gate.yml"
STEADY = replace(SASREC, seed_spread=0.002)
WEAK = replace(STEADY, strength=0.8)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs in `old`, accepted in `gate.npz`; the same with other seeds in `new`."""
    monkeypatch.chdir(tmp_path)
    write_runs(Path("old"), [KNN, STEADY], n_users=1_000)
    write_runs(Path("new"), [KNN, STEADY], seeds=(3, 4, 5), n_users=1_000)
    write_runs(Path("weak"), [KNN, WEAK], n_users=1_000)
    write_runs(Path("single"), [KNN, STEADY], seeds=(7,), n_users=1_000)
    assert main(["check", "old", "--baseline", "gate.npz", "--update"]) == 0
    return tmp_path


@pytest.mark.parametrize(
    ("runs", "status", "word"),
    [("old", 0, "PASS"), ("new", 0, "PASS"), ("weak", 1, "WORSE"), ("single", 3, "CANNOT TELL")],
)
def test_status(
    repository: Path, runs: str, status: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    files = ["--summary", "out/gate.md", "--junit", "out/gate.xml"]
    margin = ["--margin", "0.01"] if runs == "single" else []
    assert main(["check", runs, "--baseline", "gate.npz", *files, *margin]) == status
    assert capsys.readouterr().out.startswith(f"{word}: {runs} against gate.npz\n")
    summary = Path("out/gate.md").read_text(encoding="utf-8")
    assert summary.startswith(f"## Regression gate: {word.lower()}\n")
    assert ElementTree.parse("out/gate.xml").getroot().get("tests") == "2"


def test_the_baseline_stays_unless_asked(repository: Path) -> None:
    before = Path("gate.npz").read_bytes()
    assert main(["check", "weak", "--baseline", "gate.npz"]) == 1
    assert Path("gate.npz").read_bytes() == before
    update = ["check", "weak", "--baseline", "gate.npz", "--update", "--summary", "gate.md"]
    assert main(update) == 0
    assert Path("gate.md").read_text(encoding="utf-8").startswith("## Baseline accepted:")
    assert main(["check", "weak", "--baseline", "gate.npz"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["new", "--baseline", "none.npz"], "none.npz: no such baseline"),
        (["nowhere", "--baseline", "gate.npz"], "nowhere: no such folder of runs"),
        (["new/beauty/item_knn", "--baseline", "gate.npz"], "no result of beauty/sasrec_ce_all"),
        (["new", "--baseline", "gate.npz", "--margin", "5"], "margin 5: expected a share"),
        (["new", "--baseline", "gate.npz", "--metric", "ndgc@10"], "no metric 'ndgc@10'"),
        (
            ["new", "--baseline", "gate.npz", "--junit", "new"],
            "--junit new: is a folder",
        ),
        (["new", "--baseline", "gate.npz", "--junit", "x", "--update"], "not allowed with"),
        (["new"], "--baseline"),
    ],
)
def test_wrong_requests_are_one_line(
    repository: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["check", *arguments]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert len(streams.err.strip().splitlines()) == 1
    assert words in streams.err


def test_the_default_margin_is_the_one_that_is_documented() -> None:
    options = _parser().parse_args(["check", "runs", "--baseline", "gate.npz"])
    assert options.margin == MARGIN


def test_check_loads_no_torch(repository: Path) -> None:
    code = (
        "import sys; from intentbench.cli import main; import intentbench.testing;"
        "main(['check', 'new', '--baseline', 'gate.npz', '--junit', 'gate.xml']);"
        "sys.exit(bool({'torch', 'lightning', 'polars', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=repository)
    assert done.returncode == 0, done.stderr.decode()


def test_assert_no_worse(repository: Path) -> None:
    assert_no_worse("new", "gate.npz")
    assert_no_worse(Path("old"), Path("gate.npz"), margin=0.001, metric="hit_rate@20")
    with pytest.raises(AssertionError, match=r"^WORSE: weak against gate.npz"):
        assert_no_worse("weak", "gate.npz")
    with pytest.raises(AssertionError, match=r"^CANNOT TELL"):
        assert_no_worse("single", "gate.npz", margin=0.01)
    with pytest.raises(RequestError, match="no result of"):
        assert_no_worse("new/beauty/item_knn", "gate.npz")


def test_the_workflow_calls_commands_that_there_are() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert "pull_request" in workflow[True]  # YAML 1.1 reads the key "on" as a truth value
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    calls = [shlex.split(line)[1:] for line in lines if line.startswith("intentbench ")]
    assert [call[0] for call in calls] == ["run", "check"]
    for call in calls:
        _parser().parse_args(call)


def test_what_cannot_be_written_is_no_verdict(repository: Path) -> None:
    """Status 1 is left to what is worse."""
    Path("file").write_text("in the way")
    for arguments in (["--summary", "file/gate.md"], ["--update"]):
        baseline = "file/gate.npz" if "--update" in arguments else "gate.npz"
        assert main(["check", "old", "--baseline", baseline, *arguments]) == 2
    assert main(["check", "old", "--baseline", "gate.npz", "--update", "--margin", "7"]) == 2
