"""The statistics of the published files, through reader and preprocessing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.prepared import TEST
from datamodules.preprocess import Preprocessed, preprocess
from datamodules.readers.registry import read_events
from datamodules.recipe import Recipe

ATTRIBUTES = {
    "Beauty": (637, 3.72),
    "Sports_and_Outdoors": (2277, 6.02),
    "Toys_and_Games": (1027, 4.28),
    "Yelp": (1001, 4.84),
    "LastFM": (388, 31.52),
}
"""How many there are, and how many an item has on average; Last.fm's repeat."""

SEQUENCES = [
    ("Beauty", 22363, 12101, 198502, 5, 204),
    ("Sports_and_Outdoors", 35598, 18357, 296337, 5, 296),
    ("Toys_and_Games", 19412, 11924, 167597, 5, 550),
    ("Yelp", 30431, 20033, 316354, 5, 350),
    ("LastFM", 1090, 3646, 52551, 5, 899),
    ("ml-1m", 6040, 3416, 999611, 18, 2277),
    ("Video", 31013, 23715, 287249, 3, 860),
    ("Video_5core", 24303, 10672, 231780, 5, 773),
]
TRIVAGO = {"user": "user_id", "session": "session_id", "action": "action_type", "order": "step"}
REES46 = {
    "user": "user_id",
    "item": "product_id",
    "session": "user_session",
    "action": "event_type",
    "item_features": ["category_code"],
}
TABLES: list[tuple[str, dict[str, Any], Recipe, int, int, int]] = [
    ("cf/amazon-book", {}, Recipe(split="pre_split"), 11000, 9332, 200860),
    ("cf/yelp", {}, Recipe(split="pre_split"), 11091, 11010, 277535),
    ("cf/amazon-movie", {}, Recipe(split="pre_split"), 16994, 9370, 168243),
    ("behaviours/retailrocket", {}, Recipe(split="pre_split"), 2174, 30113, 99555),
    ("behaviours/taobao", {}, Recipe(split="pre_split"), 31882, 31024, 367412),
    # of 100,003 lines, 12,395 name no item
    ("behaviours/trivago", TRIVAGO, Recipe(split="last_session"), 6593, 13949, 87608),
    ("behaviours/yelp_actions", {}, Recipe(split="global_temporal"), 19800, 22734, 722659),
    ("behaviours/rees46_sample", REES46, Recipe(split="last_session"), 4504, 6493, 17434),
]


def counts(found: Preprocessed) -> tuple[float, ...]:
    return tuple(found.statistics[name] for name in ("users", "items", "interactions"))


def sequence_files(folder: Path, name: str) -> dict[str, Path]:
    beside = {"times": "time.txt.gz", "attributes": "item2attributes.json.gz"}
    paths = {role: folder / f"{name}.{suffix}" for role, suffix in beside.items()}
    found = {role: path for role, path in paths.items() if path.exists()}
    return {"events": folder / f"{name}.txt.gz", **found}


@pytest.mark.parametrize(("name", "users", "items", "events", "shortest", "longest"), SEQUENCES)
def test_sequences(
    real_data: Path, name: str, users: int, items: int, events: int, shortest: int, longest: int
) -> None:
    files = sequence_files(real_data / "sequences", name)
    found = preprocess(read_events("sequence_text", files, {}), Recipe())
    assert counts(found) == (users, items, events)
    assert found.statistics["min_length"] == shortest
    assert found.statistics["max_length"] == longest
    assert found.statistics["users_without_target"] == 0
    assert found.item_ids == [str(number) for number in range(1, items + 1)]
    assert found.rows.tolist() == list(range(events))  # the files are in order of user and time
    if name in ATTRIBUTES:
        attribute = found.item_features["attribute"]
        assert len(attribute.offsets) == items + 2
        mean = round(len(attribute.values) / items, 2)
        assert (len(attribute.names), mean) == ATTRIBUTES[name]


def test_five_core_of_video_is_the_published_one(real_data: Path) -> None:
    files = sequence_files(real_data / "sequences", "Video")
    found = preprocess(read_events("sequence_text", files, {}), Recipe(k_core=5))
    assert counts(found) == (24303, 10672, 231780)


@pytest.mark.parametrize(("name", "options", "recipe", "users", "items", "events"), TABLES)
def test_tables(
    real_data: Path,
    name: str,
    options: dict[str, Any],
    recipe: Recipe,
    users: int,
    items: int,
    events: int,
) -> None:
    table = read_events("table", {"events": real_data / f"{name}.parquet"}, options)
    found = preprocess(table, recipe)
    assert counts(found) == (users, items, events)
    assert (found.split == TEST).any()
    user = np.repeat(np.arange(users), np.diff(found.offsets))
    assert np.all((np.diff(found.split.astype(int)) >= 0) | (np.diff(user) > 0))


def test_held_out_buys_come_last(real_data: Path) -> None:
    path = real_data / "behaviours" / "retailrocket.parquet"
    table = read_events("table", {"events": path}, {})
    found = preprocess(table, Recipe(split="pre_split"))
    assert (found.split == TEST).sum() == 2174
    assert np.all(found.split[found.offsets[1:] - 1] == TEST)
    assert found.action_names == ("buy", "cart", "view")
    # without its split, the events without a time still come last
    assert preprocess(table, Recipe()).rows.tolist() == found.rows.tolist()


def test_yelp_categories(real_data: Path) -> None:
    folder = real_data / "behaviours"
    files = {"events": folder / "yelp_actions.parquet", "items": folder / "yelp_categories.parquet"}
    table = read_events("table", files, {"item_features": ["category"]})
    category = preprocess(table, Recipe()).item_features["category"]
    assert len(category.names) == 822
    assert len(category.values) == category.offsets[-1] == 108771


def test_movielens_100k(real_data: Path) -> None:
    folder = real_data / "movielens" / "ml-100k"
    files = {"events": "u.data.gz", "items": "u.item.gz", "users": "u.user.gz"}
    table = read_events(
        "movielens", {role: folder / name for role, name in files.items()}, {"release": "100k"}
    )
    found = preprocess(table, Recipe())
    assert counts(found) == (943, 1682, 100000)
    names = [line.split("|")[0] for line in (folder / "u.genre").read_text().split() if "|" in line]
    assert found.item_features["genre"].names == sorted(names)
    assert found.item_texts is not None
    assert found.item_texts[0] == "Toy Story (1995)"
    assert len(found.user_features["occupation"].names) == 21


def test_movielens_1m_and_its_five_core(real_data: Path) -> None:
    folder = real_data / "movielens" / "ml-1m"
    files = {"events": "ratings.parquet", "items": "movies.dat.gz", "users": "users.dat.gz"}
    table = read_events(
        "movielens", {role: folder / name for role, name in files.items()}, {"release": "1m"}
    )
    found = preprocess(table, Recipe())
    assert counts(found) == (6040, 3706, 1000209)
    assert len(found.item_features["genre"].names) == 18
    assert counts(preprocess(table, Recipe(k_core=5))) == (6040, 3416, 999611)
