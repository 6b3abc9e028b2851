"""Datasets that lie prepared below a data root: taken where they are what is asked for."""

import json
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.catalog import DatasetEntry, FileSource, find_entry, user_entry
from datamodules.errors import RequestError
from datamodules.fetch import file_sha256
from datamodules.packed import find_packed, prepared_name
from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from datamodules.recipe import Recipe

LINES = "".join(f"{user} {user % 4 + 1} {user % 3 + 5} {user % 5 + 8}\n" for user in range(1, 30))


def _pack(entry: DatasetEntry, root: Path, tmp_path: Path) -> Path:
    """Prepared data below a root, and nothing else of it anywhere."""
    made = prepare(entry, cache=tmp_path / "first")
    place = root / "prepared" / made.name
    shutil.copytree(made, place)
    return place


@pytest.fixture
def own(tmp_path: Path) -> DatasetEntry:
    (tmp_path / "events.txt").write_text(LINES)
    return user_entry(
        "mine", {"reader": "sequence_text", "files": {"events": str(tmp_path / "events.txt")}}
    )


def test_generated_data_is_taken_as_it_lies(tmp_path: Path) -> None:
    entry = find_entry("synthetic-tiny")
    place = _pack(entry, tmp_path / "root", tmp_path)
    assert prepare(entry, tmp_path / "root", tmp_path / "cache") == place
    assert not (tmp_path / "cache").exists()


def test_own_data_needs_its_files_no_more(own: DatasetEntry, tmp_path: Path) -> None:
    place = _pack(own, tmp_path / "root", tmp_path)
    (tmp_path / "events.txt").unlink()
    assert prepare(own, tmp_path / "root", tmp_path / "cache") == place


def test_another_recipe_is_other_data(tmp_path: Path) -> None:
    entry = find_entry("synthetic-tiny")
    place = _pack(entry, tmp_path / "root", tmp_path)
    other = replace(entry, recipe=Recipe(k_core=3), expected={})
    made = prepare(other, tmp_path / "root", tmp_path / "cache")
    assert made.is_relative_to(tmp_path / "cache")
    assert load_prepared(made).fingerprint != load_prepared(place).fingerprint


def test_other_sources_or_statistics_are_other_data(own: DatasetEntry, tmp_path: Path) -> None:
    place = _pack(own, tmp_path / "root", tmp_path)
    sha256 = load_prepared(place).meta.sources["events.txt"]
    stated = replace(own, files=tuple(replace(file, sha256=sha256) for file in own.files))
    assert prepare(stated, tmp_path / "root", tmp_path / "cache") == place
    (tmp_path / "events.txt").unlink()
    for other in (
        replace(own, files=tuple(replace(file, sha256="0" * 64) for file in own.files)),
        replace(own, expected={"users": 28}),
    ):
        with pytest.raises(RequestError, match=r"events\.txt"):
            prepare(other, tmp_path / "root", tmp_path / "cache")


def test_another_member_of_the_same_archive_is_other_data(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        archive.writestr("a.txt", LINES)
        archive.writestr("b.txt", LINES.replace("1 ", "2 "))
    members = {
        name: replace(
            user_entry("mine", {"reader": "sequence_text", "files": {"events": "both.zip"}}),
            files=(FileSource("events", str(tmp_path / "both.zip"), member=name),),
        )
        for name in ("a.txt", "b.txt")
    }
    place = _pack(members["a.txt"], tmp_path / "root", tmp_path)
    (tmp_path / "both.zip").unlink()
    assert prepare(members["a.txt"], tmp_path / "root", tmp_path / "cache") == place
    with pytest.raises(RequestError, match=r"both\.zip"):
        prepare(members["b.txt"], tmp_path / "root", tmp_path / "cache")


def test_the_same_files_in_other_roles_are_other_data(tmp_path: Path) -> None:
    made = {}
    for name in ("x.txt", "y.txt"):
        (tmp_path / name).write_text(LINES if name == "x.txt" else "1 1\n")
    for roles in (("events", "more"), ("more", "events")):
        files = tuple(
            FileSource(role, str(tmp_path / name))
            for role, name in zip(roles, ("x.txt", "y.txt"), strict=True)
        )
        made[roles] = replace(find_entry("synthetic-tiny"), files=files)
    first, second = made.values()
    sources = {name: file_sha256(tmp_path / name) for name in ("x.txt", "y.txt")}
    names = [
        prepared_name(entry, {f.role: (sources[Path(f.path).name], None) for f in entry.files})
        for entry in (first, second)
    ]
    assert names[0] != names[1]
    folder = tmp_path / "root" / "prepared" / names[0]
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"sources": sources, "statistics": {}}))
    for name in sources:
        (tmp_path / name).unlink()
    first, second = (replace(entry, expected={}) for entry in (first, second))
    assert find_packed(first, [tmp_path / "root"]) == folder
    assert find_packed(second, [tmp_path / "root"]) is None


@pytest.mark.parametrize("optional", [False, True])
def test_a_file_that_was_changed_is_read_again(
    optional: bool, own: DatasetEntry, tmp_path: Path
) -> None:
    own = replace(own, files=tuple(replace(file, optional=optional) for file in own.files))
    cache = tmp_path / "cache"
    cache.mkdir()
    first = prepare(own, cache, cache)
    assert prepare(own, cache, cache) == first  # the cache is a data root: found as packed
    (tmp_path / "events.txt").write_text(LINES + "30 1 2 3\n")
    second = prepare(own, cache, cache)
    assert second != first
    assert load_prepared(second).fingerprint != load_prepared(first).fingerprint
    assert prepare(own, cache, cache) == second


def test_a_changed_file_below_a_root_is_read_again(own: DatasetEntry, tmp_path: Path) -> None:
    below = replace(own, files=tuple(replace(file, path="events.txt") for file in own.files))
    root = tmp_path / "root"
    root.mkdir()
    (root / "events.txt").write_text(LINES)
    shutil.copytree(made := prepare(below, root, tmp_path / "a"), root / "prepared" / made.name)
    assert prepare(below, root, tmp_path / "cache") == root / "prepared" / made.name
    (root / "events.txt").write_text(LINES + "30 1 2 3\n")
    assert prepare(below, root, tmp_path / "cache").is_relative_to(tmp_path / "cache")


def test_damaged_tensors_are_not_taken(tmp_path: Path) -> None:
    entry = find_entry("synthetic-tiny")
    place = _pack(entry, tmp_path / "root", tmp_path)
    content = bytearray((place / "tensors.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "tensors.safetensors").write_bytes(content)
    made = prepare(entry, tmp_path / "root", tmp_path / "cache")
    assert made.is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "name": "synthetic-tiny"}'])
def test_what_is_no_description_is_passed_over(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "root" / "prepared" / "synthetic-tiny-0"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(text)
    made = prepare("synthetic-tiny", tmp_path / "root", tmp_path / "cache")
    assert made.is_relative_to(tmp_path / "cache")


def test_without_polars_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = find_entry("synthetic-tiny")
    place = _pack(entry, tmp_path / "root", tmp_path)
    monkeypatch.delitem(sys.modules, "datamodules.preprocess")
    monkeypatch.setitem(sys.modules, "polars", None)
    assert prepare(entry, tmp_path / "root", tmp_path / "cache") == place
    with pytest.raises(RequestError, match=r"synthetic-tiny: preparing needs polars: pip install"):
        prepare(entry, cache=tmp_path / "cache")
