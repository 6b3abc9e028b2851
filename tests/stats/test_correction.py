from math import nan

import pytest

from intentbench.stats.correction import adjust


def test_adjust_equals_r() -> None:
    p = [0.01, 0.04, 0.03, 0.005]  # p.adjust(p, "holm"), p.adjust(p, "BH")
    assert adjust(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust(p, "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02])


def test_adjust_counts_only_comparisons_that_were_made() -> None:
    assert adjust([0.01, None, 0.03]) == pytest.approx([0.02, None, 0.03])
    assert adjust([0.01, nan, 0.03]) == pytest.approx([0.02, None, 0.03])


def test_adjust_of_nothing_is_nothing() -> None:
    assert adjust([]) == []
    assert adjust([None]) == [None]
