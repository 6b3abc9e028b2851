from math import nan
from typing import get_args

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from intentbench.stats.correction import Method, adjust


def test_adjust_equals_r() -> None:
    p = [0.01, 0.04, 0.03, 0.005]  # p.adjust(p, "holm"), p.adjust(p, "BH")
    assert adjust(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust(p, "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02])


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("size", [1, 7, 40])
def test_adjust_equals_statsmodels(method: Method, size: int) -> None:
    p = np.random.default_rng(size).uniform(0, 1, size).round(1) ** 4  # with ties, 0 and 1
    expected = multipletests(p, method={"holm": "holm", "bh": "fdr_bh"}[method])[1]
    assert adjust(list(p), method) == pytest.approx(list(expected))


def test_adjust_counts_only_comparisons_that_were_made() -> None:
    assert adjust([0.01, None, 0.03]) == pytest.approx([0.02, None, 0.03])
    assert adjust([0.01, nan, 0.03]) == pytest.approx([0.02, None, 0.03])


def test_adjust_of_nothing_is_nothing() -> None:
    assert adjust([]) == []
    assert adjust([None]) == [None]
