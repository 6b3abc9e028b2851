"""Equal models, many times: how often does the test see a difference?"""

import numpy as np
import pytest

from intentbench.metrics.formulas import ndcg
from intentbench.stats.components import Values
from intentbench.stats.contrast import contrast
from intentbench.stats.family import compare_all


def simulate(
    generator: np.random.Generator, n_models: int, n_users: int, n_seeds: int, spread: float
) -> list[Values]:
    """NDCG@10 of equal models; a seed shifts all of a model's log ranks by `spread`."""
    difficulty = generator.normal(4, 2, n_users)
    models = []
    for _ in range(n_models):
        taste = generator.normal(0, 0.5, n_users)  # a model suits some users, whatever the seed
        shift = generator.normal(0, spread, (n_seeds, 1))
        noise = generator.normal(0, 0.7, (n_seeds, n_users))
        rank = np.clip(np.exp(difficulty + taste + shift + noise), 1, 10_000).astype(np.int64)
        models.append(ndcg(rank, 10))
    return models


def false_positives(
    runs: int, n_users: int, n_seeds: int, spread: float, single: bool = False
) -> tuple[float, float]:
    """Shares of runs in which p < .05, and in which the interval covers no difference."""
    generator = np.random.default_rng(20_260_301)
    rejected = 0
    covered = 0
    for _ in range(runs):
        a, b = simulate(generator, 2, n_users, n_seeds, spread)
        found = contrast(a[:1] if single else a, b)
        rejected += found.p < 0.05
        covered += found.low <= 0 <= found.high
    return rejected / runs, covered / runs


def family_errors(runs: int, n_users: int, n_seeds: int, spread: float, n_models: int) -> float:
    """Share of runs in which any pair of equal models is separated."""
    generator = np.random.default_rng(20_260_302)
    wrong = 0
    for _ in range(runs):
        models = simulate(generator, n_models, n_users, n_seeds, spread)
        family = compare_all({str(i): values for i, values in enumerate(models)})
        wrong += max(tier or 1 for tier in family.tiers().values()) > 1
    return wrong / runs


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_false_positives_small(spread: float, single: bool) -> None:
    rejected, _ = false_positives(400, 300, 3, spread, single)
    assert rejected <= 0.09


def test_a_test_over_users_alone_would_not_do() -> None:
    """The simulation can fail a test: averaging over seeds and forgetting them does."""
    generator = np.random.default_rng(20_260_303)
    wrong = 0
    for _ in range(200):
        a, b = (x.mean(axis=0, keepdims=True) for x in simulate(generator, 2, 2_000, 3, 0.15))
        wrong += contrast(a, b, deterministic_a=True, deterministic_b=True).p < 0.05
    assert wrong / 200 > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_users", "n_seeds", "spread"),
    [
        (3_000, 5, 0.0),
        (3_000, 10, 0.0),
        (20_000, 3, 0.04),
        (20_000, 5, 0.06),
        (20_000, 10, 0.06),
        (20_000, 10, 0.12),
    ],
)
def test_false_positives(n_users: int, n_seeds: int, spread: float) -> None:
    rejected, covered = false_positives(1_000, n_users, n_seeds, spread)
    assert rejected <= 0.07
    assert 0.91 <= covered <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.06])
def test_family_errors(spread: float) -> None:
    assert family_errors(300, 3_000, 5, spread, 6) <= 0.07
