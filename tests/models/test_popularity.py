"""Popularity: counts, for everybody the same."""

from pathlib import Path

import pytest
import torch

from datamodules.types import PAD
from intentbench.models.popularity import Popularity
from tests.models.reference import N_ITEMS, figures, published, queries_of, training_of


def test_scores_are_training_counts_for_every_user() -> None:
    model = Popularity(N_ITEMS, 3)
    model.prepare(training_of([[1, 2, 2], [], [2, 5]]))
    scores = model.score(queries_of([[1, 2], [3], []]))
    assert scores.tolist() == [[-torch.inf, 1, 3, 0, 0, 1, 0]] * 3
    assert (scores[:, PAD] == -torch.inf).all()


def test_preparing_again_forgets_the_first_data() -> None:
    model = Popularity(N_ITEMS, 1)
    model.prepare(training_of([[1, 1]]))
    model.prepare(training_of([[3]]))
    assert model.counts.tolist() == [0, 0, 0, 1, 0, 0, 0]


FIGURES = {
    "beauty": [0.0068, 0.0039, 0.0110, 0.0053, 0.0198, 0.0074],
    "toys": [0.0055, 0.0038, 0.0090, 0.0049, 0.0134, 0.0060],
}
"""Of another implementation on the same files."""


@pytest.mark.parametrize("name", FIGURES)
def test_figures_on_published_data(name: str, real_data: Path) -> None:
    data = published(name, real_data)
    model = Popularity(data.n_items, data.n_users)
    model.prepare(data.training())
    assert figures(model, data) == FIGURES[name]
