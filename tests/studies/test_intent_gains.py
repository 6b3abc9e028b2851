"""All intent methods beside their controls: on a made-up page, and the rows of the real ones."""

from pathlib import Path

import pytest

from intentbench.reports.archive import read_archive
from intentbench.reports.publish import publish
from tests.reports.fake_runs import POPULARITY, SASREC, SASREC_BCE, write_runs, write_trial
from tests.studies.scripts import load_script

script = load_script("intent_gains")


@pytest.fixture
def leaderboards(tmp_path: Path) -> Path:
    """One page: a strong row and a weak one of three seeds, a row of one."""
    write_runs(tmp_path / "runs", [SASREC, POPULARITY], ["beauty"])
    write_trial(tmp_path / "runs", SASREC_BCE, "beauty", 0)
    publish(tmp_path / "runs", "page", tmp_path / "boards")
    return tmp_path / "boards"


def test_answers_are_those_of_the_page(
    leaderboards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        script.Question("up", "page", "beauty", SASREC.label, POPULARITY.label),
        script.Question("down", "page", "beauty", POPULARITY.label, SASREC.label),
        script.Question("lone", "page", "beauty", SASREC_BCE.label, SASREC.label),
    ]
    monkeypatch.setattr(script, "QUESTIONS", asked)
    up, down, lone = script.read_answers(leaderboards)
    assert (up.mark, down.mark) == ("^", "v")
    assert up.contrast.est == pytest.approx(-down.contrast.est)
    assert lone.seeds == (1, 3)
    assert lone.name == "lone, beauty, 1 seed"
    script.print_table([up, down, lone])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" | ")[-1] for line in lines[:2]] == ["above |", "below |"]
    assert f"{100 * up.contrast.relative:+.1f} [" in lines[0]
    picture = script.draw([up, down, lone]).decode()
    assert all(f">{one.name}<" in picture for one in (up, down, lone))


def test_every_question_has_its_rows_on_a_published_page() -> None:
    root = Path(__file__).parents[2]
    rows = {
        (name, record.dataset, record.label)
        for name in {question.board for question in script.QUESTIONS}
        for record, _ in read_archive(root / "leaderboards" / "ranks" / name)[2]
    }
    for question in script.QUESTIONS:
        for label in (question.label, question.control):
            assert (question.board, question.dataset, label) in rows
    assert (root / script.PICTURE).is_file()
