"""EASE: B against one ridge regression an item, and its read-out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.models.ease import EASE, MAX_ITEMS
from tests.models.reference import (
    N_ITEMS,
    SEQUENCES,
    figures,
    published,
    queries_of,
    training_of,
)

L2 = 0.7


def _prepared(sequences: list[list[int]], gamma: float = 1.0) -> EASE:
    model = EASE(N_ITEMS, len(sequences), gamma, L2)
    model.prepare(training_of(sequences))
    return model


def _regressions(sequences: list[list[int]]) -> NDArray[np.float64]:
    """Each column: the ridge regression of an item on all others."""
    had = np.zeros((len(sequences), N_ITEMS + 1))
    for user, row in enumerate(sequences):
        had[user, row] = 1
    result = np.zeros((N_ITEMS + 1, N_ITEMS + 1))
    for item in range(N_ITEMS + 1):
        others = np.arange(N_ITEMS + 1) != item
        x, y = had[:, others], had[:, item]
        result[others, item] = np.linalg.solve(x.T @ x + L2 * np.eye(N_ITEMS), x.T @ y)
    return result


@given(SEQUENCES)
@hypothesis_settings(max_examples=50)
def test_columns_are_ridge_regressions_on_the_other_items(sequences: list[list[int]]) -> None:
    weights = _prepared(sequences).weights
    np.testing.assert_allclose(weights.numpy(), _regressions(sequences), atol=1e-6)
    assert (weights.diagonal() == 0).all()


@given(SEQUENCES)
@hypothesis_settings(max_examples=20)
def test_order_of_users_is_free(sequences: list[list[int]]) -> None:
    forwards, backwards = _prepared(sequences), _prepared(sequences[::-1])
    torch.testing.assert_close(forwards.weights, backwards.weights)


def test_rows_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = [[1, 2, 3], [2, 3, 4], [1, 4, 6], [5, 1]]
    whole = _prepared(sequences).weights
    monkeypatch.setattr("intentbench.models.ease.ROWS", 2)
    assert _prepared(sequences).weights.equal(whole)


SMALL = [[1, 2, 3], [2, 3, 4, 2], [1, 4, 6], [5, 1]]


def test_scores_are_weighted_sums_of_rows() -> None:
    model = _prepared(SMALL, gamma=0.5)
    rows = _regressions(SMALL)
    scores = model.score(queries_of([[2, 1, 4], [3], []])).numpy()
    first = 0.25 * rows[2] + 0.5 * rows[1] + rows[4]
    np.testing.assert_allclose(scores[0, 1:], first[1:], atol=1e-6)
    np.testing.assert_allclose(scores[1, 1:], rows[3, 1:], atol=1e-6)
    assert (scores[2, 1:] == 0).all()
    assert (scores[:, 0] == -np.inf).all()


def test_order_of_the_history_is_free_without_decay_only() -> None:
    one_way, other_way = queries_of([[2, 1, 4]]), queries_of([[4, 2, 1]])
    for gamma, same in ((1.0, True), (0.5, False)):
        model = _prepared(SMALL, gamma)
        difference = (model.score(one_way) - model.score(other_way))[:, 1:].abs().max()
        assert bool(difference < 1e-6) is same


def test_too_many_items_are_refused_in_one_line_before_memory_is_taken() -> None:
    with pytest.raises(RequestError, match="40001 items would take 19 GB") as caught:
        EASE(MAX_ITEMS + 1, 10)
    assert "\n" not in str(caught.value)


def test_penalty_must_be_positive() -> None:
    with pytest.raises(RequestError, match="l2"):
        EASE(N_ITEMS, 1, l2=0.0)


FIGURES = {
    ("beauty", 1.0): [0.0477, 0.0315, 0.0699, 0.0386, 0.0980, 0.0457],
    ("beauty", 0.5): [0.0541, 0.0387, 0.0758, 0.0456, 0.0975, 0.0511],
    ("toys", 1.0): [0.0537, 0.0366, 0.0751, 0.0435, 0.1000, 0.0497],
    ("toys", 0.5): [0.0643, 0.0463, 0.0824, 0.0521, 0.1023, 0.0571],
}
"""Of another implementation on the same files, with l2 = 50."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beauty", "toys"])
def test_figures_on_published_data(name: str, real_data: Path) -> None:
    data = published(name, real_data)
    model = EASE(data.n_items, data.n_users, l2=50.0)
    model.prepare(data.training())
    for gamma in (1.0, 0.5):
        model.gamma = gamma
        assert figures(model, data) == pytest.approx(FIGURES[name, gamma], abs=1.01e-4)
