"""The table of measured beside published figures: committed as the ranks say, and counted right."""

from pathlib import Path

import pytest

from intentbench.metrics.users import SETS, mean_metric
from intentbench.reports.archive import read_archive
from tests.studies.scripts import load_script

script = load_script("published_beside")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "irllrec-published.md"


def test_the_committed_table_is_that_of_the_committed_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    given = ["x", "--leaderboards", str(ROOT / "leaderboards")]
    monkeypatch.setattr("sys.argv", [*given, "--write", str(copy)])
    script.main()
    assert copy.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr("sys.argv", given)
    script.main()
    assert copy.read_text(encoding="utf-8").endswith(capsys.readouterr().out)


def test_a_cell_from_its_ranks() -> None:
    _, _, results = read_archive(ROOT / "leaderboards" / "ranks" / "irllrec")
    means = [
        mean_metric("recall@10", ranks["user"], ranks["rank"], SETS)
        for record, ranks in results
        if (record.dataset, record.label) == ("amazon-movie", "sgl") and ranks is not None
    ]
    mean = sum(means) / len(means)
    (line,) = [
        line
        for line in script.table_lines(ROOT / "leaderboards")
        if line.startswith("| amazon-movie | `sgl`")
    ]
    assert line.split(" | ")[5] == f"{mean:.4f} / 0.1239 ({100 * (mean / 0.1239 - 1):+.1f})"
