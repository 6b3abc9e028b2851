import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from datamodules.errors import FormatError, RequestError
from datamodules.prepared import PreparedDataset
from datamodules.raw_texts import PUBLISHERS, read_id_map, read_raw_texts
from datamodules.texts import ItemText, RawTexts, Review, collect_texts
from intentbench.text import arguments
from intentbench.text.documents import offline_documents
from tests.text.toys import toy_dataset

META_2023: list[dict[str, Any]] = [
    {
        "parent_asin": "i1",
        "main_category": "All Beauty",
        "title": "Rose &amp; Lily Soap",
        "features": ["Hand made", "100 g"],
        "description": ["A soap.<br />Smells <b>nice</b>."],
        "categories": ["Beauty", "Soap", "Beauty"],
        "price": "None",
        "details": {"Brand": "Lush", "Weight": 3},
        "images": [],
    },
    {"parent_asin": "i2", "title": None, "categories": [], "price": 3.5, "details": {"Brand": 7}},
    {"parent_asin": "unknown", "title": "Another shop's", "details": {}},
]
REVIEWS_2023 = [
    {
        "rating": 5.0,
        "title": "Lovely",
        "text": "Smells of roses.<br />Will buy again.",
        "parent_asin": "i1",
        "user_id": "u0",
        "timestamp": 1_588_687_728_923,
        "verified_purchase": True,
    },
    {"rating": 1.0, "title": "", "text": "Broke", "parent_asin": "i3", "user_id": "u1"},
    {"rating": 3.0, "title": "x", "text": "y", "parent_asin": "i1", "user_id": "a stranger"},
    {"rating": 3.0, "title": "", "text": " ", "parent_asin": "i1", "user_id": "u2"},
]


@pytest.fixture(autouse=True)
def _no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # or its thread outlives the test


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    return toy_dataset(tmp_path / "toy")


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def test_amazon_2023_is_read_through_datasets(dataset: PreparedDataset, tmp_path: Path) -> None:
    raw = read_raw_texts(
        dataset,
        "amazon-2023",
        _lines(tmp_path / "Soap.jsonl", REVIEWS_2023),
        _lines(tmp_path / "meta_Soap.jsonl.gz", META_2023),
    )
    assert raw.items == {
        1: ItemText(
            "Rose & Lily Soap",
            ("All Beauty", "Beauty", "Soap"),
            "Hand made\n100 g\nA soap. Smells nice .",
        ),
        2: ItemText(),
    }
    assert list(raw.reviews) == [
        Review(0, 1, 1_588_687_728, 5.0, "Lovely\nSmells of roses. Will buy again."),
        Review(1, 3, None, 1.0, "Broke"),
    ]
    assert collect_texts(dataset, raw).items[1].title == "Rose & Lily Soap"


def test_fields_may_differ_from_line_to_line_in_a_long_file(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"parent_asin": f"x{n}", "title": None, "details": {f"k{n}": "v" * 2000}, "price": "None"}
        for n in range(6000)
    ]  # more than a block of the loader, 10 MiB
    rows.append({"parent_asin": "i9", "title": "Late\u2028one", "details": {"k": {"deep": 1}}})
    path = tmp_path / "meta.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    raw = read_raw_texts(dataset, "amazon-2023", metadata=str(path))
    assert raw.items == {9: ItemText("Late one")}


def test_parquet_is_read_too(dataset: PreparedDataset, tmp_path: Path) -> None:
    path = tmp_path / "reviews.parquet"
    pl.DataFrame(REVIEWS_2023).write_parquet(path)
    raw = read_raw_texts(dataset, "amazon-2023", str(path))
    assert [review.user for review in raw.reviews] == [0, 1]


def test_amazon_2018_keys_and_seconds(dataset: PreparedDataset, tmp_path: Path) -> None:
    review = {
        "reviewerID": "u3",
        "asin": "i4",
        "overall": 4.0,
        "unixReviewTime": 1_400_000_000,
        "summary": "Good",
        "reviewText": "Works.",
    }
    meta = {"asin": "i4", "title": "Saw", "category": ["Tools", "Saws"], "description": ["Sharp"]}
    raw = read_raw_texts(
        dataset,
        "amazon-2018",
        _lines(tmp_path / "r.json.gz", [review]),
        _lines(tmp_path / "m.json.gz", [meta]),
    )
    assert list(raw.reviews) == [Review(3, 4, 1_400_000_000, 4.0, "Good\nWorks.")]
    assert raw.items == {4: ItemText("Saw", ("Tools", "Saws"), "Sharp")}


def test_yelp_dates_and_categories(dataset: PreparedDataset, tmp_path: Path) -> None:
    business = {
        "business_id": "i5",
        "name": "Blue Door",
        "city": "Reno",
        "categories": "Bars, Pubs",
    }
    review = {
        "user_id": "u4",
        "business_id": "i5",
        "stars": 2,
        "date": "1970-01-02 00:00:01",
        "text": "Too loud.",
    }
    raw = read_raw_texts(
        dataset,
        "yelp",
        _lines(tmp_path / "review.json", [review]),
        _lines(tmp_path / "business.json", [business]),
    )
    assert list(raw.reviews) == [Review(4, 5, 86_401, 2.0, "Too loud.")]
    assert raw.items == {5: ItemText("Blue Door", ("Bars", "Pubs", "Reno"))}


def _id_map(path: Path, ids: Sequence[tuple[str, str]]) -> Path:
    content = "item\tasin\n" + "".join(f"{own}\t{other}\n" for own, other in ids)
    path.write_bytes(gzip.compress(content.encode()))
    return path


def test_an_id_map_joins_data_that_numbers_its_items_itself(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    own = dataset.original_ids("items")
    ids = _id_map(tmp_path / "ids.tsv.gz", [(item, f"B00{item}") for item in own])
    assert read_id_map(ids, dataset, "items") == {f"B00i{v}": v for v in range(1, 21)}
    meta = [{"parent_asin": "B00i7", "title": "Kite"}]
    raw = read_raw_texts(
        dataset, "amazon-2023", metadata=_lines(tmp_path / "m.jsonl", meta), item_ids=ids
    )
    assert raw.items == {7: ItemText("Kite")}


def test_a_map_of_another_numbering_is_refused(dataset: PreparedDataset, tmp_path: Path) -> None:
    own = dataset.original_ids("items")
    short = _id_map(tmp_path / "short.gz", [(item, f"B{item}") for item in own[:-1]])
    with pytest.raises(RequestError, match="19 items in the map, 20 in the data, 19 in both"):
        read_id_map(short, dataset, "items")
    other = _id_map(tmp_path / "other.gz", [(item + "x", f"B{item}") for item in own])
    with pytest.raises(RequestError, match="20 in the data, 0 in both"):
        read_id_map(other, dataset, "items")
    twice = _id_map(tmp_path / "twice.gz", [(item, "B1") for item in own])
    with pytest.raises(RequestError, match="19 ids of the publisher stand twice"):
        read_id_map(twice, dataset, "items")
    (tmp_path / "wide.tsv").write_text("item\tasin\n1\t2\t3\n")
    with pytest.raises(FormatError, match=r"wide.tsv:2: 3 fields, expected 2"):
        read_id_map(tmp_path / "wide.tsv", dataset, "items")


def test_files_that_do_not_fit_are_refused_in_one_line(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    strangers = _lines(tmp_path / "s.jsonl", [{"parent_asin": "B1", "title": "t", "user_id": "z"}])
    with pytest.raises(RequestError, match=r"names no item of toy.*--item-ids"):
        read_raw_texts(dataset, "amazon-2023", metadata=strangers)
    with pytest.raises(RequestError, match=r"names no interaction of toy.*--user-ids"):
        read_raw_texts(dataset, "amazon-2023", reviews=strangers)
    with pytest.raises(FormatError, match="no field 'business_id'; it has: parent_asin"):
        read_raw_texts(dataset, "yelp", metadata=strangers)
    with pytest.raises(RequestError, match="no such file"):
        read_raw_texts(dataset, "yelp", metadata=str(tmp_path / "absent.json"))
    with pytest.raises(RequestError, match="no publisher 'ebay'"):
        read_raw_texts(dataset, "ebay")
    (tmp_path / "python.json").write_text("{'asin': 'B1'}\n")  # Amazon's own 2014 metadata
    with pytest.raises(FormatError, match=r"python.json:1: invalid JSON"):
        read_raw_texts(dataset, "amazon-2014", metadata=str(tmp_path / "python.json"))


def test_halves_of_characters_are_replaced(dataset: PreparedDataset, tmp_path: Path) -> None:
    review = {"parent_asin": "i1", "user_id": "u0", "rating": 5, "text": "so \ud83d nice \udc00"}
    item = {"parent_asin": "i1", "title": "Tent \ud83d", "categories": ["a\udfff"]}
    reviews, items = _lines(tmp_path / "r.jsonl", [review]), _lines(tmp_path / "i.jsonl", [item])
    assert "\\ud83d" in Path(reviews).read_text()  # as it stands in files
    raw = read_raw_texts(dataset, "amazon-2023", reviews, items)
    assert raw.items[1] == ItemText("Tent ?", ("a?",))
    assert [found.text for found in raw.reviews] == ["so ? nice ?"]
    data = collect_texts(
        dataset, RawTexts(raw.items, [replace(next(iter(raw.reviews)), seconds=None)])
    )
    assert len(offline_documents(data, "f").checksum()) == 64


def test_the_command_offers_the_publishers_there_are() -> None:
    assert tuple(PUBLISHERS) == arguments.PUBLISHERS


def test_published_maps_fit_the_published_splits(real_data: Path) -> None:
    from datamodules.prepare import prepare
    from datamodules.prepared import load_prepared

    for name, file, other in (
        ("amazon-book", "amazon-book.item_ids.tsv.gz", "yelp.item_ids.tsv.gz"),
        ("yelp-cf", "yelp.item_ids.tsv.gz", "amazon-book.item_ids.tsv.gz"),
    ):
        if not (real_data / "cf" / file).exists():
            pytest.skip("needs the id maps of RLMRec")
        dataset = load_prepared(prepare(name, real_data))
        found = read_id_map(real_data / "cf" / file, dataset, "items")
        assert sorted(found.values()) == list(range(1, dataset.n_items + 1))
        with pytest.raises(RequestError, match="not the numbering"):
            read_id_map(real_data / "cf" / other, dataset, "items")
