"""Negatives: unseen, uniform, and every held-out item among them."""

import torch
from scipy import stats

from datamodules.types import TrainingData
from intentbench.nn.negatives import UniformNegatives


def _training() -> TrainingData:
    return TrainingData(torch.tensor([1, 2, 2, 5, 9, 9, 3]), torch.tensor([0, 4, 4, 7]), n_items=10)


def test_negatives_are_never_padding_nor_seen_in_training() -> None:
    sampler = UniformNegatives(_training())
    seen = {0: {1, 2, 5}, 1: set(), 2: {9, 3}}
    for user, items in seen.items():
        drawn = set(sampler.sample(torch.full((50,), user), 40).flatten().tolist())
        assert drawn == set(range(1, 11)) - items


def test_negatives_are_uniform_over_the_unseen() -> None:
    drawn = UniformNegatives(_training()).sample(torch.zeros(7000, dtype=torch.long), 10).flatten()
    counts = torch.bincount(drawn, minlength=11)[[3, 4, 6, 7, 8, 9, 10]]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
