"""Every reader on small files in its format, and on files that are wrong."""

import gzip
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from datamodules.errors import FormatError, RequestError
from datamodules.readers import lines
from datamodules.readers.base import EventTable
from datamodules.readers.registry import READERS, read_events

BEAUTY = "1 1 2 3\n2 2 2\n0 3\n"


def write(folder: Path, **texts: str | bytes) -> dict[str, Path]:
    """Files by role; `events_csv` becomes role "events" in `events.csv`."""
    found = {}
    for name, text in texts.items():
        role, _, suffix = name.partition("_")
        path = folder / (f"{role}.{suffix.replace('_', '.')}" if suffix else role)
        content = text.encode() if isinstance(text, str) else text
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        found[role] = path
    return found


def rows(table: EventTable, *columns: str) -> list[tuple[Any, ...]]:
    return table.events.collect().select(columns or pl.all()).rows()


def refuse(reader: str, files: Mapping[str, Path], message: str, **options: Any) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_events(reader, files, options).events.collect()
    assert "\n" not in str(caught.value)


OF_ANOTHER_TYPE: list[tuple[dict[str, Any], str]] = [
    ({"item_features": "nope"}, r"list\[str\] \| None, found 'nope'"),
    ({"item_features": ["a", 5]}, r"list\[str\] \| None, found \['a', 5\]"),
    ({"header": 5}, r"list\[str\] \| None, found 5"),
    ({"user": 5}, r"str \| None, found 5"),
    ({"time_unit": ["s"]}, r"Literal\['s', 'ms', 'date'\], found \['s'\]"),
    ({"collapse_repeats": "yes"}, "bool, found 'yes'"),
]


def test_a_long_value_is_cut_short(tmp_path: Path) -> None:
    files = write(tmp_path, events="1 " + "x" * 100_000)
    for reader in ("pair_text", "sequence_text"):
        with pytest.raises(FormatError, match=r"number: 'x{80}…'$"):
            read_events(reader, files, {})


def test_registry_refuses_unknown_readers_options_and_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"did you mean 'movielens'\? known: amazon"):
        read_events("movie_lens", {}, {})
    with pytest.raises(RequestError, match="no option 'years'; it has: release"):
        read_events("amazon", {}, {"years": 2014})
    with pytest.raises(RequestError, match="'pair_text' has no option 'user'; it has: none"):
        read_events("pair_text", {}, {"user": "u"})
    with pytest.raises(RequestError, match=r"'movielens' needs the option 'release': .*'100k'"):
        read_events("movielens", {}, {})
    for options, expected in OF_ANOTHER_TYPE:
        with pytest.raises(RequestError, match=rf"'table': option '\w+': expected {expected}"):
            read_events("table", {}, options)
    with pytest.raises(RequestError, match="unknown file 'event'; the reader knows: events, times"):
        read_events("sequence_text", {"event": tmp_path}, {})
    with pytest.raises(RequestError, match="no file 'events'"):
        read_events("sequence_text", {}, {})


def test_importing_readers_loads_neither_datasets_nor_lightning() -> None:
    imports = "; ".join(f"import {module}" for module in READERS.values())
    check = "import sys; assert not {'datasets', 'lightning', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{imports}; {check}"], check=True)


# sequence text


@pytest.mark.parametrize("suffix", ["txt", "txt_gz"])
def test_sequence_text(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 5)  # several blocks, borders within lines
    files = write(
        tmp_path,
        **{f"events_{suffix}": BEAUTY, f"times_{suffix}": "1 10 20 30\n2 5 5\n0 7\n"},
        attributes_json='{"1": [4, 5], "3": [5], "2": []}',
        labels_tsv="item\tmovie\ttitle\tgenres\n1\t31\tOne (1999)\tDrama|War\n3\t8\tÉté\tWar\n",
    )
    table = read_events("sequence_text", files, {})
    assert table.events.collect().columns == ["user", "item", "timestamp"]
    assert rows(table) == [(1, 1, 10), (1, 2, 20), (1, 3, 30), (2, 2, 5), (2, 2, 5), (0, 3, 7)]
    assert table.item_features["attribute"].rows() == [(1, 4), (1, 5), (3, 5)]
    assert table.item_features["genre"].rows() == [("1", "Drama"), ("1", "War"), ("3", "War")]
    assert table.item_texts is not None
    assert table.item_texts.rows() == [("1", "One (1999)"), ("3", "Été")]


def test_sequence_text_reads_tabs_and_a_last_line_without_break(tmp_path: Path) -> None:
    files = write(tmp_path, events="7\t1  2 \r\n8 3")
    assert rows(read_events("sequence_text", files, {})) == [(7, 1), (7, 2), (8, 3)]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("1 1 2\n2 1 x9 3\n", r"events:2: not a number: 'x9'"),
        ("1 1 2\n2 1.5\n", r"events:2: not a number: '1.5'"),
        ("1 1 2\n\n2 1\n", r"events:2: expected a user and items"),
        ("1 1 2\n2\n", r"events:2: expected a user and items"),
        ("", r"events: the file has no lines"),
    ],
)
def test_sequence_text_names_the_bad_line(tmp_path: Path, events: str, message: str) -> None:
    refuse("sequence_text", write(tmp_path, events=events), message)


def test_sequence_text_names_the_bad_line_in_a_later_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 5)
    refuse("sequence_text", write(tmp_path, events=BEAUTY + "4 5\n5 no\n"), "events:5: .*'no'")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("1 10 20\n2 5 5\n0 7\n", "times:1: 2 times of user 1, but events has 3 items of user 1"),
        ("1 10 20 30\n3 5 5\n0 7\n", "times:2: 2 times of user 3, but .* of user 2"),
        ("1 10 20 30\n2 5 5\n", "times: 2 lines, but events has 3"),
        ("1 10 20 30\n2 5 ?\n0 7\n", r"times:2: not a number: '\?'"),
    ],
)
def test_sequence_text_refuses_ragged_times(tmp_path: Path, times: str, message: str) -> None:
    refuse("sequence_text", write(tmp_path, events=BEAUTY, times=times), message)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('{"1": [4]\n, "2": }', "attributes:2: invalid JSON: Expecting value"),
        ("[1, 2]", "attributes: expected a JSON object"),
        ('{"a": [4]}', "attributes: expected a JSON object"),
        ('{"1": ["x"]}', "attributes: expected a JSON object"),
    ],
)
def test_sequence_text_refuses_attributes(tmp_path: Path, attributes: str, message: str) -> None:
    refuse("sequence_text", write(tmp_path, events=BEAUTY, attributes=attributes), message)


def test_sequence_text_refuses_labels(tmp_path: Path) -> None:
    files = write(tmp_path, events=BEAUTY, labels="item\ttitle\n1\tOne\n")
    refuse("sequence_text", files, "labels:1: 2 fields, expected 4")
    files = write(tmp_path, events=BEAUTY, labels="item\tfilm\ttitle\tgenres\n")
    refuse("sequence_text", files, "labels:1: expected the header item movie title genres")


# damaged files, whatever the reader


@pytest.mark.parametrize(
    ("reader", "options"),
    [
        ("sequence_text", {}),
        ("pair_text", {}),
        ("amazon", {"release": 2014}),
        ("movielens", {"release": "100k"}),
        ("steam", {}),
        ("table", {}),
    ],
)
def test_truncated_gzip_is_named(tmp_path: Path, reader: str, options: dict[str, Any]) -> None:
    files = write(tmp_path, events_csv_gz="user,item\n1,2\n" * 500)
    whole = files["events"].read_bytes()
    files["events"].write_bytes(whole[: len(whole) // 2])
    refuse(reader, files, r"events\.csv\.gz: truncated gzip file", **options)
    files["events"].write_bytes(whole[:20] + bytes(20) + whole[40:])
    refuse(reader, files, r"events\.csv\.gz: damaged gzip file", **options)
    files["events"].unlink()
    refuse(reader, files, r"events\.csv\.gz: cannot be read: No such file", **options)


def test_undecodable_text_is_named(tmp_path: Path) -> None:
    files = write(tmp_path, events=BEAUTY, labels=b"item\tmovie\ttitle\tgenres\n1\t2\t\xe9\tx\n")
    refuse("sequence_text", files, "labels:2: not utf-8 text")


# pair text


def test_pair_text(tmp_path: Path) -> None:
    files = write(tmp_path, events_txt_gz="1 5\n1 0\n2 5\n1 5\n")
    assert rows(read_events("pair_text", files, {})) == [(1, 5), (1, 0), (2, 5), (1, 5)]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("1 5\n1\n", "events:2: 1 fields, expected 2"),
        ("1 5\n1 2 3\n", "events:2: 3 fields, expected 2"),
        ("1 5\n1 five\n", "events:2: item is not a number: 'five'"),
        ("", "events: the file has no events"),
    ],
)
def test_pair_text_names_the_bad_line(tmp_path: Path, events: str, message: str) -> None:
    refuse("pair_text", write(tmp_path, events=events), message)


# MovieLens


def test_movielens_100k(tmp_path: Path) -> None:
    flags = "|".join("1" if place in (1, 3) else "0" for place in range(19))
    files = write(
        tmp_path,
        events_gz="196\t242\t3\t881250949\n186\t302\t4\t891717742\n",
        items=f"242|Été (1995)|01-Jan-1995||http://x|{flags}\n".encode("latin-1"),
        users="196|49|M|writer|55105\n",
    )
    table = read_events("movielens", files, {"release": "100k"})
    assert rows(table) == [(196, 242, 3.0, 881250949), (186, 302, 4.0, 891717742)]
    assert table.item_features["genre"].rows() == [("242", "Action"), ("242", "Animation")]
    assert table.item_features["year"].rows() == [("242", "1995")]
    assert table.item_texts is not None
    assert table.item_texts.rows() == [("242", "Été (1995)")]
    assert {name: frame.rows() for name, frame in table.user_features.items()} == {
        "gender": [("196", "M")],
        "age": [("196", "49")],
        "occupation": [("196", "writer")],
    }


def test_movielens_1m(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        events_dat="1::1193::5::978300760\n1::661::3::978302109\n",
        items="661::James: the Peach (1996)::Animation|Musical\n1193::Élan::Drama\n".encode(
            "latin-1"
        ),
        users="1::F::1::10::48067\n",
    )
    table = read_events("movielens", files, {"release": "1m"})
    assert rows(table) == [(1, 1193, 5.0, 978300760), (1, 661, 3.0, 978302109)]
    genres = [("661", "Animation"), ("661", "Musical"), ("1193", "Drama")]
    assert table.item_features["genre"].rows() == genres
    assert table.item_features["year"].rows() == [("661", "1996"), ("1193", None)]
    assert table.user_features["age"].rows() == [("1", "under 18")]


def test_movielens_1m_by_order(tmp_path: Path) -> None:
    path = tmp_path / "ratings.parquet"
    frame = {"user": [2, 1, 1], "movie": [5, 6, 7], "rating": [3, 4, 5], "order": [1, 2, 1]}
    pl.DataFrame(frame).write_parquet(path)
    table = read_events("movielens", {"events": path}, {"release": "1m"})
    assert rows(table, "user", "item", "rating") == [(1, 7, 5.0), (1, 6, 4.0), (2, 5, 3.0)]
    pl.DataFrame(frame).drop("order").write_parquet(path)
    refuse("movielens", {"events": path}, r"ratings\.parquet: .*order", release="1m")


def test_movielens_20m(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        events_csv="userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n",
        items_csv='movieId,title,genres\n2,"Postman, The (1997)",Drama|Sci-Fi\n3,X,'
        "(no genres listed)\n",
    )
    table = read_events("movielens", files, {"release": "20m"})
    assert rows(table, "user", "item", "rating", "timestamp") == [(1, 2, 3.5, 1112486027)]
    assert table.item_features["genre"].drop_nulls().rows() == [("2", "Drama"), ("2", "Sci-Fi")]
    assert table.item_texts is not None
    assert table.item_texts.rows() == [("2", "Postman, The (1997)"), ("3", "X")]


@pytest.mark.parametrize(
    ("release", "texts", "message"),
    [
        ("100k", {"events": "1\t2\t3\n"}, "events:1: 3 fields, expected 4"),
        ("100k", {"events": "1\t2\tbad\t4\n"}, "events:1: rating is not a number: 'bad'"),
        ("1m", {"events": "1::2::3::4\n1::2::3\n"}, "events:2: 3 fields, expected 4"),
        ("1m", {"events": "1::2::3::x\n"}, "events:1: timestamp is not a number: 'x'"),
        ("1m", {"events": "1::2::3::4\n", "items": "1::X\n"}, "items:1: 2 fields, expected 3"),
        (
            "20m",
            {"events": "user,item,rating,ts\n"},
            "events:1: expected the header 'userId,movieId",
        ),
        (
            "20m",
            {"events": "userId,movieId,rating,timestamp\n1,2,3,4\n1,2,,4\n"},
            "events:3: rating is missing",
        ),
    ],
)
def test_movielens_names_the_bad_line(
    tmp_path: Path, release: str, texts: dict[str, str], message: str
) -> None:
    refuse("movielens", write(tmp_path, **texts), message, release=release)


def test_movielens_refuses_other_releases(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no release '10m'; known: 100k, 1m, 20m"):
        read_events("movielens", write(tmp_path, events="1"), {"release": "10m"})


# Amazon

OLD = {"reviewerID": "A1", "asin": "0001", "overall": 5.0, "unixReviewTime": 1378425600}
NEW = {"user_id": "A1", "parent_asin": "B1", "rating": 4.0, "timestamp": 1588687728923}


def json_lines(*objects: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in objects)


@pytest.mark.parametrize("release", [2014, 2018])
def test_amazon_old_json(tmp_path: Path, release: int) -> None:
    review = {**OLD, "reviewText": "née\n", "helpful": [1, 2], "style": {"Size:": "5"}}
    files = write(tmp_path, events_json_gz=json_lines(review, {**OLD, "reviewerID": "7"}))
    expected = [("A1", "0001", 5.0, 1378425600), ("7", "0001", 5.0, 1378425600)]
    assert rows(read_events("amazon", files, {"release": release})) == expected


def test_amazon_2023_json_in_seconds(tmp_path: Path) -> None:
    files = write(tmp_path, events=json_lines({**NEW, "asin": "B2", "images": []}))
    assert rows(read_events("amazon", files, {"release": 2023})) == [("A1", "B1", 4.0, 1588687728)]


@pytest.mark.parametrize(
    ("release", "text", "time"),
    [
        (2014, "A1,0001,5.0,1378425600\n", 1378425600),
        (2018, "0001,A1,5.0,1378425600\n", 1378425600),
        (2023, "user_id,parent_asin,rating,timestamp\nA1,0001,5.0,1588687728923\n", 1588687728),
    ],
)
def test_amazon_csv(tmp_path: Path, release: int, text: str, time: int) -> None:
    table = read_events("amazon", write(tmp_path, events_csv_gz=text), {"release": release})
    assert rows(table, "user", "item", "rating", "timestamp") == [("A1", "0001", 5.0, time)]


@pytest.mark.parametrize(
    ("release", "text", "message"),
    [
        (2014, json_lines(OLD) + '{"asin": \n', "events:2: invalid JSON"),
        (2014, json_lines(OLD) + "[1, 2]\n", "events:2: not a JSON object"),
        (2014, json_lines(OLD, {**OLD, "overall": "good"}), "events:2: overall is not a number"),
        (2014, json_lines(OLD, {"asin": "1"}), "events:2: reviewerID is missing"),
        (2023, json_lines(OLD), "events: no key 'user_id'; the first line has: reviewerID, asin"),
        (2014, "A1,0001,5.0\n", "events:1: 3 fields, expected 4"),
        (2018, "0001,A1,5.0,13\n0001,A1,x,14\n", "events:2: rating is not a number: 'x'"),
        (2023, "user_id,asin,rating,timestamp\n", "events:1: expected the header 'user_id,parent"),
        (2014, "", "events: the file is empty"),
    ],
)
def test_amazon_names_the_bad_line(tmp_path: Path, release: int, text: str, message: str) -> None:
    refuse("amazon", write(tmp_path, events=text), message, release=release)


def test_amazon_refuses_other_releases(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no release 2016; known: 2014, 2018, 2023"):
        read_events("amazon", write(tmp_path, events="{}"), {"release": 2016})


# Steam

REVIEW = (
    "{u'username': u'Chäos', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17'}\n"
)


def test_steam(tmp_path: Path) -> None:
    table = read_events("steam", write(tmp_path, events_json_gz=REVIEW * 2), {})
    assert rows(table) == [("Chäos", 725280, 1513468800)] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'username': open('x')}\n", "events:2: expected a Python dict"),
        ("{'username': \n", "events:2: expected a Python dict"),
        ("[1]\n", "events:2: expected a Python dict"),
        ("\n", "events:2: expected a Python dict"),
        ("{'username': 'a'}\n", "events:2: no key 'product_id'; it has: username"),
        (REVIEW.replace("2017-12-17", "soon"), "events:2: date is not a day: 'soon'"),
    ],
)
def test_steam_names_the_bad_line(tmp_path: Path, line: str, message: str) -> None:
    refuse("steam", write(tmp_path, events=REVIEW + line), message)
