"""The log that scaling is measured on is what its docstring says, and can be prepared."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from datamodules.catalog import user_entry
from datamodules.prepare import prepare
from datamodules.prepared import load_prepared


def _script() -> Any:
    """The generator; its folder is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks/performance")
        return import_module("event_log")


event_log = _script()
N_EVENTS, N_USERS, N_ITEMS = 20_000, 150, 400


def test_events_are_those_described() -> None:
    users, items, seconds = event_log.draw_events(N_EVENTS, N_USERS, N_ITEMS)
    assert len(users) == len(items) == len(seconds) == N_EVENTS
    assert (np.diff(seconds) >= 0).all()
    assert set(users) == set(range(N_USERS))
    assert set(items) == set(range(1, N_ITEMS + 1))
    assert np.bincount(users).min() >= event_log.SHORTEST
    counts = np.sort(np.bincount(items)[1:])[::-1]
    assert counts[0] > 20 * np.median(counts)
    assert not np.array_equal(items, event_log.draw_events(N_EVENTS, N_USERS, N_ITEMS, 1)[1])


def test_an_item_is_often_followed_by_its_successor() -> None:
    users, items, seconds = event_log.draw_events(N_EVENTS, N_USERS, N_ITEMS)
    order = np.lexsort((np.arange(N_EVENTS), seconds, users))
    users, items = users[order], items[order]
    pairs = items[:-1][users[1:] == users[:-1]], items[1:][users[1:] == users[:-1]]
    follows = np.zeros((N_ITEMS + 1, N_ITEMS + 1))
    np.add.at(follows, pairs, 1)
    share = follows.max(1).sum() / follows.sum()
    assert 0.2 < share < 0.5  # half of every second event, and what chance adds


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_file_is_prepared_as_a_dataset_of_ones_own(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"log.{kind}"
    event_log.write_log(path, N_EVENTS, N_USERS, N_ITEMS)
    again = tmp_path / f"again.{kind}"
    event_log.write_log(again, N_EVENTS, N_USERS, N_ITEMS)
    assert path.read_bytes() == again.read_bytes()
    described = {
        "reader": "table",
        "files": {"events": str(path)},
        "options": {"timestamp": "time"},
        "recipe": {"split": "leave_one_out"},
    }
    dataset = load_prepared(prepare(user_entry("log", described), cache=tmp_path))
    assert (dataset.n_users, dataset.n_items) == (N_USERS, N_ITEMS)
    frame = pl.read_csv(path) if kind == "csv" else pl.read_parquet(path)
    for user in (0, N_USERS - 1):
        row = dataset.original_ids("users").index(str(user))
        mine = dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]].tolist()
        assert mine == frame.filter(pl.col("user") == user)["item"].to_list()
