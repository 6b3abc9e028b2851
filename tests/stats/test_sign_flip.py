import numpy as np
import pytest
from scipy import stats

from intentbench.metrics.formulas import ndcg
from intentbench.stats.contrast import contrast
from intentbench.stats.sign_flip import sign_flip

RANKS = np.random.default_rng(11).integers(1, 15, (2, 2, 14))
A, B = ndcg(RANKS[0], 10), ndcg(RANKS[1], 10)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_sign_flip_is_scipy_s_permutation_test(seeds: int, shift: float) -> None:
    a, b = A[:seeds] + shift, B[:seeds]
    difference = a.mean(axis=0) - b.mean(axis=0)
    exact = stats.permutation_test(
        (difference,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(difference),
    )
    # 100 000 draws: a standard error of .0016 at most
    assert sign_flip(a, b) == pytest.approx(exact.pvalue, abs=0.007)


def test_sign_flip_agrees_with_t_where_there_are_many_users() -> None:
    generator = np.random.default_rng(12)
    difficulty = generator.normal(3, 1.5, 2_000)
    for shift in (0.0, 0.03, 0.08):
        log_ranks = difficulty + generator.normal(0, 0.5, (2, 2_000)) - [[shift], [0.0]]
        a, b = (ndcg(np.maximum(np.exp(row), 1).astype(int), 10)[None, :] for row in log_ranks)
        t = contrast(a, b, deterministic_a=True, deterministic_b=True)
        assert sign_flip(a, b, draws=20_000) == pytest.approx(t.p, abs=0.015)


def test_sign_flip_of_equal_models_is_one() -> None:
    assert sign_flip(A, A, draws=100) == 1
    reordered = np.array([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]])
    assert sign_flip(reordered, reordered[[2, 1, 0]], draws=100) == 1


def test_sign_flip_is_never_zero_and_repeats() -> None:
    far = A + 1
    assert sign_flip(far, B, draws=999) == pytest.approx(1 / 1_000, abs=2e-3)
    assert sign_flip(far, B, draws=999) > 0
    assert sign_flip(A, B, draws=999, seed=3) == sign_flip(A, B, draws=999, seed=3)
    assert sign_flip(A, B, draws=999) == sign_flip(B, A, draws=999)


def test_sign_flip_counts_every_flip_where_the_sum_is_zero() -> None:
    generator = np.random.default_rng(13)
    for _ in range(20):
        a = generator.random((1, 9)) / 3
        assert sign_flip(a, generator.permuted(a, axis=1), draws=500) == 1
