from math import nan
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from intentbench.stats.correction import Method, adjust


def test_adjust_equals_r() -> None:
    p = [0.01, 0.04, 0.03, 0.005]  # p.adjust(p, "holm"), p.adjust(p, "BH")
    assert adjust(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust(p, "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02])


@pytest.mark.parametrize("method", get_args(Method))
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_adjust_equals_statsmodels(method: Method, p: list[float]) -> None:
    expected = multipletests(p, method={"holm": "holm", "bh": "fdr_bh"}[method])[1]
    assert adjust(p, method) == pytest.approx(list(expected))


def test_adjust_counts_only_comparisons_that_were_made() -> None:
    assert adjust([0.01, None, 0.03]) == pytest.approx([0.02, None, 0.03])
    assert adjust([0.01, nan, 0.03]) == pytest.approx([0.02, None, 0.03])


def test_adjust_of_nothing_is_nothing() -> None:
    assert adjust([]) == []
    assert adjust([None]) == [None]
