"""The reader of tables with named columns, and of hub datasets, on small files."""

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from datamodules.errors import FormatError, RequestError
from datamodules.readers.registry import read_events
from tests.datamodules.test_readers import refuse, rows, write

CSV = 'uid,title,asin,when\n007,"a, b",x,5\n8,"line\nbreak",y,\n'
OPTIONS = {"user": "uid", "item": "asin", "timestamp": "when"}


def test_csv_keeps_ids_and_quoted_text(tmp_path: Path) -> None:
    for name in ("events_csv", "events_csv_gz"):
        table = read_events(
            "table", write(tmp_path, **{name: CSV}), {**OPTIONS, "item_text": "title"}
        )
        assert rows(table, "user", "item", "timestamp") == [("007", "x", 5), ("8", "y", None)]
        assert table.item_texts is not None
        assert table.item_texts.rows() == [("x", "a, b"), ("y", "line\nbreak")]


def test_canonical_columns_need_no_options_and_others_stay_out(tmp_path: Path) -> None:
    text = "user\titem\taction\trating\tsplit\tsession\tprice\n3\t0\tbuy\t4.5\ttest\ts1\t9\n"
    table = read_events("table", write(tmp_path, events_tsv=text), {})
    assert table.events.collect().row(0, named=True) == {
        "user": 3,
        "item": 0,
        "action": "buy",
        "rating": 4.5,
        "session": "s1",
        "split": "test",
    }


def test_headerless_csv(tmp_path: Path) -> None:
    files = write(tmp_path, events_csv="1,2,3\n4,5,6\n")
    table = read_events("table", files, {"header": ["item", "user", "timestamp"]})
    assert rows(table, "user", "item", "timestamp") == [(2, 1, 3), (5, 4, 6)]


def test_json_lines(tmp_path: Path) -> None:
    events = [
        {"user": 1, "item": "a", "tags": ["x", "y"], "nested": {"k": 1}},
        {"user": 2, "item": "", "tags": None},
        {"user": 3, "item": "b", "tags": ["y"]},
    ]
    text = "".join(json.dumps(event) + "\n" for event in events)
    table = read_events("table", write(tmp_path, events_jsonl_gz=text), {"item_features": ["tags"]})
    assert rows(table) == [(1, "a"), (2, None), (3, "b")]
    assert table.item_features["tags"].rows() == [("a", "x"), ("a", "y"), ("b", "y")]


def test_parquet_with_items_beside_it(tmp_path: Path) -> None:
    events, items = tmp_path / "events.parquet", tmp_path / "items.parquet"
    pl.DataFrame(
        {"user": ["u", "u", "v"], "item": [1, 2, 2], "action": ["b", "a", "a"], "step": [2, 1, 0]},
        schema_overrides={"action": pl.Categorical, "item": pl.UInt32},
    ).write_parquet(events)
    pl.DataFrame({"item": [1, 1, 2], "kind": ["p", "q", None]}).write_parquet(items)
    options = {"order": "step", "item_features": ["kind"]}
    table = read_events("table", {"events": events, "items": items}, options)
    assert rows(table) == [("v", 2, "a"), ("u", 2, "a"), ("u", 1, "b")]
    assert table.item_features["kind"].rows() == [(1, "p"), (1, "q")]


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        (["1500", "2500"], "ms", [1, 2]),
        (["1500", ""], "s", [1500, None]),
        (["1600799751.75", "7", "-1.5"], "s", [1600799751, 7, -2]),
        (["1600799751123.75", ""], "ms", [1600799751, None]),
        (["7300000000", "4102444800"], "s", [7300000000, 4102444800]),  # numbers beyond dates
        (["1970-01-02", "1970-01-03"], "date", [86400, 172800]),
        (["1970-01-01 00:01:00 UTC", "1970-01-01 00:00:01 UTC"], "date", [60, 1]),
    ],
)
def test_time_units(tmp_path: Path, values: list[str], unit: str, expected: list[Any]) -> None:
    text = "user,timestamp,item\n" + "".join(f"1,{value},2\n" for value in values)
    table = read_events("table", write(tmp_path, events_csv=text), {"time_unit": unit})
    assert table.events.collect()["timestamp"].to_list() == expected


def test_floating_point_times_lose_their_fraction(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pl.DataFrame({"user": [1, 1], "item": [1, 2], "timestamp": [1.6e9 + 0.5, None]}).write_parquet(
        path
    )
    found = rows(read_events("table", {"events": path}, {}), "timestamp")
    assert found == [(1_600_000_000,), (None,)]


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (
            "1600799751123",
            {},
            "timestamp 1600799751123 is no time in seconds but looks like milliseconds: "
            "set time_unit: ms",
        ),
        ("1600799751123.5", {}, "looks like milliseconds: set time_unit: ms"),
        (
            "1600799751123456",
            {},
            "looks like microseconds: divide the times by 1,000 and set time_unit: ms",
        ),
        (
            "1600799751123456789",
            {},
            "looks like nanoseconds: divide the times by 1,000,000 and set time_unit: ms",
        ),
        (
            "1600799751123456",
            {"time_unit": "ms"},
            "is no time in milliseconds but looks like microseconds: divide the times by 1,000",
        ),
        (
            "2019-10-01",
            {},
            r"timestamp is not a number \(for dates set time_unit: date\): '2019-10-01'",
        ),
        ("2019-10-01 12:30:00 UTC", {"time_unit": "ms"}, "for dates set time_unit: date.*"),
        ("2019-10-01T12:30:00Z", {}, "for dates set time_unit: date.*"),
    ],
)
def test_times_of_another_unit_are_refused(
    tmp_path: Path, value: str, options: dict[str, str], message: str
) -> None:
    text = f"user,item,timestamp\n1,2,\n1,2,1500\n1,3,{value}\n"
    refuse("table", write(tmp_path, events_csv=text), rf"events\.csv:4: .*{message}$", **options)


def test_parquet_times(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    frame = pl.DataFrame({"user": [1], "item": [1], "timestamp": ["1970-01-01 01:00"]})
    frame.with_columns(pl.col("timestamp").str.to_datetime()).write_parquet(path)
    assert rows(read_events("table", {"events": path}, {}), "timestamp") == [(3600,)]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("events_csv", CSV, {}, r"events\.csv: no column 'user'; it has: uid, title, asin, when"),
        ("events_csv", CSV, {**OPTIONS, "rating": "stars"}, "no column 'stars'; it has: uid"),
        ("events_csv", "user,item\n1,2\n3\n", {}, r"events\.csv:3: 1 fields, expected 2"),
        ("events_csv", "user,item\n1,2\n3,4,5\n", {}, r"events\.csv:3: 3 fields, expected 2"),
        (
            "events_csv",
            "user,item,rating\n1,2,3\n1,2,x\n",
            {},
            r"events\.csv:3: rating is not a number: 'x'",
        ),
        (
            "events_tsv",
            "user\titem\ttimestamp\n1\t2\tnoon\n",
            {},
            r"events\.tsv:2: timestamp is not a number: 'noon'",
        ),
        ("events_csv", "", {}, r"events\.csv: the file is empty"),
        ("events_csv", "user,item\r1,2\r", {}, r"events\.csv:1: line breaks are \\r alone"),
        ("events_csv", "user,item\n1,2\r3,\n", {}, r"events\.csv:2: line breaks are \\r alone"),
        (
            "events_jsonl",
            '{"user": 1, "item": 2}\n{"user": \n',
            {},
            r"events\.jsonl:2: invalid JSON",
        ),
        ("events_jsonl", "user,item\n", {}, r"events\.jsonl:1: invalid JSON"),
        ("events_jsonl", '{"user": 1, "it": 2}\n', {}, "no column 'item'; it has: user, it"),
        ("events_parquet", "PAR1 no", {}, r"events\.parquet: cannot be read as parquet"),
        ("events_xlsx", "x", {}, r"events\.xlsx: unknown kind of table; known: \.csv"),
    ],
)
def test_bad_tables_are_named(
    tmp_path: Path, name: str, text: str, options: dict[str, str], message: str
) -> None:
    refuse("table", write(tmp_path, **{name: text}), message, **options)


def test_parquet_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pl.DataFrame({"user": ["u", "v"] * 50, "item": range(100)}).write_parquet(path)
    stored = bytearray(path.read_bytes())
    stored[8:40] = bytes(32)
    path.write_bytes(stored)
    refuse("table", {"events": path}, r"events\.parquet: damaged parquet file: ")


def test_a_cell_that_begins_with_a_bracket_is_a_list(tmp_path: Path) -> None:
    text = 'user,item,tags\n1,a,plain\n1,b,"[""x"", ""y"", 2]"\n1,c,\n1,d,[]\n'
    table = read_events("table", write(tmp_path, events_csv=text), {"item_features": ["tags"]})
    found = table.item_features["tags"].rows()
    assert found == [("a", "plain"), ("b", "x"), ("b", "y"), ("b", "2")]


@pytest.mark.parametrize("cell", ["['g5', 'x0']", "[none]", '["a"', '["a", ["b"]]', "[" + 99 * "x"])
@pytest.mark.parametrize("first", ["plain", '["a"]'])
def test_lists_that_are_no_json_are_named(tmp_path: Path, first: str, cell: str) -> None:
    tags = [f'"{value.replace(chr(34), 2 * chr(34))}"' for value in (first, cell)]
    items = "".join(f"{item},{tag}\n" for item, tag in zip("ab", tags, strict=True))
    files = write(tmp_path, events_csv="user,item\n1,a\n", items_csv=f"item,tags\n{items}")
    with pytest.raises(FormatError) as caught:
        read_events("table", files, {"item_features": ["tags"]})
    line = str(caught.value)
    assert line.startswith(f"{files['items']}:3: tags begins with [ but is no JSON list")
    assert repr(cell)[:70] in line
    assert line.endswith('; write lists as JSON: ["a", "b"]')
    assert len(line.splitlines()) == 1


def test_bad_dates_are_named(tmp_path: Path) -> None:
    files = write(tmp_path, events_csv="user,item,timestamp\n1,2,2020-01-01\n1,2,soon\n")
    refuse("table", files, "events.csv:3: timestamp is not a date: 'soon'", time_unit="date")
    first = write(tmp_path, events_csv="user,item,timestamp\n1,2,\n1,2,soon\n")
    refuse("table", first, "events.csv:3: timestamp is not a date: 'soon'", time_unit="date")
    with pytest.raises(RequestError, match="time_unit is s, ms or date, not 'h'"):
        read_events("table", files, {"time_unit": "h"})


def test_hub_dataset_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, temporary = tmp_path / "repository", tmp_path / "temporary"
    (repository / "data").mkdir(parents=True)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # or its thread outlives the test
    (repository / "data" / "train.csv").write_text("uid,asin,when\n5,x,1500\n4,y,2500\n")
    options = {**OPTIONS, "hub": str(repository), "time_unit": "ms"}
    table = read_events("table", {}, options)
    assert rows(table) == [(5, "x", 1), (4, "y", 2)]
    with pytest.raises(FormatError, match=r"hub dataset .*: no column 'stars'; it has: uid, asin"):
        read_events("table", {}, {**options, "rating": "stars"})
    with pytest.raises(RequestError, match=r"^hub dataset .*nowhere"):
        read_events("table", {}, {"hub": str(tmp_path / "nowhere")})
    assert not list(temporary.iterdir())


def test_runs_of_one_item_and_action_keep_their_first_event(tmp_path: Path) -> None:
    lines = [
        "user,session,timestamp,item,action",
        "u,1,10,a,look",
        "u,1,11,a,look",  # repeats
        "v,9,11,a,look",  # another user
        "u,1,12,,search",  # names no item: does not come between
        "u,1,13,a,look",  # repeats
        "u,1,14,a,buy",  # another action
        "u,1,15,a,look",
        "u,2,16,a,look",  # another session
        "u,2,18,b,look",
        "u,2,17,a,look",  # in time before b: repeats
        "v,9,12,a,look",  # repeats
        "v,9,13,b,",
        "v,9,14,b,",  # repeats: the same lack of an action
    ]
    files = write(tmp_path, events_csv="\n".join(lines) + "\n")
    kept = rows(read_events("table", files, {"collapse_repeats": True}), "user", "timestamp")
    gone = {("u", 11), ("u", 13), ("u", 17), ("v", 12), ("v", 14)}
    everything = rows(read_events("table", files, {}), "user", "timestamp")
    assert len(everything) == 13
    assert kept == [row for row in everything if row not in gone]


def test_without_times_sessions_and_actions_runs_are_those_of_rows(tmp_path: Path) -> None:
    text = "user,item\n1,a\n2,a\n1,a\n1,b\n1,a\n2,a\n"
    found = read_events("table", write(tmp_path, events_csv=text), {"collapse_repeats": True})
    assert rows(found) == [(1, "a"), (2, "a"), (1, "b"), (1, "a")]
