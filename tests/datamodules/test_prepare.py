import gzip
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from errno import ENOSPC
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

import datamodules.prepare
import datamodules.readers.registry
from datamodules.catalog import DatasetEntry, FileSource, find_entry, user_entry
from datamodules.errors import (
    ChecksumError,
    DatasetNotFoundError,
    FormatError,
    RequestError,
    StatisticsError,
)
from datamodules.prepare import describe, prepare
from datamodules.prepared import TRAIN, load_prepared
from datamodules.readers.registry import read_events
from datamodules.recipe import Recipe
from datamodules.synthetic import ACTIONS, generate
from datamodules.synthetic_texts import category
from datamodules.synthetic_world import parse_options

TEXT = "1 3 4 5\n2 4 4 3 5\n3 5\n"
TINY = find_entry("synthetic-tiny")


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTENTBENCH_DATA", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine.txt").write_text(TEXT)
    return tmp_path / "root"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def mine(**more: Any) -> DatasetEntry:
    return user_entry("mine", {"reader": "sequence_text", "files": {"events": "mine.txt"}, **more})


def in_cache(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "prepared").iterdir() if p.suffix != ".lock")


def test_prepare_writes_what_the_file_says(root: Path, cache: Path) -> None:
    data = load_prepared(prepare(mine(expected={"users": 3, "interactions": 8}), root, cache))
    assert data.items.tolist() == [1, 2, 3, 2, 2, 1, 3, 3]
    assert data.offsets.tolist() == [0, 3, 7, 8]
    assert data.split.tolist() == [0, 1, 2, 0, 0, 1, 2, TRAIN]
    assert data.original_ids("items") == ["3", "4", "5"]
    assert data.meta.sources == {"mine.txt": hashlib.sha256(TEXT.encode()).hexdigest()}
    assert data.meta.recipe["reader"] == "sequence_text"


def test_prepared_data_is_used_again(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(mine(), root, cache)
    monkeypatch.setattr(datamodules.readers.registry, "read_events", None)  # calling it would raise
    assert prepare(mine(), root, cache) == folder


def test_whatever_determines_the_result_has_its_own_folder(root: Path, cache: Path) -> None:
    folders = {prepare(mine(), root, cache), prepare(mine(recipe={"k_core": 2}), root, cache)}
    folders.add(prepare(mine(), root, cache, Recipe(duplicates="first")))
    (root / "mine.txt").write_text("1 3 4 5\n2 4 4 3 5\n3 4\n")
    folders.add(prepare(mine(), root, cache))
    fingerprints = {load_prepared(folder).fingerprint for folder in folders}
    assert len(folders) == len(fingerprints) == 4
    title_only = replace(mine(), title="other", licence="other")
    assert prepare(title_only, root, cache) in folders


@pytest.mark.parametrize("name", ["users.txt", "items.txt", "items.texts.json"])
def test_damaged_ids_and_texts_are_prepared_anew(name: str, root: Path, cache: Path) -> None:
    (root / "mine.csv").write_text("user,item,title\n" + "1,a,A\n1,b,B\n1,c,C\n2,a,A\n")
    files, options = {"events": "mine.csv"}, {"item_text": "title"}
    entry = user_entry("mine", {"reader": "table", "files": files, "options": options})
    folder = prepare(entry, root, cache)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert prepare(entry, root, cache) == folder
    assert (folder / name).read_bytes() == whole


@pytest.mark.parametrize("damage", ["no meta", "no json", "cut", "flipped", "other version"])
def test_a_damaged_folder_is_prepared_anew(damage: str, root: Path, cache: Path) -> None:
    folder = prepare(mine(), root, cache)
    before = load_prepared(folder).fingerprint
    meta, tensors = folder / "meta.json", folder / "tensors.safetensors"
    stored = bytearray(tensors.read_bytes())
    if damage == "no meta":
        meta.unlink()
    elif damage == "no json":
        meta.write_text("{")
    elif damage == "other version":
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 0}))
    elif damage == "cut":
        tensors.write_bytes(stored[:-3])
    else:
        stored[-1] ^= 1
        tensors.write_bytes(stored)
    assert prepare(mine(), root, cache) == folder
    assert load_prepared(folder).fingerprint == before


def test_what_a_killed_process_left_is_cleared(root: Path, cache: Path) -> None:
    folder = prepare(mine(), root, cache)
    (folder / "meta.json").unlink()
    (folder.parent / f".{folder.name}-killed").mkdir()
    prepare(mine(), root, cache)
    assert in_cache(cache) == [folder.name]


def test_a_process_waits_for_another_that_prepares(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import logging, sys; from pathlib import Path;"
        "from datamodules.prepare import prepare; from datamodules.catalog import user_entry;"
        "logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s');"
        "print('ready', flush=True); sys.stdin.readline();"
        "entry = {'reader': 'sequence_text', 'files': {'events': 'mine.txt'}};"
        f"print(prepare(user_entry('mine', entry), Path({str(root)!r}), Path({str(cache)!r})))"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    go = other.stdin

    def let_the_other_come_in(*args: Any) -> Any:
        go.write("go\n")
        go.flush()
        time.sleep(0.5)
        return read_events(*args)

    monkeypatch.setattr(datamodules.readers.registry, "read_events", let_the_other_come_in)
    folder = prepare(mine(), root, cache)
    assert other.communicate()[0] == f"{folder}\n"  # and not a word of having prepared it


def test_unexpected_statistics_say_both_and_leave_nothing(root: Path, cache: Path) -> None:
    with pytest.raises(StatisticsError, match="expected 9 items, found 3 items") as caught:
        prepare(mine(expected={"users": 3, "items": 9}), root, cache)
    assert "\n" not in str(caught.value)
    assert in_cache(cache) == []


def test_an_empty_result_leaves_nothing(root: Path, cache: Path) -> None:
    with pytest.raises(StatisticsError, match=r"^mine: k_core 50"):
        prepare(mine(recipe={"k_core": 50}), root, cache)
    assert in_cache(cache) == []


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("1 3 4\n2 5\n", {}),
        ("1 3 4\n2 5 3\n", {"split": "ratio", "test_share": 0.0}),
    ],
)
def test_nothing_to_test_on_is_refused(
    text: str, recipe: dict[str, Any], root: Path, cache: Path
) -> None:
    (root / "mine.txt").write_text(text)
    split = recipe.get("split", "leave_one_out")
    message = rf"^mine: split {split}: no user has a test event \(.* 2 events\); choose another"
    with pytest.raises(StatisticsError, match=message):
        prepare(mine(recipe=recipe), root, cache)
    assert in_cache(cache) == []


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_an_id_with_a_line_break_is_refused(end: str, root: Path, cache: Path) -> None:
    events = [{"user": user, "item": item} for user in (f"A{end}B", "C") for item in "xyz"]
    (root / "mine.jsonl").write_text("\n".join(map(json.dumps, events)))
    entry = user_entry("mine", {"reader": "table", "files": {"events": "mine.jsonl"}})
    with pytest.raises(FormatError, match=r"^mine: the id 'A\\[nr]B' has a line break"):
        prepare(entry, root, cache)
    assert in_cache(cache) == []


def test_no_home_folder_is_one_clear_line(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "~nobody-of-that-name/x"
    monkeypatch.setenv("INTENTBENCH_CACHE", path)
    with pytest.raises(RequestError, match=f"^INTENTBENCH_CACHE: {path}: no home folder"):
        prepare(mine(), root)
    monkeypatch.setenv("INTENTBENCH_DATA", path)
    with pytest.raises(RequestError, match=f"^INTENTBENCH_DATA: {path}: no home folder"):
        prepare(mine(), root, cache)
    with pytest.raises(RequestError, match=f"^dataset 'mine': {path}: no home folder"):
        mine(files={"events": path})


def test_a_bad_line_names_dataset_file_and_line(root: Path, cache: Path) -> None:
    (root / "mine.txt").write_text("1 3 4 5\n2 x 4\n")
    with pytest.raises(FormatError, match=r"^mine: .*mine\.txt:2"):
        prepare(mine(), root, cache)
    assert in_cache(cache) == []


def test_a_full_disk_is_an_oserror_and_leaves_nothing(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr(datamodules.prepare, "write_prepared", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(mine(), root, cache)
    assert in_cache(cache) == []


def test_no_write_permission_is_one_clear_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RequestError, match=r"Not a directory.*INTENTBENCH_CACHE") as caught:
        prepare(mine(), root, tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_no_permission_of_another_user(cache: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    os.seteuid(65534)
    try:
        with pytest.raises(RequestError, match=r"Permission denied.*INTENTBENCH_CACHE"):
            prepare(TINY, None, cache)
    finally:
        os.seteuid(0)


def test_lookup_order(
    root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(mine(), files=(FileSource("events", "mine.txt"),))
    other = tmp_path / "other"
    downloads = cache / "downloads" / "mine"
    for number, folder in enumerate((other, downloads), start=1):
        folder.mkdir(parents=True)
        (folder / "mine.txt").write_text(TEXT * number + f"{8 + number} 3\n")

    def interactions(data_root: Path | None) -> float:
        data = load_prepared(prepare(entry, data_root, cache))
        return data.meta.statistics["interactions"]

    monkeypatch.setenv("INTENTBENCH_DATA", str(other))
    assert interactions(root) == 8
    assert interactions(None) == 9
    monkeypatch.delenv("INTENTBENCH_DATA")
    assert interactions(None) == 17


def test_files_that_are_nowhere(root: Path, cache: Path) -> None:
    entry = replace(mine(), files=(FileSource("events", "a.txt"), FileSource("events", "b.txt")))
    with pytest.raises(DatasetNotFoundError, match=r"mine: a.txt or b.txt not found \(.*root\)"):
        prepare(entry, root, cache)
    with pytest.raises(RequestError, match="nowhere: no such folder"):
        prepare(entry, root / "nowhere", cache)
    with pytest.raises(DatasetNotFoundError, match="unknown dataset 'beauti'"):
        prepare("beauti", root, cache)


def test_optional_files_may_be_absent(root: Path, cache: Path) -> None:
    times = FileSource("times", "times.txt", optional=True, url="http://127.0.0.1:9/never")
    entry = replace(mine(), files=(FileSource("events", "mine.txt"), times))
    assert load_prepared(prepare(entry, root, cache)).timestamps is None
    (root / "times.txt").write_text("1 30 40 50\n2 10 10 10 10\n3 5\n")
    timestamps = load_prepared(prepare(entry, root, cache)).timestamps
    assert timestamps is not None
    assert timestamps.tolist() == [30, 40, 50, 10, 10, 10, 10, 5]


def test_another_file_under_a_catalogued_name(root: Path, cache: Path) -> None:
    (root / "Beauty.txt").write_text(TEXT)
    with pytest.raises(ChecksumError, match="expected 1090094 bytes, found 22; delete") as caught:
        prepare("beauty", root, cache)
    assert "\n" not in str(caught.value)
    wrong = FileSource("events", "mine.txt", sha256="0" * 64)
    with pytest.raises(ChecksumError, match=r"expected sha256 0{64}, found [0-9a-f]{64}; delete"):
        prepare(replace(mine(), files=(wrong,)), root, cache)


def test_a_member_of_an_archive(root: Path, cache: Path) -> None:
    with zipfile.ZipFile(root / "mine.zip", "w") as zipped:
        zipped.writestr("set/events.txt.gz", gzip.compress(TEXT.encode()))
    source = FileSource("events", "mine.zip", member="set/events.txt.gz")
    data = load_prepared(prepare(replace(mine(), files=(source,)), root, cache))
    assert data.meta.statistics["interactions"] == 8
    assert in_cache(cache) == [data.folder.name if data.folder else ""]


def test_a_download_is_kept_for_the_next_time(root: Path, cache: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as http:
        Thread(target=http.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{http.server_port}/mine.txt"
        sha256 = hashlib.sha256(TEXT.encode()).hexdigest()
        source = FileSource("events", "deep/mine.txt", sha256, len(TEXT), url)
        entry = replace(mine(), files=(source,))
        folder = prepare(entry, None, cache)
        http.shutdown()
    assert (cache / "downloads" / "mine" / "deep" / "mine.txt").read_text() == TEXT
    assert prepare(entry, None, cache) == folder


def test_truth_follows_its_events(cache: Path) -> None:
    made = generate(*parse_options(TINY.options))
    users = np.repeat(np.arange(64), np.diff(made.offsets))
    planted = {
        (user, time): (intent, accidental)
        for user, time, intent, accidental in zip(
            users, made.timestamps, made.intents, made.accidental, strict=True
        )
    }
    data = load_prepared(
        prepare("synthetic-tiny", None, cache, Recipe(actions=("view",), k_core=4))
    )
    assert data.timestamps is not None
    assert data.meta.statistics["interactions"] < 0.9 * len(users)
    original = np.array(data.original_ids("users"), dtype=np.int64)
    owners = np.repeat(original, data.offsets.diff().numpy())
    intents, accidental = data.features["truth.intent"], data.features["truth.accidental"]
    for row, key in enumerate(zip(owners, data.timestamps.tolist(), strict=True)):
        assert planted[key] == (intents[row], accidental[row])
    items = np.array([0, *data.original_ids("items")], dtype=np.int64)
    assert (data.features["truth.item_intent"].numpy() == made.world.item_intent[items]).all()
    assert (data.features["truth.user_type"].numpy() == made.user_types[original]).all()
    texts = data.texts("items")
    assert texts is not None
    assert texts[4] == made.item_texts[items[5] - 1]


def test_actions_and_names_of_features_are_kept(cache: Path) -> None:
    data = load_prepared(prepare("synthetic-tiny", None, cache))
    assert sorted(data.meta.actions) == sorted(ACTIONS)
    names = data.texts("item.category")
    values, offsets = data.item_feature("category")
    assert names is not None
    assert offsets.diff().tolist() == [0, *[1] * data.n_items]
    intents = data.features["truth.item_intent"][1:]
    assert [names[code - 1] for code in values] == [category(int(z)) for z in intents]


def test_describe_reads_like_a_table(cache: Path) -> None:
    rows = dict(describe(load_prepared(prepare("synthetic-tiny", None, cache))))
    assert rows["dataset"] == "synthetic-tiny"
    assert rows["users"] == "64"
    assert rows["columns"] == "user, item, timestamps, actions"
    assert rows["item features"] == "category"


def test_preparing_is_logged(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        prepare("synthetic-tiny", None, cache)
    assert "prepared synthetic-tiny in" in caplog.text
