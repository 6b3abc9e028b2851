"""The study of the gate's power: planted losses are what they are called, and the rates hold."""

from typing import Any

import numpy as np
import pytest

from intentbench.stats.gate import Verdict
from tests.studies.scripts import load_script

study = load_script("gate_power")


def many_means(spread: float, shift: float = 0.0) -> Any:
    """(S,) mean NDCG@10 of many seeds, a thousand users each."""
    generator = np.random.default_rng(20_260_311)
    means = []
    for _ in range(400):
        difficulty = generator.normal(study.CENTRE, study.DIFFICULTY, 1_000)
        (values,) = study.draw_model(generator, difficulty, 1, spread, [shift])
        means.append(values.mean())
    return np.array(means)


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_expectation_is_the_mean_of_many_draws(spread: float) -> None:
    means = many_means(spread)
    error = means.std() / np.sqrt(len(means))
    assert abs(means.mean() - study.expected_ndcg(0.0, spread)) < 3 * error


def test_planted_loss_is_the_share_that_is_lost() -> None:
    spread = study.spread_of_seeds(0.017)
    shift = study.shift_of_loss(0.3, spread)
    means = many_means(spread, shift)
    error = means.std() / np.sqrt(len(means))
    assert abs(means.mean() - 0.7 * study.expected_ndcg(0.0, spread)) < 3 * error
    assert study.shift_of_loss(0.0, spread) == pytest.approx(0, abs=1e-9)


def test_spread_of_seeds_is_the_share_of_the_mean() -> None:
    spread = study.spread_of_seeds(0.1)
    shifts = np.random.default_rng(1).normal(0, spread, 4_000)
    means = np.array([study.expected_ndcg(shift, 0.0) for shift in shifts])
    assert means.std() / means.mean() == pytest.approx(0.1, rel=0.04)
    assert study.spread_of_seeds(0.0) == 0


@pytest.mark.parametrize(
    ("setup", "share"),
    [(study.Setup(3, 3), 0.05), (study.Setup(1, 3), 0.05)],
    ids=str,
)
def test_a_loss_of_the_margin_seldom_passes(setup: Any, share: float) -> None:
    runs = 200
    counts = study.count_verdicts(setup, runs, 300, share, [0.1], [0.1])[0.1, 0.1]
    assert sum(counts.values()) == runs
    assert counts[Verdict.PASS] / runs <= 0.09
    assert counts[Verdict.WORSE] / runs <= 0.09


def test_verdicts_follow_the_loss() -> None:
    counts = study.count_verdicts(study.Setup(3, 3), 40, 2_000, 0.0, [0.0, 0.5], [0.2])
    assert counts[0.2, 0.0][Verdict.PASS] > 30
    assert counts[0.2, 0.5][Verdict.WORSE] == 40


@pytest.mark.slow
@pytest.mark.parametrize("setup", study.SETUPS, ids=str)
def test_false_passes_of_the_page(setup: Any) -> None:
    for margin in study.MARGINS:
        counts = study.count_verdicts(setup, 1_000, 20_000, 0.017, [margin], [margin])
        assert counts[margin, margin][Verdict.PASS] / 1_000 <= 0.07
