"""The command line: exit status, and one clear line for whatever a person gets wrong."""

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from datamodules.catalog import find_entry
from intentbench.cli import main
from intentbench.commands.describing import describe_method
from intentbench.models import method_table
from tests.reports.fake_runs import KNN, write_trial

SPEC = {
    "name": "small",
    "datasets": ["synthetic-tiny"],
    "models": {"popularity": {}, "markov": {}},
    "seeds": [0],
}
Complaint = Callable[..., str]


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Runs a command that must be refused; returns its one line."""

    def run(*arguments: object, status: int = 2) -> str:
        assert main([str(argument) for argument in arguments]) == status
        streams = capsys.readouterr()
        lines = streams.err.strip().splitlines()
        assert len(lines) == 1, streams.err
        assert "Traceback" not in streams.err
        return lines[0]

    return run


def _write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(SPEC | changes), encoding="utf-8")
    return path


def _own_data(path: Path, events: Path, **more: object) -> Path:
    entry = {"reader": "sequence_text", "files": {"events": str(events)}, **more}
    return _write(path, datasets=[{"mine": entry}])


def test_list_and_help_load_no_torch() -> None:
    for arguments in (["list"], ["--help"], ["run", "--help"]):
        code = (
            "import sys; from intentbench.cli import main; status = main(sys.argv[1:]);"
            "sys.exit(status or bool({'torch', 'lightning', 'polars'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


def test_an_unknown_option_names_the_help_of_its_command(complaint: Complaint) -> None:
    assert complaint("report", "runs", "--nmae", "x") == (
        "intentbench report: unrecognized arguments: --nmae x; see `intentbench report --help`"
    )


def test_list_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("sasrec", "item_knn", "beauty", "synthetic-tiny"):
        assert f"  {name} " in text


def test_list_of_a_method_says_what_a_row_may_say(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    complaint: Complaint,
) -> None:
    assert main(["list", "indirec"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "indirec: InDiRec"
    place = lines.index("  lambda_diff: float = 1.0")
    assert lines[place + 1].startswith("      weight of L_diff; 0 leaves it out")
    assert any(line.startswith("  paper: diffusion_target sequence,") for line in lines)
    assert not any(line.startswith("  n_items") for line in lines)
    assert "did you mean 'sasrec'" in complaint("list", "sasrecc")
    monkeypatch.chdir(tmp_path)  # no presets here
    plugin = Path(__file__).parent / "runner" / "toy_plugin.py"
    assert main(["list", "toy", "--plugin", str(plugin)]) == 0
    assert "presets" not in capsys.readouterr().out


@pytest.mark.parametrize("key", method_table())
def test_list_has_a_text_for_each_argument_of_each_method(key: str) -> None:
    lines = describe_method(key).split("arguments of a row")[1].split("presets of")[0].splitlines()
    for line, below in pairwise(line for line in lines[1:] if line and "has values" not in line):
        if re.match(r"  \w+: ", line):
            assert below.startswith("      "), line


def test_where_there_are_no_benchmarks_the_list_says_where_it_looked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    complaint: Complaint,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["list", "benchmarks"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "benchmarks:"
    assert lines == [
        f"  none: looked for in {tmp_path.resolve()}/benchmarks, below the current folder"
    ]
    line = complaint("run", "none.yaml")
    assert "`intentbench list benchmarks` shows those in the current folder's benchmarks/" in line


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rum"]) == 2
    assert "invalid choice: 'rum'" in capsys.readouterr().err


def test_unknown_dataset(complaint: Complaint) -> None:
    assert "'beuty'" in (line := complaint("data", "prepare", "beuty"))
    assert "beauty" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datasets": ["syntetic-tiny"]}, ["syntetic-tiny", "synthetic-tiny"]),
        ({"models": {"sasrek": {}}}, ["models.sasrek", "sasrec"]),
        ({"models": {"sasrec": {"widht": 3}}}, ["models.sasrec", "widht", "width"]),
        ({"models": {"sasrec": {"width": "wide"}}}, ["models.sasrec", "width", "wide"]),
        ({"models": {"sasrec": {"loss": "cross"}}}, ["loss", "cross"]),
        (
            {"models": {"a": {"method": "irllrec", "base_arguments": {"layers": 2.5}}}},
            ["models.a.base_arguments", "layers", "Expected a int", "2.5"],
        ),
        ({"trainings": {}}, ["trainings", "training"]),
        ({"training": {"patience": "long"}}, ["training", "patience", "long"]),
        ({"data": {"layuot": "all"}}, ["data", "layuot"]),
        ({"seeds": ["one"]}, ["seeds", "one"]),
        ({"reference": "best"}, ["reference", "best"]),
    ],
)
def test_wrong_spec(
    changes: dict[str, object], words: list[str], complaint: Complaint, tmp_path: Path
) -> None:
    line = complaint("run", _write(tmp_path / "spec.yaml", **changes), "--out", tmp_path / "runs")
    for word in words:
        assert word in line
    assert not (tmp_path / "runs").exists()


def test_numbers_and_folders_that_cannot_be_are_refused_at_once(
    complaint: Complaint, tmp_path: Path
) -> None:
    spec = _write(tmp_path / "spec.yaml")
    assert "--seed -1: expected a whole" in complaint("tune", spec, "--trials", "1", "--seed", "-1")
    assert "found '-1'" in complaint("report", tmp_path, "--groups=-1")
    assert "--groups: expected a number" in complaint("compare", "a", "b", "--groups", "8,5")
    assert "spec.yaml is a file; name a folder" in complaint("run", spec, "--leaderboards", spec)
    assert "'../x' is no name" in complaint("report", _tiny_runs(tmp_path), "--name", "../x")


def test_where_nothing_can_be_written_is_refused_before_anything_is_done(
    complaint: Complaint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, runs = _write(tmp_path / "spec.yaml"), _tiny_runs(tmp_path)
    below = spec / "below"
    for command in (
        ("run", spec, "--out", below),
        ("run", spec, "--leaderboards", below),
        ("report", runs, "--out", below),
        ("report", runs, "--site", below),
        ("merge", runs, "--into", below),
        ("tune", spec, "--trials", 1, "--out", below),
        ("pack", spec, "--output", below),
        ("compare", runs, runs, "--json", below),
        ("check", runs, "--baseline", runs, "--summary", below),
        ("import", tmp_path, "--out", below),
        ("recommend", tmp_path / "best.ckpt", "--out", below.with_suffix(".csv")),
        ("intents", tmp_path, "--out", below.with_suffix(".parquet")),
        ("text", "summarise", "synthetic-tiny", "--out", below),
    ):
        option = [word for word in command if str(word).startswith("--")][-1]
        said = complaint(*command)
        assert said.startswith(f"intentbench: {option} "), said
        assert f"{spec} is a file; name a folder" in said, said
    assert "is a folder; name a file" in complaint("pack", spec, "--output", tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert f"{tmp_path} may not be written to" in complaint("run", spec, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_is_common_to_all_rows_is_blamed_on_no_row(
    complaint: Complaint, tmp_path: Path
) -> None:
    spec = _write(tmp_path / "spec.yaml")
    said = complaint("run", spec, "--set", "training.patience=0")
    assert "spec.yaml: training.patience: must be" in said
    said = complaint("run", spec, "--set", "data.windov=3")
    assert "spec.yaml: data, for models.markov: unknown argument 'windov'" in said
    said = complaint("run", spec, "--set", "models.markov.data={windov: 3}")
    assert "models.markov.data: unknown argument" in said


def test_names_of_other_things_are_answered_with_what_they_are(
    complaint: Complaint, tmp_path: Path
) -> None:
    spec = _write(tmp_path / "spec.yaml")
    assert "`intentbench data prepare ml-100k`" in complaint("list", "ml-100k")
    assert "as in intentbench.models.sasrec.SASRec" in complaint("fit", "--model", "SASRecs")
    assert "come with --plugin FILE.py" in complaint("run", spec, "--set", "models.mine={}")
    assert "is no Python file" in complaint("run", spec, "--plugin", spec)
    assert "given once" in complaint("run", spec, "--plugin", "a.py", "--plugin", "b.py")
    assert "numbers between commas: 0,1,2" in complaint("run", spec, "--seeds", "0..4")
    assert "cannot be read: Is a directory" in complaint("run", tmp_path)


def _tiny_runs(folder: Path) -> Path:
    write_trial(folder / "runs", KNN, "beauty", 0)
    return folder / "runs"


def test_spec_that_is_not_there(complaint: Complaint, tmp_path: Path) -> None:
    assert "none.yaml" in complaint("run", tmp_path / "none.yaml")


def test_truncated_gzip(complaint: Complaint, tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b"%d %d %d %d\n" % (u, u, u + 1, u + 2) for u in range(1, 999)))
    (tmp_path / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    line = complaint("run", _own_data(tmp_path / "spec.yaml", tmp_path / "cut.txt.gz"))
    assert "cut.txt.gz" in line


def test_line_that_is_no_number(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("1 2 3 4\n2 3 four 5\n")
    line = complaint("run", _own_data(tmp_path / "spec.yaml", tmp_path / "words.txt"))
    assert "words.txt" in line
    assert "2" in line
    assert "four" in line


def test_empty_after_k_core(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("1 2 3 4\n2 3 4 5\n")
    spec = _own_data(tmp_path / "spec.yaml", tmp_path / "few.txt", recipe={"k_core": 9})
    assert "k_core" in complaint("run", spec).replace("-", "_")


def test_checksum_mismatch(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "sequences").mkdir()
    size = next(file.size for file in find_entry("beauty").files if file.size)
    (tmp_path / "sequences" / "Beauty.txt.gz").write_bytes(bytes(size))
    line = complaint("data", "prepare", "beauty", "--data-root", tmp_path)
    assert "Beauty.txt.gz" in line
    assert "sha256" in line


def test_data_of_a_spec_is_prepared(
    tmp_path: Path, complaint: Complaint, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.txt").write_text("1 2 3 4\n2 3 4 5\n3 2 4 5\n")
    spec = _own_data(tmp_path / "spec.yaml", tmp_path / "events.txt")
    assert main(["data", "prepare", str(spec)]) == 0
    assert "mine" in capsys.readouterr().out
    assert "no such file" in complaint("data", "prepare", tmp_path / "none.yaml")


def test_recommend_asks_for_a_known_format(complaint: Complaint, tmp_path: Path) -> None:
    line = complaint("recommend", tmp_path / "best.ckpt", "-o", tmp_path / "lists.xlsx")
    assert ".parquet" in line
    assert "best.ckpt" in complaint("recommend", tmp_path / "best.ckpt", "-o", tmp_path / "a.csv")


def test_a_benchmark_from_spec_to_page_lists_and_comparison(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec, runs, pages = _write(tmp_path / "spec.yaml"), tmp_path / "runs", tmp_path / "pages"
    command = ["run", str(spec), "--out", str(runs), "--leaderboards", str(pages)]
    assert main(command) == 0
    page = (pages / "small.md").read_text()
    assert "markov" in page
    assert "oracle" in page.lower()
    assert main(command) == 0
    assert "nothing to do" in capfd.readouterr().out
    assert (pages / "small.md").read_text() == page

    archive, again = pages / "ranks" / "small", tmp_path / "again"
    assert main(["report", str(archive), "-o", str(again)]) == 0
    assert (again / "small.md").read_text() == page
    capfd.readouterr()
    assert main(["compare", "markov", "popularity", "--runs", str(runs)]) == 0
    assert "markov" in capfd.readouterr().out

    checkpoint = next(runs.glob("synthetic-tiny/markov/*/best.ckpt"))
    lists = tmp_path / "lists.csv"
    assert main(["recommend", str(checkpoint), "-k", "5", "-o", str(lists)]) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == len(lists.read_text().splitlines()) - 1


def test_running_some_rows_leaves_the_others_on_the_page(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = _write(tmp_path / "small.yaml")
    boards = tmp_path / "p:ok:[red]q"
    places = ["--leaderboards", str(boards), "--out"]
    assert main(["run", str(spec), *places, str(tmp_path / "first")]) == 0
    page = boards / "small.md"
    assert f"wrote {page}\n" in capfd.readouterr().out
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| ")]
    ranks = boards / "ranks/small/synthetic-tiny/popularity.json"
    (record,) = json.loads(ranks.read_text())
    ranks.write_text(json.dumps([{**record, "code": "another"}]))
    again = ["run", str(spec), "--models", "markov", *places, str(tmp_path / "second")]
    assert main(again) == 0
    assert not (tmp_path / "second" / "synthetic-tiny" / "popularity").exists()
    text = page.read_text()
    assert [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")] == rows
    assert "not run" not in text
    (stale,) = [line for line in text.splitlines() if line.startswith("- **Stale:**")]
    assert "popularity" in stale
    assert "markov" not in stale


def test_rows_of_other_data_do_not_push_out_what_is_published(
    complaint: Complaint, tmp_path: Path
) -> None:
    events, spec = tmp_path / "events.txt", tmp_path / "small.yaml"
    rows = [f"{u} " + " ".join(str((u * 7 + k * 3) % 20 + 1) for k in range(6)) for u in range(30)]
    events.write_text("\n".join(rows))
    _own_data(spec, events)
    places = ["--leaderboards", str(tmp_path / "boards"), "--out", str(tmp_path / "runs")]
    assert main(["run", str(spec), *places]) == 0
    page = (tmp_path / "boards" / "small.md").read_bytes()
    events.write_text("\n".join(rows[:-1]))
    assert "mine popularity" in complaint("run", spec, "--models", "markov", *places)
    assert (tmp_path / "boards" / "small.md").read_bytes() == page
    assert main(["run", str(spec), *places]) == 0  # the whole of it may
    assert (tmp_path / "boards" / "small.md").read_bytes() != page


def test_published_trials_need_not_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = _write(tmp_path / "small.yaml")
    boards = ["--leaderboards", str(tmp_path / "boards")]
    assert main(["run", str(spec), *boards, "--out", str(tmp_path / "first")]) == 0
    ranks = str(tmp_path / "boards" / "ranks" / "small")
    assert main(["import", ranks, "--out", str(tmp_path / "second")]) == 0
    assert "3 trials restored" in capsys.readouterr().out  # with the oracle
    assert main(["run", str(spec), *boards, "--out", str(tmp_path / "second")]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "boards"), "--out", str(tmp_path / "second")]) == 2


def test_modules_in_the_current_folder_are_not_taken_for_pythons_own(tmp_path: Path) -> None:
    spec = _write(tmp_path / "small.yaml", models={"markov": {}})
    for name in ("statistics", "random", "json", "torch"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the one')\n")
    code = (  # as the installed command: the current folder is not on the path
        "import sys; sys.path.remove('')\n"
        "from intentbench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "run", spec.name, "--no-page"]
    root = str(Path(__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment | {"PYTHONPATH": root}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr + done.stdout


def test_names_that_the_terminal_has_no_letters_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "a.yaml").write_text("title: ünï\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["list", "benchmarks"]) == 0
    sys.stdout.flush()
    assert b"a.yaml  \\xfcn\\xef" in written.getvalue()


def test_a_broken_benchmark_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "benchmarks").mkdir()
    files = {"a": b"a: [", "b": b"", "c": b"- 1", "d": b"\xff\xfe\x00", "e": b"title: whole"}
    for name, content in files.items():
        (tmp_path / "benchmarks" / f"{name}.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert main(["list", "benchmarks"]) == 0
    titles = [line.split("  ")[2] for line in capsys.readouterr().out.splitlines()[1:]]
    broken, other = "(cannot be read as YAML)", "(no benchmark)"
    assert titles == [broken, other, other, broken, "whole"]


def test_every_command_cleans_up_at_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        assert list(tmp_path.glob("intentbench-merge-*"))
        os.kill(os.getpid(), signal.SIGTERM)

    def missed(*_: object) -> None:
        pytest.fail("the command does not answer SIGTERM")

    archive = tmp_path / "runs.tar"
    archive.touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("intentbench.runner.archives.unpack_runs", stop)
    before = signal.signal(signal.SIGTERM, missed)
    try:
        assert main(["merge", str(archive), "--into", str(tmp_path / "into")]) == 143
        assert signal.getsignal(signal.SIGTERM) is missed
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == [archive]


def test_rows_of_a_folder_without_trials_cannot_be_compared(
    complaint: Complaint, tmp_path: Path
) -> None:
    line = complaint("compare", "no-row-a", "no-row-b", "--runs", tmp_path)
    assert line == f"intentbench: {tmp_path}: no finished trials in it; name another with --runs"


@pytest.mark.parametrize("content", [b"", b"[1]", b"model: {a\ntrial", b"\xff\xfe\x00"])
def test_a_configuration_that_is_none_is_named(
    complaint: Complaint, tmp_path: Path, content: bytes
) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(content)
    assert f"{config}: " in complaint("fit", "--config", config)
