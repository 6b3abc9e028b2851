"""Linear probes and the labels they are asked for, against slow readings and planted answers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datamodules.prepare import prepare
from datamodules.prepared import TEST, PreparedDataset, load_prepared
from tests.datamodules.toy_events import prepared, random_log
from tests.studies.scripts import load_script

linear = load_script("linear_probes")


@pytest.fixture(scope="module")
def dataset() -> PreparedDataset:
    return load_prepared(prepare("synthetic-tiny"))


# Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_genres_of_user_and_target_against_loops(seed: int, tmp_path: Path) -> None:
    log = random_log(seed)
    data = prepared(log, tmp_path)
    target = (data.split == TEST).nonzero().squeeze(1)
    users = torch.searchsorted(data.offsets, target, right=True) - 1
    keys = target - data.offsets[users]
    order = np.random.default_rng(seed).permutation(len(users))
    found = linear.find_labels(data, users.numpy()[order], keys.numpy()[order])
    assert set(found) == {"user's genre", "next genre"}
    for row, (user, key) in enumerate(
        zip(users[order].tolist(), keys[order].tolist(), strict=True)
    ):
        events = log.users[user]
        names = linear.EventArrays(data, "x").feature("genre").names
        times = Counter(g for event in events[:key] for g in {*log.genres[event.item]})
        best = max(times, key=lambda g: (times[g], -names.index(g)), default=None)
        first = log.genres[events[key].item][:1]
        assert found["user's genre"][row] == (names.index(best) if best else -1)
        assert found["next genre"][row] == (names.index(first[0]) if first else -1)


def test_planted_labels_are_those_of_the_events(dataset: PreparedDataset) -> None:
    users = np.arange(dataset.n_users)[::-1].copy()
    keys = np.diff(dataset.offsets.numpy())[users] - 1
    found = linear.find_labels(dataset, users, keys)
    assert len(found) == 5
    truth, offsets = dataset.features, dataset.offsets.tolist()
    values = dataset.item_feature("category")[0].tolist()  # one an item
    for row, user in enumerate(users.tolist()):
        events = range(offsets[user], offsets[user + 1])
        assert found["next planted"][row] == truth["truth.intent"][events[-1]]
        assert found["last planted"][row] == truth["truth.intent"][events[-2]]
        assert found["user's type"][row] == truth["truth.user_type"][user]
        assert found["next category"][row] == values[int(dataset.items[events[-1]]) - 1] - 1


def test_quintiles_of_mean_prices() -> None:
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, 40, 200))
    prices = np.where(rng.random(200) < 0.2, np.nan, rng.exponential(size=200))
    rows, prices = rows[rows != 7], prices[rows != 7]
    found = linear.mean_quintile(prices, rows, 40)
    mean = {
        r: np.nanmean(prices[rows == r]) for r in {*rows} if np.isfinite(prices[rows == r]).any()
    }
    ranked = sorted(mean, key=lambda r: mean[r])
    assert found[7] == -1
    for place, row in enumerate(ranked):
        assert abs(found[row] - 5 * place / len(ranked)) <= 1
    times = np.bincount(found[found >= 0])
    assert len(times) == 5
    assert times.max() - times.min() <= 1
    assert (linear.mean_quintile(np.full(3, np.nan), np.arange(3), 4) == -1).all()


def test_rare_classes_are_left_out() -> None:
    labels = np.repeat(np.arange(30) - 1, np.arange(30) + 4)
    kept = linear.keep_frequent(labels)
    assert {*kept} == {-1, *range(9, 29)}  # the 20 most frequent; class c has c + 5 rows
    few = np.repeat([0, 1, 2, -1], [linear.FEWEST, linear.FEWEST - 1, 40, 5])
    assert {*linear.keep_frequent(few)} == {-1, 0, 2}


# Probes ---------------------------------------------------------------------------------------


def _planted(rows: int = 150, width: int = 6) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, rows)
    vectors = rng.normal(size=(rows, width)).astype(np.float32)
    vectors[:, :3] += 6 * np.eye(3, dtype=np.float32)[labels]
    return labels, vectors


def test_a_probe_finds_what_is_there_and_nothing_else() -> None:
    labels, vectors = _planted()
    users = np.arange(len(labels))
    noise = np.random.default_rng(1).normal(size=vectors.shape)
    assert linear.probe(vectors, labels, users).mean() > 0.95
    assert linear.probe(noise, labels, users).mean() < 0.5
    shift = linear.probe(1e3 * vectors - 1e4, labels, users)
    assert (shift == linear.probe(vectors, labels, users)).mean() > 0.95


def test_a_user_is_never_judged_by_own_rows() -> None:
    """Vectors that name the user tell nothing of users who were not fitted."""
    users = np.repeat(np.arange(30), 5)
    labels = users % 2
    names = np.eye(30, dtype=np.float32)[users]
    assert linear.probe(names, labels, np.arange(150)).mean() > 0.95
    assert linear.probe(names, labels, users).mean() <= 0.5


def test_probes_beside_their_controls() -> None:
    labels, vectors = _planted()
    nothing = np.random.default_rng(2).normal(size=(len(labels), 4))
    known = np.where(np.arange(len(labels)) < 10, -1, labels)
    sources = {"intents": vectors, "encoder state": nothing}
    given = {"planted": known, "one class": np.zeros_like(labels), "rare": np.arange(len(labels))}
    found = linear.run_probes(sources, given, np.arange(len(labels)))
    assert list(found) == ["planted"]
    cell = found["planted"]
    most = np.bincount(labels[10:]).max() / (len(labels) - 10)
    assert (cell["queries"], cell["classes"]) == (len(labels) - 10, 3)
    accuracy = cell["accuracy"]
    assert accuracy["intents"] > 0.95
    assert accuracy["constant"] == pytest.approx(most, abs=0.1)
    assert max(accuracy[n] for n in ("noise", "shuffled labels", "encoder state")) < most + 0.15
    gap, error = cell["difference"]["intents"]
    assert gap == pytest.approx(accuracy["intents"] - accuracy["encoder state"])
    assert 0 < error < 0.1
    assert set(accuracy) - set(cell["difference"]) == {"shuffled labels", "encoder state"}


def test_a_difference_has_the_error_of_paired_rows() -> None:
    first, second = np.array([1.0, 1, 0, 1]), np.array([0.0, 1, 0, 0])
    mean, error = linear.compare(first, second)
    assert mean == 0.5
    assert error == pytest.approx(np.std([1, 0, 0, 1], ddof=1) / 2)
