"""Alignment and uniformity against the code of their paper, and by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from intentbench.metrics.hypersphere import alignment, uniformity, unit_rows


@pytest.fixture
def vectors() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(0.3, 1, (40, 6))


def test_uniformity_is_that_of_wang_and_isola(vectors: NDArray[np.float64]) -> None:
    x = torch.nn.functional.normalize(torch.from_numpy(vectors))
    theirs = torch.pdist(x, p=2).pow(2).mul(-2).exp().mean().log()
    assert uniformity(vectors) == pytest.approx(float(theirs))
    slow = [
        np.exp(-2 * np.square(x[i].numpy() - x[j].numpy()).sum())
        for i in range(40)
        for j in range(i)
    ]
    assert uniformity(vectors) == pytest.approx(np.log(np.mean(slow)))


def test_alignment_is_a_mean_of_squared_distances(vectors: NDArray[np.float64]) -> None:
    other = vectors[::-1] + 1
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(vectors, other, strict=True)
    ]
    assert alignment(vectors, other) == pytest.approx(2 - 2 * np.mean(cosines))
    assert alignment(vectors, 3 * vectors) == pytest.approx(0)


def test_collapse_and_evenness() -> None:
    assert uniformity(np.ones((5, 3))) == 0
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert uniformity(ring) < uniformity(ring[:30]) < 0


def test_unit_rows_are_those_of_scikit_learn_and_zeros_stay(vectors: NDArray[np.float64]) -> None:
    vectors[3] = 0
    assert np.allclose(unit_rows(vectors), normalize(vectors))
    assert not unit_rows(vectors)[3].any()
