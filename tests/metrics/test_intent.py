"""Agreement of assigned and planted intents."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intentbench.metrics.intent import ari, nmi

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=20)


def _entropy(labels: list[object]) -> float:
    return -sum(n / len(labels) * math.log(n / len(labels)) for n in Counter(labels).values())


@given(PAIRS)
def test_nmi_equals_a_plain_loop(pairs: list[tuple[int, int]]) -> None:
    assigned, planted = (list(labels) for labels in zip(*pairs, strict=True))
    mean = (_entropy([*assigned]) + _entropy([*planted])) / 2
    shared = 2 * mean - _entropy([*pairs])
    expected = shared / mean if mean else 1.0
    assert nmi(np.array(assigned), np.array(planted)) == pytest.approx(expected, abs=1e-9)


@given(PAIRS)
def test_ari_equals_a_count_of_pairs(pairs: list[tuple[int, int]]) -> None:
    couples = list(combinations(pairs, 2))
    together = sum(a == c for (a, _), (c, _) in couples)
    planted = sum(b == d for (_, b), (_, d) in couples)
    both = sum(first == second for first, second in couples)
    chance, best = together * planted / len(couples), (together + planted) / 2
    expected = (both - chance) / (best - chance) if best != chance else 1.0
    left, right = np.array(pairs).T
    assert ari(left, right) == pytest.approx(expected, abs=1e-9)


def test_names_of_intents_do_not_matter() -> None:
    planted = np.random.default_rng(0).integers(0, 5, 200)
    renamed = np.array([7, 3, 9, 0, 1])[planted]
    assert nmi(renamed, planted) == pytest.approx(1)
    assert ari(renamed, planted) == pytest.approx(1)


def test_random_labels_agree_by_chance_alone() -> None:
    generator = np.random.default_rng(0)
    assigned, planted = generator.integers(0, 5, (2, 5000))
    assert abs(ari(assigned, planted)) < 0.005
    assert nmi(assigned, planted) < 0.01


@pytest.mark.parametrize(
    ("assigned", "planted", "value"),
    [
        ([0, 0, 0, 0], [0, 0, 1, 1], 0),  # one intent for everything tells nothing
        ([0, 0, 1, 1], [0, 0, 0, 0], 0),
        ([4, 4, 4], [1, 1, 1], 1),  # the partitions are the same
        ([0, 1, 2], [5, 4, 3], 1),
        ([3], [8], 1),
    ],
)
def test_edge_cases_are_as_written_down(
    assigned: list[int], planted: list[int], value: float
) -> None:
    for measure in (nmi, ari):
        assert measure(np.array(assigned), np.array(planted)) == value


@pytest.mark.parametrize(
    ("assigned", "planted"),
    [
        (np.array([1, 2]), np.array([1, 2, 3])),
        (np.array([], dtype=int), np.array([], dtype=int)),
        (np.array([0.5, 1.5]), np.array([0, 1])),
        (np.array([[0, 1]]), np.array([[0, 1]])),
    ],
)
def test_labels_that_cannot_be_compared_are_refused(
    assigned: NDArray[np.integer], planted: NDArray[np.integer]
) -> None:
    for measure in (nmi, ari):
        with pytest.raises(ValueError, match="integer arrays of one positive length"):
            measure(assigned, planted)
