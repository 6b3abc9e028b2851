"""Choosing a row by validation, against figures counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.reports.cells import build_tables, read_results
from intentbench.stats.contrast import contrast
from tests.reports.fake_runs import SASREC, FakeModel, write_trial
from tests.studies.scripts import load_script

script = load_script("choose_row")

VALIDATION = {
    ("small", 0): 0.20, ("small", 1): 0.22,
    ("middle", 0): 0.290, ("middle", 1): 0.294,
    ("large", 0): 0.29, ("large", 1): 0.30,
    ("other", 0): 0.25, ("other", 1): 0.25,
}  # fmt: skip
SIZES = {"small": 2, "middle": 4, "large": 16, "other": 16}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four rows of a sweep and a reference, two seeds each."""
    training = {"max_epochs": 9, "monitor": "ndcg@10"}
    for (label, seed), value in VALIDATION.items():
        model = FakeModel(label, 1.0, arguments=(("num_prefix", SIZES[label]),))
        found = {"ndcg@10": value, "hit_rate@10": 1.0}
        write_trial(tmp_path, model, "beauty", seed, training=training, validation=found)
    for seed in (0, 1):
        best = {"ndcg@10": 0.9}
        write_trial(tmp_path, SASREC, "beauty", seed, training=training, validation=best)
    return tmp_path


def test_rows_stand_by_validation_and_the_knee_is_within_one_standard_error(runs: Path) -> None:
    (table,) = build_tables(read_results(runs))
    cells = [cell for cell in table.cells if cell.label != SASREC.label]
    choices = script.rank_rows(cells, "num_prefix")
    assert [one.label for one in choices] == ["large", "middle", "other", "small"]
    assert choices[0].mean == pytest.approx(0.295)
    assert choices[0].error == pytest.approx(0.005)
    assert choices[1].error == pytest.approx(0.002)
    rising, knee = script.find_knee(choices)
    assert [(one.value, one.label) for one in rising] == [
        (2, "small"),
        (4, "middle"),
        (16, "large"),
    ]
    assert knee.label == "middle", "0.292 is within 0.005 of 0.295; 0.21 is not"


def test_only_the_chosen_row_is_set_against_the_reference(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["x", str(runs), "beauty", "--along", "num_prefix", "--reference", SASREC.label]
    monkeypatch.setattr("sys.argv", arguments)
    script.main()
    lines = capsys.readouterr().out.splitlines()
    (table,) = build_tables(read_results(runs))
    cells = {cell.label: cell for cell in table.cells}
    ours, theirs = (table.values(cells[n].ranks, "ndcg@10") for n in ("large", SASREC.label))
    found = contrast(ours, theirs)
    low, high = found.relative_ends
    assert low is not None
    assert high is not None
    assert lines[-1] == (
        f"chosen: large; test ndcg@10 {found.mean_a:.4f} against {found.mean_b:.4f} of "
        f"{SASREC.label}: {found.relative:+.1%} [{low:+.1%}, {high:+.1%}]"
    )
    assert "knee: num_prefix 4 (middle)" in lines
    assert lines[-2] == f"0 of 4 rows are above {SASREC.label} on validation", "it has .9"
    test_means = {f"{np.mean(table.values(c.ranks, 'ndcg@10')):.4f}" for c in table.cells}
    shown = {word for line in lines[:-1] for word in line.split()}
    assert not test_means & shown, "no other row's test is looked at"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toys"], "no trials of toys; there are: beauty"),
        (["beauty", "--along", "colour"], "no row to choose with an argument 'colour'"),
        (["beauty"], "no reference '' to test against"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(
    arguments: list[str], message: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["x", str(runs), *arguments])
    with pytest.raises(SystemExit, match=message):
        script.main()


def test_rows_are_compared_on_the_seeds_that_all_of_them_have(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = FakeModel("lucky", 1.0, arguments=(("num_prefix", 8),))
    training = {"max_epochs": 9, "monitor": "ndcg@10"}
    found = {"ndcg@10": 0.295, "hit_rate@10": 1.0}
    write_trial(runs, model, "beauty", 1, training=training, validation=found)
    (table,) = build_tables(read_results(runs))
    cells = [cell for cell in table.cells if cell.label != SASREC.label]
    choices = script.rank_rows(cells, "num_prefix")
    assert [one.label for one in choices][:2] == ["large", "lucky"], "0.30 and 0.295 in seed 1"
    assert {one.seeds for one in choices} == {1}
    arguments = ["x", str(runs), "beauty", "--reference", SASREC.label, "--seeds", "2"]
    monkeypatch.setattr("sys.argv", arguments)
    script.main()
    text = capsys.readouterr().out
    assert text.startswith("left out, under 2 seeds: lucky\n")
    monkeypatch.setattr("sys.argv", ["x", str(runs), "beauty", "--reference", "other"])
    script.main()
    assert "\n4 of 5 rows are above other on validation\n" in capsys.readouterr().out
    assert "(1 seeds)" not in text
    write_trial(runs, FakeModel("late", 1.0), "beauty", 7, training=training, validation=found)
    (table,) = build_tables(read_results(runs))
    cells = [cell for cell in table.cells if cell.label != SASREC.label]
    with pytest.raises(RequestError, match="no seed in common"):
        script.rank_rows(cells)


def test_one_seed_has_no_knee() -> None:
    choice = script.Choice("a", 1, 0.3, float("nan"), 1)
    assert script.find_knee([choice]) == ([choice], None)
