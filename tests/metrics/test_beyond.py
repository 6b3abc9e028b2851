"""Coverage, novelty, popularity and inequality of what is recommended."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intentbench.metrics.beyond import coverage, gini, mean_popularity, novelty

LISTS = np.array([[1, 2], [1, 3], [1, 2]])  # item 1 three times, 2 twice, 3 once, 4 never
COUNTS = np.array([0, 8, 4, 2, 2])


def test_values_are_those_worked_by_hand() -> None:
    assert coverage(LISTS, 4) == 3 / 4
    assert mean_popularity(LISTS, COUNTS) == pytest.approx((3 * 8 + 2 * 4 + 2) / 6)
    assert novelty(LISTS, COUNTS) == pytest.approx((3 * 1 + 2 * 2 + 3) / 6)
    # shares 0, 1/6, 2/6, 3/6 with weights -3, -1, 1, 3, over V - 1 = 3
    assert gini(LISTS, 4) == pytest.approx((-1 / 6 + 2 / 6 + 9 / 6) / 3)


@st.composite
def recommendations(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n_items, k = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    row = st.lists(st.integers(0, n_items), min_size=k, max_size=k).filter(any)
    lists = np.array(draw(st.lists(row, min_size=1, max_size=6)))
    events = st.lists(st.integers(0, 50), min_size=n_items, max_size=n_items).filter(any)
    return lists, np.array([0, *draw(events)])


@given(recommendations())
def test_values_equal_plain_loops(drawn: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
    lists, counts = drawn
    n_items = len(counts) - 1
    places = [int(item) for row in lists for item in row if item]
    exposure = [places.count(item) for item in range(1, n_items + 1)]
    popularity = [int(counts[item]) for item in places]
    bits = [-math.log2(max(count, 1) / counts.sum()) for count in popularity]
    differences = sum(abs(a - b) for a in exposure for b in exposure)

    assert coverage(lists, n_items) == pytest.approx(len(set(places)) / n_items, abs=1e-12)
    assert mean_popularity(lists, counts) == pytest.approx(sum(popularity) / len(places), abs=1e-9)
    assert novelty(lists, counts) == pytest.approx(sum(bits) / len(places), abs=1e-12)
    # The mean difference over twice the mean, among ordered pairs of different items.
    expected = differences / (2 * n_items * (n_items - 1)) / (len(places) / n_items)
    assert gini(lists, n_items) == pytest.approx(expected, abs=1e-12)
    assert -1e-12 <= gini(lists, n_items) <= 1 + 1e-12


def test_equal_exposure_has_no_inequality_and_a_single_item_all_of_it() -> None:
    assert gini(np.arange(1, 9).reshape(4, 2), 8) == pytest.approx(0, abs=1e-12)
    assert gini(np.full((4, 1), 5), 8) == pytest.approx(1)
    assert gini(np.array([[1]]), 1) == 0


def test_an_item_without_training_events_counts_as_one_with_a_single_event() -> None:
    counts = np.array([0, 7, 1, 0])
    assert novelty(np.array([[3]]), counts) == novelty(np.array([[2]]), counts) == 3


@pytest.mark.parametrize("lists", [[[5]], [[-1]], [[0, 0]]])
def test_lists_that_are_empty_or_name_no_item_are_refused(lists: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="lists"):
        coverage(np.array(lists), 4)
    with pytest.raises(ValueError, match="lists"):
        novelty(np.array(lists), COUNTS)


def test_novelty_without_training_events_is_refused() -> None:
    with pytest.raises(ValueError, match="training events"):
        novelty(LISTS, np.zeros(5, dtype=int))
