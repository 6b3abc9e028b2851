"""Measures of disentanglement on data whose answer is known."""

import math

import numpy as np
import pytest
from scipy.stats import ortho_group

from intentbench.metrics.disentangle import distance_correlation, linear_cka, reconstruction_r2
from intentbench.metrics.geometry import (
    effective_rank,
    lag_cosines,
    length_ratio,
    mean_pairwise_cosine,
)
from intentbench.metrics.mutual_information import mutual_information

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(800, 6))
Y = RANDOM.normal(size=(800, 6))


def test_rotations_and_scales_are_the_same_representation() -> None:
    rotated = 3 * X @ ortho_group.rvs(6, random_state=0)
    assert linear_cka(X, rotated) == pytest.approx(1)
    assert distance_correlation(X, rotated) == pytest.approx(1)
    assert reconstruction_r2(X, rotated) == pytest.approx(1, abs=1e-3)


def test_independent_representations_share_next_to_nothing() -> None:
    assert linear_cka(X, Y) < 0.05
    assert distance_correlation(X, Y) < 0.25  # biased upwards in small samples
    assert reconstruction_r2(X, Y) == pytest.approx(0, abs=0.05)


def test_cka_equals_the_definition_by_kernels() -> None:
    """HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with centred linear kernels."""
    y = X @ RANDOM.normal(size=(6, 4)) + RANDOM.normal(size=(800, 4))
    centring = np.eye(800) - 1 / 800
    k, l_ = (centring @ (values @ values.T) @ centring for values in (X, y))
    expected = (k * l_).sum() / math.sqrt((k * k).sum() * (l_ * l_).sum())
    assert linear_cka(X, y) == pytest.approx(expected)


def test_distance_correlation_sees_what_is_not_linear() -> None:
    angle = RANDOM.uniform(0, 2 * math.pi, 800)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    radius = np.square(circle[:, :1])
    assert linear_cka(circle, radius) < 0.05
    assert distance_correlation(circle, radius) > 0.2 > distance_correlation(X[:, :1], Y[:, :1])


def test_distance_correlation_equals_a_double_loop() -> None:
    x, y = X[:12, :2], Y[:12, :2] + X[:12, :2]

    def centred(values: np.ndarray) -> np.ndarray:
        count = len(values)
        a = np.array([[math.dist(p, q) for q in values] for p in values])
        return np.array(
            [
                [a[i, j] - a[i].mean() - a[:, j].mean() + a.mean() for j in range(count)]
                for i in range(count)
            ]
        )

    a, b = centred(x), centred(y)
    expected = math.sqrt((a * b).mean() / math.sqrt((a * a).mean() * (b * b).mean()))
    assert distance_correlation(x, y) == pytest.approx(expected)


def test_effective_rank_counts_directions() -> None:
    assert effective_rank(RANDOM.normal(size=(5000, 6))) == pytest.approx(6, abs=0.01)
    assert effective_rank(np.outer(RANDOM.normal(size=100), np.ones(6))) == pytest.approx(1)
    assert effective_rank(np.ones((5, 3))) == 1


def test_mean_pairwise_cosine_equals_a_double_loop() -> None:
    values = X[:9]
    cosines = [
        values[i] @ values[j] / np.linalg.norm(values[i]) / np.linalg.norm(values[j])
        for i in range(9)
        for j in range(9)
        if i != j
    ]
    assert mean_pairwise_cosine(values) == pytest.approx(np.mean(cosines))
    assert mean_pairwise_cosine(np.ones((1, 3))) == 0


def test_lag_cosines_stay_within_a_user() -> None:
    values = np.array([[1.0, 0], [0, 1], [1, 0], [-1, 0], [1, 0]])
    user, position = np.array([0, 0, 0, 1, 1]), np.array([4, 5, 6, 0, 1])
    found = lag_cosines(values, user, position, 3)
    assert found[:2] == [pytest.approx((0 + 0 - 1) / 3), 1]
    assert math.isnan(found[2])
    shuffled = [3, 0, 4, 2, 1]
    again = lag_cosines(values[shuffled], user[shuffled], position[shuffled], 2)
    assert again == found[:2]


def test_length_ratio_is_a_mean_over_rows() -> None:
    whole = np.array([[3.0, 4], [0, 2]])
    assert length_ratio(whole * [[1], [0.5]], whole) == 0.75
    assert length_ratio(np.zeros((2, 2)), np.zeros((2, 2))) == 0


def test_mutual_information_of_gaussians_is_bounded_from_below() -> None:
    """Two coordinates with correlation ρ: I = -½ log(1 - ρ²) each."""
    correlation = 0.9
    noise = RANDOM.normal(size=(4000, 2))
    x = RANDOM.normal(size=(4000, 2))
    y = correlation * x + math.sqrt(1 - correlation**2) * noise
    truth = -math.log(1 - correlation**2)
    assert 0.7 * truth < mutual_information(x, y, seeds=1) < 1.05 * truth
    assert mutual_information(x, noise, seeds=1) < 0.1
