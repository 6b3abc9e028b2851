import re
from pathlib import Path
from typing import Any

import pytest

from datamodules.catalog import DatasetEntry, catalog, find_entry, user_entry
from datamodules.errors import DatasetNotFoundError, RequestError
from datamodules.readers.registry import READERS
from datamodules.recipe import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
ENTRIES = list(catalog().values())
MINE = {"reader": "table", "files": {"events": "events.csv"}}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entry_is_complete(entry: DatasetEntry) -> None:
    assert entry.reader in READERS
    assert re.fullmatch(r"[a-z0-9-]+", entry.name)
    assert entry.files or entry.reader == "synthetic"
    assert entry.licence
    for source in entry.files:
        assert source.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", source.sha256)
        assert not Path(source.path).is_absolute()
        assert source.url is None or source.url.startswith(("https://", "http://", "hf://"))


def test_only_generated_data_is_redistributable() -> None:
    assert {e.name for e in ENTRIES if e.redistributable} == {"synthetic", "synthetic-tiny"}


def test_find_entry_offers_close_names() -> None:
    assert find_entry("beauty").expected["users"] == 22363
    with pytest.raises(DatasetNotFoundError, match=r"mean 'beauty'\? known: syn") as error:
        find_entry("beuty")
    assert all(entry.name in str(error.value) for entry in ENTRIES)


def test_user_entry_has_alternatives_and_defaults(tmp_path: Path) -> None:
    entry = user_entry(
        "mine",
        {
            "reader": "table",
            "files": {"events": ["a.csv", {"path": "b.csv", "sha256": "0" * 64}]},
            "options": {"user": "uid"},
            "recipe": {"k_core": 5, "min_rating": 3, "actions": ["buy"]},
        },
    )
    assert entry.title == "mine"
    assert entry.recipe == Recipe(k_core=5, min_rating=3, actions=("buy",))
    here = str(Path.cwd())
    assert [s.path for s in entry.files] == ["a.csv", "b.csv", f"{here}/a.csv", f"{here}/b.csv"]
    assert not entry.redistributable


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({**MINE, "raeder": "table"}, "dataset 'mine': unknown key 'raeder'; known: reader"),
        ({"files": {"events": "x"}}, "dataset 'mine': 'reader' is missing"),
        ({**MINE, "name": "other"}, "unknown key 'name'"),
        ({**MINE, "files": "x.csv"}, "mine': files: expected keys and values, found 'x.csv'"),
        ({**MINE, "files": {"events": {"url": "x"}}}, "files: events: 'path' is missing"),
        ({**MINE, "files": {"events": 3}}, "files: events: expected keys and values, found 3"),
        ({**MINE, "recipe": {"kcore": 5}}, "recipe: unknown key 'kcore'; known: k_core"),
        ({**MINE, "recipe": {"k_core": "five"}}, "recipe: k_core: expected int, found 'five'"),
        ({**MINE, "recipe": {"k_core": True}}, "recipe: k_core: expected int, found True"),
        ({**MINE, "recipe": {"split": "loo"}}, "recipe: split: expected .*leave_one_out"),
        ({**MINE, "recipe": {"actions": [1]}}, r"recipe: actions: expected .*found \[1\]"),
        ({**MINE, "expected": {"user": 5}}, "expected: unknown key 'user'"),
        ({**MINE, "options": 5}, "options: expected .*Mapping.* found 5"),
        ("events.csv", "dataset 'mine': expected keys and values, found 'events.csv'"),
    ],
)
def test_user_entry_refuses_in_one_line(mapping: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        user_entry("mine", mapping)
    assert "\n" not in str(caught.value)


def test_user_entry_cannot_shadow_the_catalogue() -> None:
    with pytest.raises(RequestError, match="'beauty' is in the catalogue already"):
        user_entry("beauty", MINE)


def row(entry: DatasetEntry) -> str:
    counts = [entry.expected.get(key) for key in ("users", "items", "interactions")]
    numbers = ["not stated" if count is None else f"{count:,}" for count in counts]
    urls = [source.url for source in entry.files if source.url]
    urls = [u.replace("hf://", "https://huggingface.co/").replace("@", "/resolve/") for u in urls]
    origin = "generated" if not entry.files else f"[download]({urls[0]})" if urls else "bring it"
    beyond = ", ".join(entry.features) or "none"
    return f"| `{entry.name}` | {entry.title} | {' | '.join(numbers)} | {beyond} | {origin} |"


def test_page_has_the_catalogue() -> None:
    header = "| name | data | users | items | interactions | beyond users and items | from |"
    table = "\n".join([header, "|---|---|--:|--:|--:|---|---|", *map(row, ENTRIES)])
    text = PAGE.read_text(encoding="utf-8")
    assert table in text, f"docs/datasets.md should have this table:\n{table}"
    for licence in {entry.licence for entry in ENTRIES}:
        names = ", ".join(f"`{e.name}`" for e in ENTRIES if e.licence == licence)
        line = f"- {licence} ({names})"
        assert line in text, f"docs/datasets.md should have this line:\n{line}"
    for entry in ENTRIES:
        for note in entry.notes:
            line = f"- `{entry.name}`: {note}"
            assert line in text, f"docs/datasets.md should have this line:\n{line}"
