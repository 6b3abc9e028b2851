"""Formulas from ranks."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import RequestError
from intentbench.metrics.formulas import FORMULAS, compute_metric
from tests.metrics import reference

NAMES = [*(f"{name}@{k}" for name in FORMULAS for k in (1, 5, 10, 20)), "mrr"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hit_rate@3", [1, 1, 1, 0]),
        ("ndcg@3", [1, 0.6309297535714575, 0.5, 0]),
        ("mrr@3", [1, 1 / 2, 1 / 3, 0]),
        ("mrr", [1, 1 / 2, 1 / 3, 1 / 4]),
    ],
)
def test_metrics_are_those_worked_by_hand(name: str, values: list[float]) -> None:
    np.testing.assert_allclose(compute_metric(name, [1, 2, 3, 4]), values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_equal_a_plain_loop(name: str) -> None:
    ranks = np.random.default_rng(0).integers(1, 60, size=(3, 500))
    expected = [[reference.metric(name, int(rank)) for rank in row] for row in ranks]
    np.testing.assert_allclose(compute_metric(name, ranks), expected, rtol=0, atol=1e-12)


@given(rank=st.integers(1, 2**31 - 1), k=st.integers(1, 1000), more=st.integers(1, 1000))
def test_metrics_lie_in_the_unit_interval_and_grow_in_k(rank: int, k: int, more: int) -> None:
    for name in FORMULAS:
        at_k = compute_metric(f"{name}@{k}", rank)
        assert 0 <= at_k <= compute_metric(f"{name}@{k + more}", rank) <= 1


@given(rank=st.integers(1, 1000), worse=st.integers(1, 1000))
def test_a_worse_rank_is_never_better(rank: int, worse: int) -> None:
    for name in NAMES:
        assert compute_metric(name, rank + worse) <= compute_metric(name, rank)


def test_narrow_integers_do_not_overflow() -> None:
    last = np.array([65535], dtype=np.uint16)
    assert compute_metric("ndcg@100000", last)[0] == pytest.approx(1 / 16)


@pytest.mark.parametrize(
    "name", ["map@10", "ndcg", "hit_rate", "ndcg@0", "ndcg@ten", "NDCG@10", ""]
)
def test_an_unknown_metric_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(RequestError, match="hit_rate@k, ndcg@k, mrr@k"):
        compute_metric(name, [1])


def test_formulas_load_numpy_alone() -> None:
    check = (
        "import sys, intentbench.metrics.formulas;"
        "print({'torch', 'lightning', 'polars', 'datasets', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
