"""A failure's reason quotes what a library said; nothing that is shown passes it on raw."""

from pathlib import Path

import pytest

from intentbench.cli import main
from tests.reports.fake_runs import GRU, KNN, SASREC, write_failure, write_runs, write_trial

RAW = "Error: \x1b[31mnan\x00 in\x07 \u202escores\x9b2J\r\nend"
CLEAN = "Error:  [31mnan  in   scores 2J  end"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_runs(tmp_path / "runs", [KNN, SASREC], n_users=60)
    write_trial(tmp_path / "runs", GRU, "beauty", 0, 60)
    write_failure(tmp_path / "runs", GRU, "beauty", 1, RAW)
    return tmp_path / "runs"


def _clean(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_pages_and_site_are_clean(runs: Path, tmp_path: Path) -> None:
    out, site = tmp_path / "pages", tmp_path / "site"
    assert main(["report", str(runs), "--name", "board", "-o", str(out)]) == 0
    page = (out / "board.md").read_text("utf-8")
    assert f"seed 1 failed: `{CLEAN}`" in page
    assert main(["report", str(runs), "--site", str(site)]) == 0
    method = (site / "methods" / "gru4rec.html").read_text("utf-8")
    assert f"failed: {CLEAN}" in method
    assert _clean(page + method)


def test_the_gate_and_the_status_are_clean(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, files = tmp_path / "old", [tmp_path / "gate.md", tmp_path / "gate.xml"]
    write_runs(old, [KNN, SASREC, GRU], seeds=(3, 4), n_users=60)
    check = ["check", str(runs), "--baseline", str(old), "--summary", str(files[0])]
    assert main([*check, "--junit", str(files[1])]) in (1, 3)
    assert main(["status", str(runs)]) == 0
    lacking = tmp_path / "lacking"
    write_runs(lacking, [KNN, SASREC], n_users=60)
    write_failure(lacking, GRU, "beauty", 1, RAW)
    assert main(["check", str(lacking), "--baseline", str(old)]) == 2
    streams = capsys.readouterr()
    for text in (streams.out, streams.err, *(path.read_text("utf-8") for path in files)):
        assert "[31mnan in scores 2J end" in " ".join(text.split())
        assert _clean(text)
