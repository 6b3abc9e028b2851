"""From an event table to flat arrays, in polars, in this order.

1. Events that lack their user or item are dropped, and counted in the notes.
2. `actions`, then `min_rating`: events that do not pass are dropped.
3. `duplicates`: of several events of one user with one item, all, the first or the last remain.
4. `k_core`: users and items with fewer than k events are dropped until none is left.
5. Remap: users become rows 0..N-1 and items 1..V, in the order of their sorted original ids;
   numeric ids sort as numbers, so that ids which are 1..V already stay as they are.
6. Sort by user, timestamp, input order. So ties keep their input order, as does everything
   where there are no timestamps; events without one stand after their user's others.
7. Sessions: as named by the data, numbered by their first event, or cut at a gap.
8. Split, see `datamodules.splits`; then a stable sort by user and split, which moves events only
   where the data brings its own split or sessions interleave.

Nothing else is dropped: repeats stay, and users with too few events for a target train.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules import splits
from datamodules.errors import RequestError, StatisticsError
from datamodules.features import Feature, align_texts, encode_feature
from datamodules.readers.base import SPLIT_NAMES, EventTable
from datamodules.recipe import Recipe
from datamodules.statistics import compute_statistics

SESSION_GAP = 1800
"""Seconds: where "last_session" cuts data that names no sessions (30 minutes, the usual gap)."""

NO_ACTION = "unknown"
"""Name of the action of events that have none, in data whose other events have one."""


_N = TypeVar("_N", bound=np.generic)


@dataclass(frozen=True)
class Preprocessed:
    """Events sorted by user, split, time, input order.

    Attributes:
        items: (E,) ids 1..V.
        offsets: (N + 1,) user u owns events `offsets[u]:offsets[u + 1]`.
        split: (E,) `TRAIN`, `VALID`, `TEST`.
        rows: (E,) where the event stood in the input, from 0.
        user_ids: original ids as text, position u.
        item_ids: original ids as text, position v - 1.
        statistics: see `datamodules.statistics.compute_statistics`.
        timestamps: (E,) seconds. An event without one has that of the event before it, and where
            there is none, the newest of the data; the notes count them.
        actions: (E,) codes into `action_names`.
        action_names: sorted.
        ratings: (E,), NaN where an event has none.
        sessions: (E,) running number of the session within its user, from 0.
        item_features: by name.
        user_features: by name.
        item_texts: position v - 1, empty where an item has none.
        user_texts: position u, the same.
        notes: what a page should say about the data.
    """

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    split: NDArray[np.uint8]
    rows: NDArray[np.int64]
    user_ids: list[str]
    item_ids: list[str]
    statistics: dict[str, float]
    timestamps: NDArray[np.int64] | None
    actions: NDArray[np.int16] | None
    action_names: tuple[str, ...]
    ratings: NDArray[np.float32] | None
    sessions: NDArray[np.int32] | None
    item_features: dict[str, Feature]
    user_features: dict[str, Feature]
    item_texts: list[str] | None
    user_texts: list[str] | None
    notes: tuple[str, ...]


def preprocess(table: EventTable, recipe: Recipe) -> Preprocessed:
    """Filter, remap, sort and split the events of a table.

    Raises:
        RequestError: the recipe asks for a column that the data does not have.
        StatisticsError: a filter leaves no event; the message says which.
    """
    _check_columns(table, recipe)
    events, notes = _filter(table.events, recipe)
    users, items = _ids(events, "user"), _ids(events, "item")
    for ids in (users, items):
        events = events.join(ids, on=ids.columns[0], how="left", maintain_order="left")
    if "action" in events.columns:
        events = events.with_columns(pl.col("action").fill_null(NO_ACTION))
    events, ties = _sort_in_time(events, notes)
    user_rows = events["user_row"].to_numpy()
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user_rows))])
    events = _number_sessions(events, offsets, recipe, notes)
    split = _split(events, offsets, recipe)
    by_split = np.lexsort((split, user_rows))  # stable
    events, split = events[by_split], split[by_split]

    codes = events["item_row"].to_numpy().astype(np.int32) + 1
    statistics = compute_statistics(codes, offsets, split) | ties
    if without := int(statistics["users_without_target"]):
        notes.append(f"{without} of {len(users)} users have no test event")
    action_names = tuple(events["action"].unique().sort()) if "action" in events.columns else ()
    return Preprocessed(
        items=codes,
        offsets=offsets,
        split=split,
        rows=events["row"].cast(pl.Int64).to_numpy(),
        user_ids=users["user"].cast(pl.String).to_list(),
        item_ids=items["item"].cast(pl.String).to_list(),
        statistics=statistics,
        timestamps=_array(events, "timestamp", np.int64),
        actions=_actions(events, action_names),
        action_names=action_names,
        ratings=_array(events, "rating", np.float32),
        sessions=_array(events, "session", np.int32),
        item_features={
            name: encode_feature(values, items, first=1)
            for name, values in table.item_features.items()
        },
        user_features={
            name: encode_feature(values, users, first=0)
            for name, values in table.user_features.items()
        },
        item_texts=align_texts(table.item_texts, items),
        user_texts=align_texts(table.user_texts, users),
        notes=tuple(notes),
    )


def _check_columns(table: EventTable, recipe: Recipe) -> None:
    present = table.events.collect_schema().names()
    needs = {
        "action": recipe.actions is not None and "actions",
        "rating": recipe.min_rating is not None and "min_rating",
        "split": recipe.split == "pre_split" and "split pre_split",
        "timestamp": (recipe.split == "global_temporal" and "split global_temporal")
        or (recipe.session_gap is not None and "session_gap")
        or (recipe.split == "last_session" and "session" not in present and "split last_session"),
    }
    for column, setting in needs.items():
        if setting and column not in present:
            raise RequestError(
                f"recipe: {setting} needs the column {column}; the data has: {', '.join(present)}"
            )


def _filter(events: pl.LazyFrame, recipe: Recipe) -> tuple[pl.DataFrame, list[str]]:
    """Steps 1 to 4. Adds `row`, the place of an event in the input."""
    known = pl.col("user").is_not_null() & pl.col("item").is_not_null()
    numbered = events.with_row_index("row")
    stages = {"the input": numbered.filter(known)}
    if recipe.actions is not None:
        kept = pl.col("action").is_in(list(recipe.actions))
        stages[f"actions {', '.join(recipe.actions)}"] = _last(stages).filter(kept)
    if recipe.min_rating is not None:
        kept = pl.col("rating") >= recipe.min_rating
        stages[f"min_rating {recipe.min_rating:g}"] = _last(stages).filter(kept)
    if recipe.duplicates != "keep":
        in_time = _last(stages)
        if "timestamp" in events.collect_schema():
            in_time = in_time.sort("timestamp", nulls_last=True, maintain_order=True)
        stages["duplicates"] = in_time.unique(
            ["user", "item"], keep=recipe.duplicates, maintain_order=True
        )
    remaining, unknown = pl.collect_all([_last(stages), numbered.select((~known).sum())])
    if remaining.is_empty():
        for name, stage in stages.items():
            if stage.select(pl.len()).collect().item() == 0:
                raise StatisticsError(f"{name}: no event is left; check the filters and the file")
    cored = _k_core(remaining, recipe.k_core)
    if cored.is_empty():
        raise StatisticsError(
            f"k_core {recipe.k_core}: none of {remaining.height} events is left; lower k_core"
        )
    notes = []
    if lost := unknown.item():
        notes.append(f"{lost} events name no user or no item and were dropped")
    return cored, notes


def _last(stages: dict[str, pl.LazyFrame]) -> pl.LazyFrame:
    return next(reversed(stages.values()))


def _k_core(events: pl.DataFrame, k: int) -> pl.DataFrame:
    """The largest part in which every user and every item has k events or more."""
    height = -1
    while k > 1 and events.height != height:
        height = events.height
        enough = [pl.len().over(column) >= k for column in ("user", "item")]
        events = events.filter(*enough)
    return events


def _ids(events: pl.DataFrame, column: str) -> pl.DataFrame:
    """The sorted original ids, and as `<column>_row` their rank from 0."""
    unique = events.select(pl.col(column).unique().sort())
    return unique.with_row_index(f"{column}_row").select(column, f"{column}_row")


def _sort_in_time(events: pl.DataFrame, notes: list[str]) -> tuple[pl.DataFrame, dict[str, float]]:
    """Step 6, and the share of events that share their timestamp with another of their user."""
    if "timestamp" not in events.columns:
        notes.append("no timestamps: the events of a user keep their input order")
        return _sorted_by(events, "user_row", "row"), {}
    notes.append("events of a user with equal timestamps keep their input order")
    time, user = pl.col("timestamp"), pl.col("user_row")
    events = _sorted_by(events, "user_row", "timestamp", "row")
    as_before = (time == time.shift()) & (user == user.shift())
    is_tied = as_before.fill_null(value=False)
    is_tied = is_tied | is_tied.shift(-1, fill_value=False)
    ties = {"tied_timestamps": float(events.select(is_tied.mean()).item())}
    events = events.with_columns(timed=time.is_not_null())
    if missing := events["timestamp"].null_count():
        notes.append(f"{missing} events have no timestamp and stand after their user's others")
        filled = time.forward_fill().over("user_row").fill_null(time.max()).fill_null(0)
        events = events.with_columns(filled)
    return events, ties


def _sorted_by(events: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Sorted by columns of whole numbers, nulls last.

    NumPy, because polars compares the rows of several columns, which takes ten times as long.
    """
    last = np.iinfo(np.int64).max
    keys = [events[name].cast(pl.Int64).fill_null(last).to_numpy() for name in columns]
    return events[np.lexsort(keys[::-1])]


def _number_sessions(
    events: pl.DataFrame, offsets: NDArray[np.int64], recipe: Recipe, notes: list[str]
) -> pl.DataFrame:
    """Step 7: `session` becomes a running number within the user, where there are sessions."""
    gap = recipe.session_gap
    if gap is None and "session" in events.columns:
        first = pl.col("place").min().over("user_row", "session")
        placed = events.with_row_index("place")
        return placed.with_columns(session=first.rank("dense").over("user_row") - 1)
    if gap is None and recipe.split == "last_session":
        gap = SESSION_GAP
    if gap is None:
        return events
    notes.append(f"sessions are cut where {gap} s pass without an event")
    numbers = splits.sessions_from_gaps(offsets, events["timestamp"].to_numpy(), gap)
    return events.with_columns(session=pl.Series(numbers))


def _split(events: pl.DataFrame, offsets: NDArray[np.int64], recipe: Recipe) -> NDArray[np.uint8]:
    """Step 8."""
    valid, test = recipe.valid_share, recipe.test_share
    match recipe.split:
        case "leave_one_out":
            return splits.leave_one_out(offsets)
        case "ratio":
            return splits.ratio(offsets, 1 - valid - test, valid)
        case "random":
            return splits.random(offsets, events["item_row"].to_numpy(), valid, test)
        case "last_session":
            return splits.last_session(offsets, events["session"].to_numpy())
        case "global_temporal":
            if untimed := (~events["timed"]).sum():
                raise RequestError(
                    f"recipe: split global_temporal needs a timestamp for every event; {untimed} "
                    "have none"
                )
            timestamps = events["timestamp"].to_numpy()
            return splits.global_temporal(offsets, timestamps, valid, test)
        case "pre_split":
            unknown = events.filter(~pl.col("split").is_in(list(SPLIT_NAMES), nulls_equal=True))
            if unknown.height:
                raise RequestError(
                    f"split column: {unknown['split'][0]!r} is none of {', '.join(SPLIT_NAMES)}"
                )
            codes = pl.col("split").replace_strict(SPLIT_NAMES, return_dtype=pl.UInt8)
            return events.select(codes)["split"].to_numpy()


def _actions(events: pl.DataFrame, names: tuple[str, ...]) -> NDArray[np.int16] | None:
    if not names:
        return None
    codes = dict(zip(names, range(len(names)), strict=True))
    encoded = events["action"].replace_strict(codes, return_dtype=pl.Int16)
    return encoded.to_numpy()


def _array(events: pl.DataFrame, column: str, dtype: type[_N]) -> NDArray[_N] | None:
    if column not in events.columns:
        return None
    return events[column].to_numpy().astype(dtype)
