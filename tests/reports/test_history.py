"""What a published result was replaced by is kept, and the chain of it cannot be cut unseen."""

from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.errors import RequestError
from intentbench.reports.archive import read_archive, write_archive
from intentbench.reports.cells import Result, build_tables, read_results
from intentbench.reports.history import (
    FIELDS,
    HISTORY,
    Entry,
    check_history,
    digest_trial,
    extend_history,
    history_line,
    read_history,
    render_history,
)
from intentbench.reports.plan import Plan
from tests.reports.fake_runs import KNN, SASREC, FakeModel, write_failure, write_runs, write_trial

STRONGER = FakeModel("sasrec_ce_all", 1.7, method="sasrec", arguments=SASREC.arguments)


@pytest.fixture
def old(tmp_path: Path) -> list[Result]:
    """What was published: two rows, three seeds."""
    write_runs(tmp_path / "runs", [KNN, SASREC])
    write_archive(tmp_path / "ranks", "b", Plan(), build_tables(read_results(tmp_path / "runs")))
    return read_archive(tmp_path / "ranks")[2]


def test_the_same_results_leave_no_trace(old: list[Result]) -> None:
    assert extend_history([], old, build_tables(old)) == []
    later = [(replace(record, finished="2027-01-01", benchmark="x"), r) for record, r in old]
    assert extend_history([], old, build_tables(later)) == []


def test_other_trial_other_code_other_ranks_and_none_are_kept(
    old: list[Result], tmp_path: Path
) -> None:
    runs = tmp_path / "new"
    write_trial(runs, KNN, "beauty", 0, trial="another")
    write_trial(runs, STRONGER, "beauty", 0)
    write_trial(runs, SASREC, "beauty", 1, code="newer")
    new = read_results(runs)  # seed 2 is gone
    history = extend_history([], old, build_tables(new))
    assert [(e["label"], e["seed"]) for e in history] == [
        ("item_knn", 0),
        ("sasrec_ce_all", 0),
        ("sasrec_ce_all", 1),
        ("sasrec_ce_all", 2),
    ]
    assert all(set(entry) == set(FIELDS) for entry in history)
    before = {(r.label, r.seed): (r, ranks) for r, ranks in old}
    for entry in history:
        record, ranks = before[entry["label"], entry["seed"]]
        for name in ("trial", "code", "metrics", "finished", "dataset"):
            assert entry[name] == getattr(record, name)
        assert entry["digest"] == digest_trial(record, ranks)
    assert history[0]["replaced_by"]["trial"] == "another"
    assert history[0]["replaced_by"]["digest"] == history[0]["digest"]
    assert history[1]["replaced_by"]["digest"] != history[1]["digest"]
    assert history[2]["replaced_by"] == {
        "trial": history[2]["trial"],
        "code": "newer",
        "digest": history[2]["digest"],
    }
    assert history[3]["replaced_by"] is None
    assert check_history(history, build_tables(new)) == []


def test_what_failed_is_no_number_but_may_take_the_place_of_one(
    old: list[Result], tmp_path: Path
) -> None:
    runs = tmp_path / "new"
    write_runs(runs, [KNN, SASREC], seeds=(0, 1))
    write_failure(runs, SASREC, "beauty", 2, "killed")
    broken = read_results(runs)
    (entry,) = extend_history([], old, build_tables(broken))
    assert entry["replaced_by"]["digest"] == ""
    again = extend_history([entry], broken, build_tables(old))
    assert again == [entry]
    assert check_history(again, build_tables(old)) == []


def test_a_history_only_grows_and_each_entry_leads_to_the_next(
    old: list[Result], tmp_path: Path
) -> None:
    history: list[Entry] = []
    results = old
    for code in ("second", "third", "fourth"):
        fresh = [(replace(record, code=code), ranks) for record, ranks in results]
        longer = extend_history(history, results, build_tables(fresh))
        assert longer[: len(history)] == history
        assert len(longer) == len(history) + len(old)
        history, results = longer, fresh
    tables = build_tables(results)
    assert check_history(history, tables) == []
    for number in range(4, len(history)):  # any but the first of a cell
        cut = history[:number] + history[number + 1 :]
        assert len(check_history(cut, tables)) == 1
    assert len(check_history(history, build_tables(old))) == len(old)

    (tmp_path / HISTORY).write_bytes(render_history(history))
    assert read_history(tmp_path) == history


def test_ranks_under_noise_and_intents_count(old: list[Result]) -> None:
    record, ranks = old[0]
    assert ranks is not None
    assert digest_trial(replace(record, intents={"a/b": 0.5}), ranks) != digest_trial(record, ranks)
    noisy = replace(record, noise=[{"kind": "swap"}])
    first, second = ({**ranks, "noise": ranks["rank"][None] + n} for n in (0, 1))
    assert digest_trial(noisy, first) != digest_trial(noisy, second)
    wide = {name: array.astype("int64") for name, array in ranks.items()}
    assert digest_trial(record, wide) == digest_trial(record, ranks)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []
    for text in ("{", "{}", '[{"dataset": "x"}]'):
        (tmp_path / HISTORY).write_text(text)
        with pytest.raises(RequestError, match=r"history\.json: no"):
            read_history(tmp_path)


def test_the_line_of_a_page(old: list[Result]) -> None:
    gone = extend_history([], old, [])
    assert history_line([]) == ""
    assert history_line(gone[:1]).startswith("1 result was replaced")
    assert history_line(gone).startswith(f"{len(old)} results were replaced")
