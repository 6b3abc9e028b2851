"""Mean ranks over datasets: which models a bar joins, and when there is a picture."""

import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import pytest

from intentbench.reports.critical_difference import (
    draw_critical_difference,
    has_critical_difference,
    tied_sets,
)
from intentbench.stats.across import Across, AcrossPair, compare_across


def board(models: int, chance: float, seed: int) -> Across:
    """Models whose pairs are separated at random."""
    random = np.random.default_rng(seed)
    labels = tuple(f"model_{number}" for number in range(models))
    pairs = {}
    for a, b in combinations(labels, 2):
        p = 0.01 if random.random() < chance else 0.05
        pairs[a, b] = pairs[b, a] = AcrossPair(1, 1, 1, 0, 1.0, 0.9, 1.1, p, p)
    ranks = dict(zip(labels, sorted(random.uniform(1, models, models)), strict=True))
    datasets = tuple(f"data_{number}" for number in range(7))
    return Across(datasets, labels, {}, ranks, pairs, None, 0.05)


def slow_sets(across: Across) -> set[tuple[str, ...]]:
    """Every subset that is tied throughout and part of no other such."""

    def tied(members: tuple[str, ...]) -> bool:
        return all(across.pairs[pair].p_adjusted == 0.05 for pair in combinations(members, 2))

    sizes = range(2, len(across.labels) + 1)
    found = [m for size in sizes for m in combinations(across.labels, size) if tied(m)]
    return {m for m in found if not any(set(m) < set(other) for other in found)}


@pytest.mark.parametrize("seed", range(12))
def test_bars_are_the_largest_tied_sets(seed: int) -> None:
    across = board(7, [0.0, 0.2, 0.5, 0.8, 1.0][seed % 5], seed)
    found = tied_sets(across)
    assert len(found) == len(set(found))
    assert set(found) == slow_sets(across)


def test_many_models_that_are_all_tied_are_one_bar() -> None:
    across = board(40, 0.0, 0)
    assert tied_sets(across) == [across.labels]


def test_picture_names_every_model_with_its_rank() -> None:
    across = board(9, 0.5, 3)
    picture = draw_critical_difference(across)
    words = ["".join(e.itertext()) for e in ElementTree.fromstring(picture).iter()]
    for label, rank in across.mean_ranks.items():
        assert any(f"{label}  {rank:.2f}" in w or f"{rank:.2f}  {label}" in w for w in words)
    assert "over 7 datasets" in " ".join(words)
    assert draw_critical_difference(across) == picture


@pytest.mark.parametrize(
    ("models", "datasets", "expected"), [(3, 5, False), (3, 6, True), (2, 6, False)]
)
def test_there_is_a_picture_where_all_pairs_are_tested(
    models: int, datasets: int, expected: bool
) -> None:
    random = np.random.default_rng(0)
    means = {
        f"data_{d}": {f"model_{m}": float(random.random()) for m in range(models)}
        for d in range(datasets)
    }
    assert has_critical_difference(compare_across(means, {})) is expected
    assert has_critical_difference(compare_across(means, {}, reference="model_0")) is False
    assert has_critical_difference(None) is False
