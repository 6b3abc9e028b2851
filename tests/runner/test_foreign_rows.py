"""Files of other systems: read as they are, or refused in one line."""

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from datamodules.errors import FormatError, RequestError
from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from intentbench.runner.foreign_rows import ForeignRows, Ids, Kind, read_rows

Write = Callable[[str, str | bytes], Path]


@pytest.fixture(scope="module")
def data() -> PreparedDataset:
    """Users are called "0" to "63", items "1" and on; all of them are their own number."""
    return load_prepared(prepare("synthetic-tiny"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def _values(rows: ForeignRows) -> list[tuple[int, int, float]]:
    return list(zip(rows.user.tolist(), rows.item.tolist(), rows.value.tolist(), strict=True))


def test_ids_of_the_data_are_looked_up(data: PreparedDataset, write: Write) -> None:
    users, items = data.original_ids("users"), data.original_ids("items")
    text = f'user,item,score\n"{users[5]}",{items[0]},2\n{users[1]},"{items[8]}",-1e-3\n'
    rows = read_rows(write("a.csv", text), data, "lists", "original", {})
    assert _values(rows) == [(5, 1, 2.0), (1, 9, -0.001)]
    assert rows.name_pair(1, 9) == f"user {users[1]!r} and item {items[8]!r}"
    packed = write("a.csv.gz", gzip.compress(text.encode()))
    assert _values(read_rows(packed, data, "lists", "original", {})) == _values(rows)


@pytest.mark.parametrize(
    ("frame", "kind", "columns"),
    [
        (  # as pandas writes what RecBole's full_sort_topk gives
            {"user_id": ["3", "3"], "item_id": ["4", "5"], "score": [0.5, 0.25]},
            "lists", {"user": "user_id", "item": "item_id"},
        ),
        (  # as RePlay's models predict
            {"query_id": [3, 3], "item_id": [4, 5], "rating": [0.5, 0.25]},
            "lists", {"user": "query_id", "item": "item_id", "score": "rating"},
        ),
        (  # numbers that a frame holds as floating ones, and pandas' categories
            {
                "user": pl.Series([3.0, 3.0], dtype=pl.Float32),
                "item": pl.Series(["4", "5"], dtype=pl.Categorical),
                "score": pl.Series([0.5, 0.25], dtype=pl.Float32),
            },
            "lists", {},
        ),
        (
            {"user": [3, 3], "item": [4, 5], "place": [1, 2]},
            "ranks", {"rank": "place"},
        ),
    ],
)  # fmt: skip
def test_columns_may_have_other_names_and_types(
    frame: dict[str, list[object] | pl.Series],
    kind: Kind,
    columns: dict[str, str],
    data: PreparedDataset,
    tmp_path: Path,
) -> None:
    path = tmp_path / "lists.parquet"
    pl.DataFrame(frame).write_parquet(path)
    values = [1.0, 2.0] if kind == "ranks" else [0.5, 0.25]
    found = _values(read_rows(path, data, kind, "prepared", columns))
    assert found == [(3, 4, values[0]), (3, 5, values[1])]


def test_ids_are_texts_also_where_they_look_like_numbers(
    data: PreparedDataset, write: Write
) -> None:
    path = write("a.csv", "user,item,score\n03,4,1\n")
    with pytest.raises(RequestError, match="1 user \\('03'\\) not in the prepared data"):
        read_rows(path, data, "lists", "prepared", {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["cannot be read", "empty"]),
        ("user,item,score\n", ["no rows"]),
        ("user,item,score\n3,4,1,9\n", ["cannot be read", "fields"]),
        ('user,item,score\n"3,4,1\n', ["cannot be read"]),
        (b"user,item,score\n\xff\xfe,4,1\n", ["cannot be read", "utf"]),
        ("user_id,item,score\n3,4,1\n", ["no column 'user'", "user_id", "--columns user="]),
        ("user;item;score\n3;4;1\n", ["no column 'user'", "user;item;score"]),
        ("user,item,score\n3,4,1\n3,,1\n", ["'item' is empty in 1 rows", "row 2"]),
        ("user,item,score\n3,4\n", ["'score' is empty"]),
        ("user,item,score\n3,4,1\n3,5,high\n", ["'score' has 1 values", "'high' in row 2"]),
        ("user,item,score\nx,4,1\ny,4,1\nz,4,1\nq,4,1\n", ["4 users ('x', 'y', 'z', …)"]),
        ("user,item,score\n3,4,1\n3,99999,1\n", ["1 item ('99999')", "not in the prepared"]),
        ("user,item,score\n3,0,1\n", ["1 item ('0')"]),
        ("user,item,score\n3.0,4,1\n", ["1 user ('3.0')", "floating numbers: write them as whole"]),
        ("user,item,score\n3.0,4,1\nx,4,1\n", ["2 users ('3.0', 'x')", "submissions.md on ids"]),
        ("user,item,score\n3,[PAD],1\n", ["1 item ('[PAD]')", "not in the prepared"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ids", ["prepared", "original"])
def test_files_that_are_refused(
    content: str | bytes, words: list[str], ids: Ids, data: PreparedDataset, write: Write
) -> None:
    path = write("lists.csv", content)
    with pytest.raises(RequestError) as refusal:
        read_rows(path, data, "lists", ids, {})
    line = str(refusal.value)
    assert "\n" not in line
    for word in [str(path), *words]:
        assert word in line


@pytest.mark.parametrize("rank", ["1.5", "nan", "inf", "first", "-inf"])
def test_ranks_are_whole(rank: str, data: PreparedDataset, write: Write) -> None:
    path = write("ranks.csv", f"user,item,rank\n3,4,2.0\n3,5,{rank}\n")
    with pytest.raises(RequestError, match="1 values that are no whole numbers") as refusal:
        read_rows(path, data, "ranks", "prepared", {})
    assert f"{rank!r} in row 2" in str(refusal.value)


def test_scores_may_be_infinite_until_it_is_known_whose(
    data: PreparedDataset, write: Write
) -> None:
    path = write("a.csv", "user,item,score\n3,4,-inf\n")
    assert _values(read_rows(path, data, "lists", "prepared", {})) == [(3, 4, -float("inf"))]


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("score", [True], "holds Boolean, no numbers"),
        ("score", [[1.0]], "no numbers"),
        ("user", [[3]], r"holds List\(Int64\), no ids; a row is one item"),
        ("item", [4.5], r"1 item \('4.5'\) not in"),
        ("item", [1e300], "holds Float64, no ids"),
        ("item", [float("nan")], r"1 item \('NaN'\) not in"),
        ("user", [None], "is empty in 1 rows"),
    ],
)
def test_columns_of_wrong_types(
    column: str, values: list[object], words: str, data: PreparedDataset, tmp_path: Path
) -> None:
    frame = pl.DataFrame({"user": [3], "item": [4], "score": [1.0]})
    path = tmp_path / "lists.parquet"
    frame.with_columns(pl.Series(column, values)).write_parquet(path)
    with pytest.raises(RequestError, match=words):
        read_rows(path, data, "lists", "prepared", {})


@pytest.mark.parametrize("name", ["lists.xlsx", "lists", "damaged.parquet", "damaged.csv.gz"])
def test_what_is_no_such_file(name: str, data: PreparedDataset, write: Write) -> None:
    with pytest.raises(RequestError, match=name):
        read_rows(write(name, b"\x1f\x8bnothing at all"), data, "lists", "original", {})


def test_a_file_that_is_not_there(data: PreparedDataset, tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(RequestError, match="no such file"):
            read_rows(tmp_path / name, data, "lists", "original", {})


def test_a_folder_as_spark_writes_it(data: PreparedDataset, tmp_path: Path) -> None:
    folder = tmp_path / "lists.parquet"
    folder.mkdir()
    with pytest.raises(FormatError, match=r"a folder without \.parquet files"):
        read_rows(folder, data, "lists", "prepared", {})
    for part, item in enumerate([5, 4]):
        frame = pl.DataFrame({"user": [3], "item": [item], "score": [0.5]})
        frame.write_parquet(folder / f"part-{part:05}-c0.snappy.parquet")
        (folder / f".part-{part:05}-c0.snappy.parquet.crc").write_bytes(b"crc\0")
    (folder / "_SUCCESS").touch()
    found = _values(read_rows(folder, data, "lists", "prepared", {}))
    assert found == [(3, 5, 0.5), (3, 4, 0.5)]
