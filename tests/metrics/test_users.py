"""Metrics of users with one target and with several."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, recall_score

from datamodules.errors import RequestError
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.users import (
    SETS,
    headline_metrics,
    mean_metric,
    metric_names,
    primary_metric,
    user_values,
)
from tests.metrics import reference

NAMES = [f"{name}@{k}" for name in ("recall", "ndcg") for k in (1, 5, 10, 20)]
RANKS = st.lists(
    st.lists(st.integers(1, 40), min_size=1, max_size=25), min_size=1, max_size=6
)  # of the targets of each user; equal ranks are possible, as ties count half


def flat(ranks: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    user = np.repeat(3 * np.arange(len(ranks)), [len(own) for own in ranks])
    return user, np.concatenate(ranks)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recall@3", 2 / 4),
        ("ndcg@3", (1 + 1 / 2) / (1 + 0.6309297535714575 + 1 / 2)),
        ("recall@2", 1 / 4),
        ("ndcg@2", 1 / (1 + 0.6309297535714575)),
        ("recall@9", 1),
    ],
)
def test_sets_are_those_worked_by_hand(name: str, value: float) -> None:
    user, rank = flat([[1, 3, 4, 9]])
    assert user_values(name, user, rank, SETS) == pytest.approx([value], abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(ranks=RANKS)
def test_sets_equal_a_plain_loop(name: str, ranks: list[list[int]]) -> None:
    user, rank = flat(ranks)
    found = user_values(name, user, rank, SETS)
    expected = [reference.set_metric(name, own) for own in ranks]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert mean_metric(name, user, rank, SETS) == pytest.approx(np.mean(expected), abs=1e-12)
    assert (found >= 0).all()
    if all(len(set(own)) == len(own) for own in ranks):
        assert (found <= 1 + 1e-12).all()


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_sets_equal_scikit_learn(k: int) -> None:
    """From scores, of which the list of k items and the ranks are made apart."""
    generator = np.random.default_rng(k)
    relevant = generator.random((30, 60)) < generator.uniform(0.02, 0.6, (30, 1))
    relevant[np.arange(30), generator.integers(0, 60, 30)] = True
    scores = generator.permuted(np.tile(np.arange(60.0), (30, 1)), axis=1)
    listed = np.zeros_like(relevant)
    np.put_along_axis(listed, np.argsort(-scores, axis=1)[:, :k], True, axis=1)
    user, item = np.nonzero(relevant)
    rank = 1 + (scores[user] > scores[user, item][:, None]).sum(axis=1)
    shares = user_values(f"recall@{k}", user, rank, SETS)
    expected = [recall_score(*pair) for pair in zip(relevant, listed, strict=True)]
    np.testing.assert_allclose(shares, expected, rtol=0, atol=1e-12)
    ndcg = ndcg_score(relevant, scores, k=k)
    assert mean_metric(f"ndcg@{k}", user, rank, SETS) == pytest.approx(ndcg, abs=1e-12)


@pytest.mark.parametrize("history", [SETS, "successive", "block", ""])
def test_one_target_a_user_makes_no_difference(history: str) -> None:
    user, rank = np.arange(5, 405), np.random.default_rng(0).integers(1, 60, (2, 400))
    for k in (5, 10, 20):
        for name, same in (("recall", "hit_rate"), ("ndcg", "ndcg")):
            found = user_values(f"{name}@{k}", user, rank, history)
            assert np.array_equal(found, compute_metric(f"{same}@{k}", rank))


@given(ranks=RANKS)
def test_targets_that_follow_one_another_count_alike(ranks: list[list[int]]) -> None:
    user, rank = flat(ranks)
    for name in metric_names("successive"):
        found = user_values(name, user, rank, "successive")
        each = [sum(reference.metric(name, one) for one in own) for own in ranks]
        np.testing.assert_allclose(found, np.multiply(each, len(ranks) / len(rank)), atol=1e-12)
        mean = compute_metric(name, rank).mean()
        assert mean_metric(name, user, rank, "successive") == pytest.approx(mean, abs=1e-12)


def test_recall_is_the_share_of_a_users_targets_everywhere() -> None:
    user, rank = flat([[1, 30], [2], [3, 4, 50]])
    for history in (SETS, "successive", "block"):
        shares = user_values("recall@10", user, rank, history)
        np.testing.assert_allclose(shares, [1 / 2, 1, 2 / 3])


@pytest.mark.parametrize("history", [SETS, "successive"])
def test_leading_axes_are_kept(history: str) -> None:
    user = flat([[1, 1], [1], [1, 1, 1]])[0]
    rank = np.random.default_rng(0).integers(1, 30, (2, 3, 6)).astype(np.uint16)
    for name in ("recall@10", "ndcg@10"):
        found = user_values(name, user, rank, history)
        assert found.shape == (2, 3, 3)
        assert np.array_equal(found[1, 2], user_values(name, user, rank[1, 2], history))


def test_published_metrics_depend_on_what_is_held_out() -> None:
    assert set(metric_names("")) == set(metric_names("successive"))
    for history in ("", "successive", "block", SETS):
        assert {*headline_metrics(history), primary_metric(history)} < {*metric_names(history)}
    assert primary_metric("") == "ndcg@10"
    assert primary_metric(SETS) == "recall@20"
    assert metric_names(SETS)[-2:] == headline_metrics(SETS) == ("recall@20", "ndcg@20")


@pytest.mark.parametrize("name", ["recall", "recall@0", "recall@ten", "ndcg", "map@10"])
def test_an_unknown_metric_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(RequestError, match=f"no metric '{name}'; .*hit_rate@k.* recall@k"):
        user_values(name, np.array([0]), np.array([1]), "successive")


@pytest.mark.parametrize("name", ["hit_rate@10", "mrr", "mrr@10", "map@10"])
def test_sets_have_recall_and_ndcg_alone(name: str) -> None:
    with pytest.raises(RequestError, match=f"'{name}' of sets of targets; .* recall@k and ndcg@k"):
        user_values(name, np.array([0]), np.array([1]), SETS)


def test_metrics_of_users_load_numpy_alone() -> None:
    check = (
        "import sys, intentbench.metrics.users;"
        "print({'torch', 'lightning', 'polars', 'datasets', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
