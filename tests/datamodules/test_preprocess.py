"""Preprocessing against a slow reference of dictionaries and loops."""

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import RequestError, StatisticsError
from datamodules.prepared import TEST, TRAIN, VALID
from datamodules.preprocess import Preprocessed, preprocess
from datamodules.readers.base import EventTable
from datamodules.recipe import Recipe


class Event(NamedTuple):
    user: int | str
    item: int | str
    timestamp: int | None
    rating: float
    action: str


def events_of(ids: Any) -> Any:
    times = st.one_of(st.none(), st.integers(0, 12))
    rating = st.sampled_from([1.0, 3.0, 5.0])
    event = st.builds(Event, ids, ids, times, rating, st.sampled_from(["view", "buy"]))
    return st.lists(event, min_size=1, max_size=40)


EVENTS = st.one_of(events_of(st.integers(0, 12)), events_of(st.sampled_from("abcdefgh")))
RECIPES = st.builds(
    Recipe,
    actions=st.sampled_from([None, ("buy",), ("buy", "view")]),
    min_rating=st.sampled_from([None, 3.0]),
    duplicates=st.sampled_from(["keep", "first", "last"]),
    k_core=st.integers(0, 3),
)


def table_of(events: list[Event]) -> EventTable:
    types = {"timestamp": pl.Int64, "rating": pl.Float64, "action": pl.String}
    columns = {name: [event[place] for event in events] for place, name in enumerate(Event._fields)}
    return EventTable(pl.LazyFrame(columns, schema_overrides=types))


def in_time(rows: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
    return sorted(rows, key=lambda row: (row[1].timestamp is None, row[1].timestamp or 0, row[0]))


def reference(events: list[Event], recipe: Recipe) -> dict[int | str, list[tuple[int, Event]]]:
    """Users in order of their ids, each with (input row, event), oldest first."""
    rows = [
        (row, event)
        for row, event in enumerate(events)
        if (recipe.actions is None or event.action in recipe.actions)
        and (recipe.min_rating is None or event.rating >= recipe.min_rating)
    ]
    if recipe.duplicates != "keep":
        ordered = in_time(rows)
        if recipe.duplicates == "first":
            ordered.reverse()
        rows = list({(row[1].user, row[1].item): row for row in ordered}.values())
    shrinking = True
    while shrinking:
        users = [event.user for _, event in rows]
        items = [event.item for _, event in rows]
        kept = [
            (row, event)
            for row, event in rows
            if users.count(event.user) >= recipe.k_core and items.count(event.item) >= recipe.k_core
        ]
        shrinking = len(kept) < len(rows)
        rows = kept
    names = sorted({event.user for _, event in rows})
    return {name: in_time([row for row in rows if row[1].user == name]) for name in names}


@given(EVENTS, RECIPES)
@settings(max_examples=150, derandomize=True, deadline=None)
def test_filters_remap_and_sort_equal_reference(events: list[Event], recipe: Recipe) -> None:
    expected = reference(events, recipe)
    if not expected:
        with pytest.raises(StatisticsError):
            preprocess(table_of(events), recipe)
        return
    found = preprocess(table_of(events), recipe)
    rows = [row for user in expected.values() for row in user]
    items = sorted({event.item for _, event in rows})
    assert found.user_ids == [str(user) for user in expected]
    assert found.item_ids == [str(item) for item in items]
    assert found.offsets.tolist() == np.cumsum([0, *map(len, expected.values())]).tolist()
    assert found.rows.tolist() == [row for row, _ in rows]
    assert found.items.tolist() == [items.index(event.item) + 1 for _, event in rows]
    assert found.ratings is not None
    assert found.ratings.tolist() == [event.rating for _, event in rows]
    assert found.actions is not None
    names = [found.action_names[code] for code in found.actions]
    assert names == [event.action for _, event in rows]
    assert found.timestamps is not None
    for time, (_, event) in zip(found.timestamps, rows, strict=True):
        assert event.timestamp in (time, None)


@pytest.mark.parametrize("split", ["leave_one_out", "ratio", "last_session"])
@given(events=EVENTS)
@settings(max_examples=40, derandomize=True, deadline=None)
def test_split_holds_each_event_once_and_targets_come_last(
    split: Literal["leave_one_out", "ratio", "last_session"], events: list[Event]
) -> None:
    found = preprocess(table_of(events), Recipe(split=split, session_gap=2, test_share=0.3))
    assert sorted(found.rows.tolist()) == list(range(len(events)))
    assert set(found.split.tolist()) <= {TRAIN, VALID, TEST}
    for rows in reference(events, Recipe()).values():
        where = np.isin(found.rows, [row for row, _ in rows])
        assert found.rows[where].tolist() == [row for row, _ in rows]
        assert np.all(np.diff(found.split[where].astype(int)) >= 0)


def parts(found: Preprocessed, names: dict[str, Any]) -> dict[Any, list[Any]]:
    """Items by original user and split, in order."""
    users = np.repeat(found.user_ids, np.diff(found.offsets))
    result: dict[Any, list[Any]] = {}
    for user, item, split in zip(users, found.items, found.split, strict=True):
        key = names[user], int(split)
        result.setdefault(key, []).append(names[found.item_ids[item - 1]])
    return result


@pytest.mark.parametrize("split", ["leave_one_out", "ratio", "global_temporal", "last_session"])
@given(data=st.data())
@settings(max_examples=25, derandomize=True, deadline=None)
def test_relabelling_and_reordering_users_changes_no_split(
    split: Literal["leave_one_out", "ratio", "global_temporal", "last_session"], data: Any
) -> None:
    events = [
        event._replace(timestamp=event.timestamp or 0)
        for event in data.draw(events_of(st.integers(0, 6)))
    ]
    recipe = Recipe(split=split, k_core=2, duplicates="last", valid_share=0.2, test_share=0.2)
    label = data.draw(st.permutations([f"id{number}" for number in range(7)]))
    users = data.draw(st.permutations(range(7)))
    moved = [
        event._replace(user=label[int(event.user)], item=label[int(event.item)])
        for user in users
        for event in events
        if event.user == user
    ]
    if not reference(events, recipe):
        return
    first = preprocess(table_of(events), recipe)
    second = preprocess(table_of(moved), recipe)
    same = {str(number): number for number in range(7)}
    back = {name: number for number, name in enumerate(label)}
    assert parts(first, same) == parts(second, back)


def small(**columns: list[Any]) -> EventTable:
    return EventTable(pl.LazyFrame({"user": [0, 0, 0, 1], "item": [7, 9, 7, 7], **columns}))


def test_short_users_and_repeats_survive() -> None:
    found = preprocess(small(), Recipe())
    assert found.split.tolist() == [TRAIN, VALID, TEST, TRAIN]
    assert found.items.tolist() == [1, 2, 1, 1]
    assert found.statistics == {
        "users": 2,
        "items": 2,
        "interactions": 4,
        "density": 1.0,
        "mean_length": 2.0,
        "min_length": 1,
        "max_length": 3,
        "users_without_target": 1,
        "repeated_targets": 1,
        "unseen_test_items": 0,
    }
    assert found.notes == (
        "no timestamps: the events of a user keep their input order",
        "1 of 2 users have no test event",
    )
    assert (found.timestamps, found.actions, found.ratings, found.sessions) == (None,) * 4


def test_numeric_ids_sort_as_numbers_and_dense_ones_stay() -> None:
    table = EventTable(pl.LazyFrame({"user": [10, 9, 10], "item": [2, 1, 10]}))
    assert preprocess(table, Recipe()).item_ids == ["1", "2", "10"]
    assert preprocess(table, Recipe()).user_ids == ["9", "10"]
    dense = EventTable(pl.LazyFrame({"user": [0] * 12, "item": list(range(12, 0, -1))}))
    assert preprocess(dense, Recipe()).items.tolist() == list(range(12, 0, -1))


def test_pre_split_puts_test_last() -> None:
    found = preprocess(small(split=["test", "train", "valid", "train"]), Recipe(split="pre_split"))
    assert found.rows.tolist() == [1, 2, 0, 3]
    assert found.split.tolist() == [TRAIN, VALID, TEST, TRAIN]


def test_events_without_time_come_last_and_are_counted() -> None:
    found = preprocess(small(timestamp=[None, 5, 5, None]), Recipe())
    assert found.rows.tolist() == [1, 2, 0, 3]
    assert found.timestamps is not None
    assert found.timestamps.tolist() == [5, 5, 5, 5]
    assert "2 events have no timestamp and stand after their user's others" in found.notes
    assert found.statistics["tied_timestamps"] == 0.5


def test_interleaved_sessions_are_split_by_their_first_event() -> None:
    table = EventTable(
        pl.LazyFrame(
            {
                "user": ["u"] * 5,
                "item": [1, 2, 3, 4, 5],
                "timestamp": [1, 2, 3, 4, 5],
                "session": ["z", "z", "a", "z", "a"],
            }
        )
    )
    found = preprocess(table, Recipe(split="last_session"))
    assert found.items.tolist() == [1, 2, 4, 3, 5]
    assert found.split.tolist() == [VALID, VALID, VALID, TEST, TEST]
    assert found.sessions is not None
    assert found.sessions.tolist() == [0, 0, 0, 1, 1]
    cut = preprocess(table, Recipe(session_gap=10))
    assert cut.sessions is not None
    assert cut.sessions.tolist() == [0] * 5


def test_last_session_cuts_at_half_an_hour_by_default() -> None:
    found = preprocess(small(timestamp=[0, 1800, 3601, 0]), Recipe(split="last_session"))
    assert found.split.tolist() == [VALID, VALID, TEST, TRAIN]
    assert "sessions are cut where 1800 s pass without an event" in found.notes


def test_events_without_item_are_counted() -> None:
    table = EventTable(pl.LazyFrame({"user": ["a", "b", None], "item": [1, None, 2]}))
    found = preprocess(table, Recipe())
    assert found.rows.tolist() == [0]
    assert found.notes[0] == "2 events name no user or no item and were dropped"


def test_missing_actions_and_ratings_stay_visible() -> None:
    found = preprocess(
        small(action=["view", None, "buy", "buy"], rating=[1.0, None, 2.0, 3.0]), Recipe()
    )
    assert found.action_names == ("buy", "unknown", "view")
    assert found.actions is not None
    assert found.actions.tolist() == [2, 1, 0, 0]
    assert found.ratings is not None
    assert np.isnan(found.ratings).tolist() == [False, True, False, False]


def test_features_and_texts_follow_the_ids() -> None:
    table = replace(
        small(),
        item_features={"tag": pl.DataFrame({"item": [9, 9, 8, 9], "value": [10, 2, 1, 2]})},
        user_features={"age": pl.DataFrame({"user": ["1"], "value": ["old"]})},
        item_texts=pl.DataFrame({"item": [7, 8], "text": ["seven", "eight"]}),
        user_texts=pl.DataFrame({"user": [1], "text": ["one"]}),
    )
    found = preprocess(table, Recipe())
    tag = found.item_features["tag"]
    assert tag.values.tolist() == [2, 1, 1]
    assert tag.offsets.tolist() == [0, 0, 0, 3]
    assert tag.names == ["2", "10"]
    age = found.user_features["age"]
    assert (age.values.tolist(), age.offsets.tolist(), age.names) == ([1], [0, 0, 1], ["old"])
    assert found.item_texts == ["seven", ""]
    assert found.user_texts == ["", "one"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(actions=("buy",)), "actions needs the column action; the data has: user, item$"),
        (Recipe(min_rating=3), "min_rating needs the column rating"),
        (Recipe(split="global_temporal"), "split global_temporal needs the column timestamp"),
        (Recipe(split="last_session"), "split last_session needs the column timestamp"),
        (Recipe(session_gap=60), "session_gap needs the column timestamp"),
        (Recipe(split="pre_split"), "split pre_split needs the column split"),
    ],
)
def test_recipe_beyond_the_data_is_refused(recipe: Recipe, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        preprocess(small(), recipe)


def test_split_values_and_missing_times_are_refused() -> None:
    with pytest.raises(RequestError, match="'dev' is none of train, valid, test"):
        preprocess(small(split=["train", "dev", "test", None]), Recipe(split="pre_split"))
    with pytest.raises(RequestError, match="timestamp for every event; 1 have none"):
        preprocess(small(timestamp=[1, 2, 3, None]), Recipe(split="global_temporal"))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(actions=("like",)), "^actions like: no event is left"),
        (Recipe(actions=("buy",), min_rating=4), "^min_rating 4: no event is left"),
        (Recipe(k_core=3), "^k_core 3: none of 4 events is left"),
    ],
)
def test_empty_result_names_the_filter(recipe: Recipe, message: str) -> None:
    table = small(action=["buy", "view", "buy", "view"], rating=[1.0, 5.0, 2.0, 5.0])
    with pytest.raises(StatisticsError, match=message):
        preprocess(table, recipe)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"valid_share": 0.5, "test_share": 0.5}, "must leave a share for training"),
        ({"test_share": -0.1}, "must not be negative"),
        ({"test_share": float("nan")}, "must not be negative"),
        ({"valid_share": float("nan")}, "must not be negative"),
        ({"k_core": -1}, "k_core must be 0 or more"),
        ({"session_gap": 0}, "session_gap must be 1 s or more"),
        ({"actions": ()}, "actions is empty"),
    ],
)
def test_recipe_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Recipe(**values)
