"""Merging runs: whole or not at all, conflicts named, nothing at home lost."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from datamodules.errors import RequestError
from intentbench.cli import main
from intentbench.commands import merge
from intentbench.metrics.users import mean_metric
from intentbench.results.lock import LOCK
from intentbench.results.record import TrialRecord
from intentbench.results.store import (
    CHECKPOINT,
    CONFIG,
    LOG,
    NOISE_RANKS,
    RANKS,
    RESULT,
    load_ranks,
    read_record,
    save_noise_ranks,
    save_ranks,
    trial_folder,
    write_atomic,
    write_record,
)
from intentbench.runner import merging
from intentbench.runner.merging import merge_runs

USER, KEY = np.arange(4), np.full(4, 7)
UNDER_NOISE = mean_metric("ndcg@10", USER, np.array([2, 3, 4, 5]), "successive")
NOISE = [{"protocol": "test", "kind": "replace", "rate": 0.1, "metrics": {"ndcg@10": UNDER_NOISE}}]


def _trial(
    root: Path, ranks: tuple[int, ...] = (1, 2, 3, 4), trial: str = "t0", **changes: object
) -> Path:
    """A finished trial with its files; ranks decide its metrics."""
    rank = np.array(ranks)
    record = TrialRecord(
        trial=trial,
        status="done",
        dataset="toys",
        data_fingerprint="f" * 64,
        label="row",
        method="sasrec",
        seed=0,
        metrics={"ndcg@10": mean_metric("ndcg@10", USER, rank, "successive")},
        protocol={"history": "successive"},
        environment={"cpu": "a CPU", "device": "cpu"},
        code="c" * 16,
        finished="2026-01-01T00:00:00.000000+00:00",
    )
    record = replace(record, **changes)  # type: ignore[arg-type]  # the tests say what
    folder = trial_folder(root, record.dataset, record.label, trial)
    write_atomic(folder / CONFIG, b"seed_everything: 0\n")
    write_atomic(folder / CHECKPOINT, b"weights")
    write_atomic(folder / LOG, f"made in {root.name}".encode())
    write_atomic(folder / "events" / "events.out", b"events")
    write_atomic(folder / LOCK, b"")
    if record.status == "done":
        save_ranks(folder, USER, KEY, rank)
        if record.noise:
            save_noise_ranks(folder, rank[None] + 1)
    write_record(folder, record)
    return folder


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_trial_comes_whole_but_for_its_checkpoint(there: Path, home: Path) -> None:
    folder = _trial(there, noise=NOISE)
    merged = merge_runs([there], home)
    assert merged.clean
    assert merged.counts == {"copied": 1}
    found, expected = _content(home / "toys/row/t0"), _content(folder)
    assert expected.keys() - found.keys() == {CHECKPOINT}
    assert found == {name: expected[name] for name in found}
    assert {CONFIG, RANKS, NOISE_RANKS, RESULT, LOG, "events/events.out"} == found.keys()


def test_checkpoints_come_when_asked_for(there: Path, home: Path) -> None:
    folder = _trial(there)
    merge_runs([there], home, checkpoints=True)
    assert _content(home / "toys/row/t0") == _content(folder)


def test_a_checkpoint_comes_to_a_trial_without_one(there: Path, home: Path) -> None:
    folder = _trial(there)
    merge_runs([there], home)
    assert merge_runs([there], home, checkpoints=True, dry_run=True).counts == {"replaced": 1}
    assert not (home / "toys/row/t0" / CHECKPOINT).exists()
    merged = merge_runs([there, there], home, checkpoints=True)
    assert merged.clean
    assert merged.counts == {"replaced": 1, "equal": 1}
    assert "home lacks its checkpoint" in merged.lines[0]
    assert _content(home / "toys/row/t0") == _content(folder)


def test_again_changes_nothing(there: Path, home: Path) -> None:
    _trial(there)
    merge_runs([there], home)
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    merged = merge_runs([there, there], home)
    assert merged.counts == {"equal": 2}
    assert merged.clean
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_a_dry_run_writes_nothing_and_counts_the_same(there: Path, home: Path) -> None:
    _trial(there)
    merged = merge_runs([there, there], home, dry_run=True)
    assert merged.counts == {"copied": 1, "equal": 1}
    assert not home.exists()


@pytest.mark.parametrize("name", [RANKS, LOG, RESULT])
def test_cut_short_the_trial_is_unfinished_and_the_next_merge_completes_it(
    name: str, there: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _trial(there)

    def full(path: Path, content: bytes) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        write_atomic(path, content)

    monkeypatch.setattr(merging, "write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        merge_runs([there], home)
    assert read_record(home / "toys/row/t0") is None
    monkeypatch.undo()
    assert merge_runs([there], home, checkpoints=True).counts == {"copied": 1}
    assert _content(home / "toys/row/t0") == _content(folder)


def test_other_ranks_are_a_conflict_and_home_stays(there: Path, home: Path) -> None:
    ours = _trial(home)
    _trial(there, (1, 2, 3, 5), environment={"device": "a GPU"}, finished="2026-02-03T04:05:06.7")
    before = _content(ours)
    merged = merge_runs([there], home)
    assert not merged.clean
    assert merged.counts == {"conflicts": 1}
    (line,) = merged.lines
    for word in ("there/toys/row/t0", "other ranks", "a GPU", "2026-02-03T04:05:06", "a CPU"):
        assert word in line
    assert _content(ours) == before


def test_ranks_under_noise_are_compared_too(there: Path, home: Path) -> None:
    ours = _trial(home, noise=NOISE)
    _trial(there, noise=NOISE)
    save_noise_ranks(ours, np.full((1, 4), 9))
    assert merge_runs([there], home).counts == {"conflicts": 1}


def test_metrics_under_noise_must_follow_from_ranks(there: Path, home: Path) -> None:
    _trial(there, noise=[{**NOISE[0], "metrics": {"ndcg@10": 0.9}}])
    merged = merge_runs([there], home)
    assert merged.counts == {"damaged": 1}
    assert "ndcg@10 under noise (replace 0.1) is 0.487115" in merged.lines[0]
    assert not home.exists()


def test_theirs_replaces_all_of_the_trial(there: Path, home: Path) -> None:
    ours, theirs = _trial(home), _trial(there, (1, 2, 3, 5))
    write_atomic(ours / "noise" / "old" / "events.out", b"of the old run")
    merged = merge_runs([there], home, prefer="theirs")
    assert merged.clean
    assert merged.counts == {"replaced": 1}
    expected = _content(theirs)
    del expected[CHECKPOINT]  # the old run's would be another model's
    assert _content(ours) == expected


@pytest.mark.parametrize(("year", "taken"), [("2025", False), ("2027", True)])
def test_the_newest_stays(year: str, taken: bool, there: Path, home: Path) -> None:
    ours = _trial(home)
    _trial(there, (1, 2, 3, 5), finished=f"{year}-01-01T00:00:00.000000+00:00")
    merged = merge_runs([there], home, prefer="newest")
    assert merged.clean
    assert (load_ranks(ours)["rank"][-1] == 5) == taken


def test_a_record_without_a_time_is_the_older_one(there: Path, home: Path) -> None:
    ours = _trial(home, finished=None)
    theirs = _trial(there, (1, 2, 3, 5))
    assert merge_runs([home], there, prefer="newest").counts == {"older there": 1}
    assert merge_runs([there], home, prefer="newest").counts == {"replaced": 1}
    assert read_record(ours) == read_record(theirs)


def test_the_same_ranks_by_other_code_are_named(there: Path, home: Path) -> None:
    ours = _trial(home)
    _trial(there, code="d" * 16)
    merged = merge_runs([there], home)
    assert merged.counts == {"conflicts": 1}
    assert "same ranks by other code" in merged.lines[0]
    assert merge_runs([there], home, prefer="theirs").clean
    record = read_record(ours)
    assert record is not None
    assert record.code == "d" * 16


def test_a_failure_at_home_gives_way_and_one_elsewhere_does_not(there: Path, home: Path) -> None:
    ours = _trial(home, status="failed", reason="no memory", metrics={})
    _trial(there)
    assert merge_runs([there], home).counts == {"replaced": 1}
    assert (ours / RANKS).exists()
    _trial(there, status="failed", reason="no memory", metrics={})
    merged = merge_runs([there], home)
    assert merged.counts == {"failed there": 1}
    assert merged.clean
    assert "no memory" in merged.lines[0]
    record = read_record(ours)
    assert record is not None
    assert record.status == "done"


def test_an_unfinished_trial_does_not_come(there: Path, home: Path) -> None:
    (_trial(there) / RESULT).unlink()
    assert merge_runs([there], home).counts == {}
    assert not home.exists()


def _cut_record(folder: Path) -> None:
    (folder / RESULT).write_bytes((folder / RESULT).read_bytes()[:50])


def _cut_ranks(folder: Path) -> None:
    (folder / RANKS).write_bytes((folder / RANKS).read_bytes()[:50])


def _no_ranks(folder: Path) -> None:
    (folder / RANKS).unlink()


def _swap_ranks(folder: Path) -> None:
    save_ranks(folder, USER, KEY, np.array([9, 9, 9, 9]))


def _rename(folder: Path) -> None:
    raw = json.loads((folder / RESULT).read_text())
    (folder / RESULT).write_text(json.dumps({**raw, "label": "../../elsewhere"}))


def _arrays(**changes: object) -> object:
    def damage(folder: Path) -> None:
        np.savez(folder / RANKS, **{"user": USER, "key": KEY, "rank": USER + 1, **changes})  # type: ignore[arg-type]  # the tests say what

    return damage


def _states(**changes: object) -> object:
    def damage(folder: Path) -> None:
        raw = json.loads((folder / RESULT).read_text())
        (folder / RESULT).write_text(json.dumps({**raw, **changes}))

    return damage


NONE = np.zeros(0, int)


@pytest.mark.parametrize(
    "damage",
    [
        _cut_record,
        _cut_ranks,
        _no_ranks,
        _swap_ranks,
        _rename,
        _arrays(user=NONE, key=NONE, rank=NONE),
        _arrays(rank=np.arange(1, 5)[:, None]),
        _arrays(rank=np.arange(1.0, 5.0)),
        _arrays(key=np.array(7)),
        _arrays(key=KEY[:3]),
        _states(metrics={}),
        _states(metrics={"ndcg@10": float("nan")}),
        _states(metrics={"ndcg@10": None}),
        _states(metrics={"x": None}),
        _states(metrics=[1.0]),
        _states(protocol=None),
        _states(environment=None),
        _states(code=None),
        _states(finished=2026),
        _states(data_fingerprint=[]),
    ],
)
def test_what_is_damaged_is_named_and_the_others_come(
    damage: object, there: Path, home: Path
) -> None:
    assert callable(damage)
    damage(_trial(there))
    _trial(there, trial="t1")
    merged = merge_runs([there], home)
    assert merged.counts == {"damaged": 1, "copied": 1}
    assert "there/toys/row/t0" in merged.lines[0]
    assert [path.parent.name for path in home.rglob(RESULT)] == ["t1"]


@pytest.mark.parametrize("damage", [_cut_record, _cut_ranks, _no_ranks])
def test_what_is_damaged_at_home_is_replaced(damage: object, there: Path, home: Path) -> None:
    assert callable(damage)
    theirs, ours = _trial(there), _trial(home)
    damage(ours)
    merged = merge_runs([there], home, checkpoints=True)
    assert merged.counts == {"replaced": 1}
    assert "home is damaged" in merged.lines[0] or "home are damaged" in merged.lines[0]
    assert _content(ours) == _content(theirs)


def test_other_data_is_not_mixed_in(there: Path, home: Path) -> None:
    _trial(home)
    _trial(there, trial="t1", data_fingerprint="e" * 64)
    merged = merge_runs([there], home, prefer="theirs")
    assert merged.counts == {"conflicts": 1}
    assert "made from other data (eeeeeeeeeeee)" in merged.lines[0]
    assert not (home / "toys/row/t1").exists()


def test_a_trial_that_runs_at_home_is_left_alone(there: Path, home: Path) -> None:
    _trial(there)
    place = home / "toys/row/t0"
    place.mkdir(parents=True)
    with FileLock(place / LOCK):
        merged = merge_runs([there], home)
    assert merged.counts == {"conflicts": 1}
    assert "being run at home" in merged.lines[0]
    assert {path.name for path in place.iterdir()} <= {LOCK}


def test_links_are_not_followed(there: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (_trial(there) / "link.txt").symlink_to(tmp_path / "secret")
    merge_runs([there], home)
    assert not (home / "toys/row/t0/link.txt").exists()


def test_no_runs_and_the_same_runs_are_refused(home: Path, there: Path) -> None:
    with pytest.raises(RequestError, match="no such folder of runs"):
        merge_runs([there], home)
    _trial(home)
    with pytest.raises(RequestError, match="others are merged into"):
        merge_runs([home], home)


def test_the_command_reads_archives_and_says_what_came(
    there: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _trial(there)
    _trial(there, trial="t1")
    _trial(home, (4, 3, 2, 1), trial="t1")
    with tarfile.open(tmp_path / "results.tar.gz", "w:gz") as tape:
        tape.add(there, "runs")
    arguments = ["merge", str(tmp_path / "results.tar.gz"), "--into", str(home)]
    assert main([*arguments, "--dry-run"]) == 1
    assert "would be: 1 copied, 1 conflicts" in capsys.readouterr().out
    assert main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path}/results.tar.gz/runs/toys/row/t1: other ranks")
    assert lines[1:] == [f"{home}: 1 copied, 1 conflicts"]
    assert main([*arguments, "--prefer", "theirs"]) == 0
    assert f"{home}: 1 replaced, 1 equal" in capsys.readouterr().out
    assert merge.KINDS[0] == "copied"


def test_half_an_archive_is_refused(
    there: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _trial(there)
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as tape:
        tape.add(there, "runs")
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive"):
        (tmp_path / "half.tar").write_bytes(content)
        assert main(["merge", str(tmp_path / "half.tar"), "--into", str(home)]) == 2
        assert "no archive of runs that can be unpacked" in capsys.readouterr().err
        assert not home.exists()
