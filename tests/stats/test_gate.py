"""The gate's verdicts, against numbers done by hand and against the rates that it promises."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from datamodules.errors import RequestError
from intentbench.metrics.formulas import ndcg
from intentbench.stats.components import Values
from intentbench.stats.contrast import BORROWED, USERS_ONLY, contrast
from intentbench.stats.gate import (
    ALPHA,
    GateTest,
    Verdict,
    give_verdicts,
    judge_margin,
    sum_up,
)
from tests.stats.test_contrast import A, B, pairs

PASS, WORSE, OPEN = Verdict.PASS, Verdict.WORSE, Verdict.CANNOT_TELL


def simulate(
    generator: np.random.Generator, n_users: int, n_seeds: int, spread: float
) -> tuple[Values, Values]:
    """NDCG@10 of two equal models; a seed shifts all of a model's log ranks by `spread`."""
    difficulty = generator.normal(4, 2, n_users)
    models = []
    for _ in range(2):
        log_rank = difficulty + generator.normal(0, 0.5, n_users)
        log_rank = log_rank + generator.normal(0, spread, (n_seeds, 1))
        log_rank += generator.normal(0, 0.7, (n_seeds, n_users))
        models.append(ndcg(np.floor(np.exp(log_rank)).clip(1), 10))
    return models[0], models[1]


def steady(n_seeds: int, n_users: int = 400, level: float = 0.5, seed: int = 0) -> Values:
    """Users that differ, seeds that hardly do."""
    generator = np.random.default_rng(seed)
    users = np.random.default_rng(99).uniform(0, 2 * level, n_users)
    noise = generator.normal(0, 0.01, (n_seeds, n_users))
    values: Values = users + noise + generator.normal(0, 0.001, (n_seeds, 1))
    return values


def verdict(new: Values, base: Values, margin: float = 0.05) -> Verdict:
    return give_verdicts([judge_margin(new, base, margin)])[0]


def with_p(p: float, test: GateTest) -> GateTest:
    """A test that is worse with this p-value."""
    return replace(test, p_worse=p, contrast=replace(test.contrast, low=-1.0, high=-0.1))


def test_reference_numbers() -> None:
    found = judge_margin(A, B, 0.02).contrast
    assert (found.low, found.high) == pytest.approx((0.06477233, 0.29538121), abs=5e-9)
    assert give_verdicts([judge_margin(A, B, 0.02)]) == [PASS]


def test_one_sided_bounds_and_p_value_agree_with_a_paired_t_test() -> None:
    generator = np.random.default_rng(1)
    base = generator.uniform(0.2, 1, (1, 60))
    new = 0.93 * base + generator.normal(0, 0.05, (1, 60))
    found = judge_margin(new, base, 0.05, deterministic_new=True, deterministic_base=True)
    expected = stats.ttest_rel(new[0], 0.95 * base[0], alternative="less")
    assert found.p_worse == pytest.approx(expected.pvalue)
    assert found.contrast.high == pytest.approx(expected.confidence_interval(0.95).high)
    greater = stats.ttest_rel(new[0], 0.95 * base[0], alternative="greater")
    assert found.contrast.low == pytest.approx(greater.confidence_interval(0.95).low)


@pytest.mark.parametrize(("factor", "expected"), [(1.0, PASS), (0.97, PASS), (0.9, WORSE)])
def test_clear_cases(factor: float, expected: Verdict) -> None:
    assert verdict(factor * steady(3, seed=1), steady(3, seed=2)) is expected


def test_a_loss_of_the_margin_itself_is_left_open() -> None:
    base = steady(3, seed=2)
    assert verdict(0.95 * base + (steady(3, seed=3) - steady(3, seed=4)), base) is OPEN


def test_equal_ranks_pass_at_once() -> None:
    noisy = np.array([[0.1, 0.2, 0.3, 0.3], [0.7, 0.8, 0.8, 0.9]])
    assert verdict(noisy, noisy) is OPEN  # seeds this far apart hold no margin
    test = judge_margin(noisy, noisy, unchanged=True)
    assert give_verdicts([test]) == [PASS]
    assert (test.p_worse, test.certifiable, test.seeds_needed) == (None, None, None)
    assert give_verdicts([judge_margin(noisy[:1], noisy[:1], unchanged=True)]) == [PASS]


def test_single_seeds_on_both_sides_cannot_tell() -> None:
    test = judge_margin(0.5 * steady(1), steady(1))
    assert USERS_ONLY in test.contrast.notes
    assert (test.p_worse, test.certifiable, test.seeds_needed) == (None, None, None)
    assert give_verdicts([test]) == [OPEN]


def test_a_single_seed_borrows() -> None:
    for new, base in ((steady(1, seed=1), steady(3)), (steady(3), steady(1, seed=1))):
        test = judge_margin(new, base)
        assert BORROWED in test.contrast.notes
        assert give_verdicts([test]) == [PASS]
        assert test.seeds_needed is not None


def test_deterministic_rows_need_one_run() -> None:
    test = judge_margin(
        steady(1), steady(1, seed=1), deterministic_new=True, deterministic_base=True
    )
    assert give_verdicts([test]) == [PASS]
    assert test.seeds_needed == 1


def test_a_mean_of_zero_has_no_margin() -> None:
    test = judge_margin(np.zeros((2, 4)), np.zeros((2, 4)))
    assert give_verdicts([test]) == [OPEN]
    assert test.certifiable is None
    assert give_verdicts([judge_margin(np.zeros((2, 4)), np.zeros((2, 4)), unchanged=True)]) == [
        PASS
    ]


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, 5.0, float("nan")])
def test_what_is_no_margin_is_refused(margin: float) -> None:
    with pytest.raises(RequestError, match="expected a share between 0 and 1"):
        judge_margin(A, B, margin)


def test_worse_is_corrected_over_the_tests_made() -> None:
    base = judge_margin(0.9 * steady(3, seed=1), steady(3, seed=2))
    lone = with_p(0.03, base)
    equal = judge_margin(A, A, unchanged=True)
    silent = judge_margin(A[:1], B[:1])
    assert give_verdicts([lone]) == [WORSE]
    # Cells that could not be, or need not be, tested are no members of the family.
    assert give_verdicts([lone, equal, silent]) == [WORSE, PASS, OPEN]
    assert give_verdicts([lone, with_p(0.04, base)]) == [OPEN, OPEN]
    assert give_verdicts([with_p(0.02, base), with_p(0.04, base)]) == [WORSE, WORSE]
    assert give_verdicts([with_p(0.02, base), lone, judge_margin(A, B)]) == [OPEN, OPEN, PASS]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([PASS, PASS], PASS),
        ([PASS, OPEN], OPEN),
        ([OPEN, WORSE, PASS], WORSE),
        ([], OPEN),
    ],
)
def test_all_cells_together(verdicts: Sequence[Verdict], expected: Verdict) -> None:
    assert sum_up(verdicts) is expected


@given(pairs(), st.integers(1, 63).map(lambda part: part / 64))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_gate_and_relative_interval_agree(pair: tuple[Values, Values], margin: float) -> None:
    compared = contrast(*pair, alpha=2 * ALPHA)
    test = judge_margin(*pair, margin)
    assume(test.p_worse is not None and test.contrast.se > 1e-9)
    assume(compared.relative_low is not None and compared.mean_b > 0)
    assert test.p_worse is not None
    assert compared.relative_low is not None
    assert compared.relative_high is not None
    assume(min(abs(test.p_worse - p) for p in (ALPHA, 1 - ALPHA)) > 1e-6)
    (found,) = give_verdicts([test])
    assert (found is PASS) == (compared.relative_low > -margin)
    assert (found is WORSE) == (compared.relative_high < -margin)


@given(pairs(), st.integers(1, 62).map(lambda part: part / 64))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_wider_margin_never_turns_a_pass_into_worse(
    pair: tuple[Values, Values], margin: float
) -> None:
    if verdict(*pair, margin) is PASS:
        assert verdict(*pair, margin + 1 / 64) is not WORSE


def test_certifiable_margin_has_its_power() -> None:
    """With the margin called certifiable at n seeds, four of five unchanged models pass."""
    generator = np.random.default_rng(20_260_304)
    margins, passed = [], 0
    for _ in range(40):
        base, new = simulate(generator, 1_000, 5, 0.02)
        test = judge_margin(new, base, 0.2)
        margins.append(test.certifiable)
    typical = float(np.median([m for m in margins if m is not None]))
    for _ in range(100):
        base, new = simulate(generator, 1_000, 5, 0.02)
        passed += verdict(new, base, typical) is PASS
    assert 0.68 < passed / 100 < 0.92


def test_seeds_needed_are_those_from_which_the_margin_is_certifiable() -> None:
    generator = np.random.default_rng(20_260_305)
    few, many = simulate(generator, 2_000, 40, 0.15)
    enough = []
    for margin in (0.10, 0.13, 0.14, 0.15, 0.16, 0.2):
        test = judge_margin(few[:8], many[:8], margin)
        assert test.certifiable is not None
        assert test.seeds_needed is not None
        enough.append(test.seeds_needed <= 8)
        assert enough[-1] == (test.certifiable <= margin)
    assert set(enough) == {False, True}
    needed = judge_margin(few[:8], many[:8], 0.1).seeds_needed
    assert needed is not None
    assert 8 < needed < 40
    then = judge_margin(few[:needed], many[:needed], 0.1).certifiable
    assert then == pytest.approx(0.1, rel=0.3)  # mean squares of eight seeds are rough


def test_users_may_be_the_limit() -> None:
    generator = np.random.default_rng(5)
    base = generator.uniform(0, 1, (3, 30)) * 0.01 + generator.uniform(0, 1, (1, 30))
    new = generator.uniform(0, 1, (3, 30)) * 0.01 + generator.uniform(0, 1, (1, 30))
    test = judge_margin(new, base, 0.02)
    assert test.certifiable is not None
    assert test.certifiable > 0.02
    assert test.seeds_needed is None
