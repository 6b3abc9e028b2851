import errno
import os
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.results.record import TrialRecord
from intentbench.results.store import (
    RANKS,
    RESULT,
    RecordError,
    load_ranks,
    load_records,
    read_record,
    save_ranks,
    trial_folder,
    write_atomic,
    write_record,
)


def make_record(trial: str, seed: int = 0) -> TrialRecord:
    return TrialRecord(
        trial=trial,
        status="done",
        dataset="tiny",
        data_fingerprint="f" * 64,
        label="toy",
        method="toy",
        seed=seed,
        metrics={"ndcg@10": 0.25},
    )


def test_records_come_back_as_written_in_the_order_of_their_paths(tmp_path: Path) -> None:
    records = {name: make_record(name, seed) for seed, name in enumerate(["b", "a", "c"])}
    for name, record in records.items():
        write_record(trial_folder(tmp_path, "tiny", "toy", name), record)
    loaded = load_records(tmp_path)
    assert loaded == [(tmp_path / "tiny" / "toy" / name, records[name]) for name in ("a", "b", "c")]


def test_half_written_folder_is_no_result(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "toy" / "a"
    write_atomic(folder / "config.yaml", b"trial: {}")
    assert read_record(folder) is None
    assert load_records(tmp_path) == []


def test_unreadable_records_are_each_named(tmp_path: Path) -> None:
    write_record(tmp_path / "good", make_record("good"))
    write_atomic(tmp_path / "cut" / RESULT, b'{"schema": 1, "tri')
    write_atomic(tmp_path / "old" / RESULT, b'{"schema": 0}')
    with pytest.raises(RecordError) as caught:
        load_records(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "cut" / RESULT) in message
    assert str(tmp_path / "old" / RESULT) in message
    assert "good" not in message
    assert "\n" not in message


def test_missing_root_is_a_request_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such folder"):
        load_records(tmp_path / "nowhere")


@pytest.mark.parametrize(("largest", "kind"), [(65535, np.uint16), (65536, np.uint32)])
def test_ranks_come_back_in_the_narrowest_type(
    tmp_path: Path, largest: int, kind: type[np.unsignedinteger]
) -> None:
    user, key = np.array([0, 0, 3]), np.array([4, 5, 9])
    rank = np.array([1, largest, 7])
    save_ranks(tmp_path, user, key, rank)
    loaded = load_ranks(tmp_path)
    assert loaded["rank"].dtype == kind
    assert loaded["user"].dtype == loaded["key"].dtype == np.int32
    for name, array in (("user", user), ("key", key), ("rank", rank)):
        np.testing.assert_array_equal(loaded[name], array)


def test_impossible_ranks_are_refused(tmp_path: Path) -> None:
    one = np.array([1])
    with pytest.raises(ValueError, match="at least 1"):
        save_ranks(tmp_path, one, one, np.array([0]))
    with pytest.raises(ValueError, match="do not match"):
        save_ranks(tmp_path, one, one, np.array([1, 2]))
    assert not (tmp_path / RANKS).exists()


def test_damaged_ranks_are_a_request_error(tmp_path: Path) -> None:
    save_ranks(tmp_path, np.arange(9), np.arange(9), np.arange(1, 10))
    (tmp_path / RANKS).write_bytes((tmp_path / RANKS).read_bytes()[:40])
    with pytest.raises(RequestError, match="no readable ranks"):
        load_ranks(tmp_path)


def test_full_disk_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "file", b"old")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
