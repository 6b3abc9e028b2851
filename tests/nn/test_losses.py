"""Sampled losses against the equations, term by term."""

import math

import pytest
import torch
from torch import Tensor

from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.losses import (
    binary_cross_entropy,
    generalised_bce,
    positive_and_negative_scores,
    sampled_softmax,
)


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(11, generator=generator, dtype=torch.float64),
        torch.randn(11, 4, generator=generator, dtype=torch.float64),
    )


def test_binary_cross_entropy_is_the_plain_sum_of_logs(scores: tuple[Tensor, Tensor]) -> None:
    positive, negative = scores
    total = 0.0
    for s, others in zip(positive.tolist(), negative.tolist(), strict=True):
        total -= math.log(1 / (1 + math.exp(-s)))
        total -= sum(math.log(1 - 1 / (1 + math.exp(-x))) for x in others)
    assert float(binary_cross_entropy(positive, negative)) == pytest.approx(total / 11, abs=1e-12)


def test_generalised_bce_with_zero_calibration_is_bce_over_its_terms(
    scores: tuple[Tensor, Tensor],
) -> None:
    positive, negative = scores
    gbce = generalised_bce(positive, negative, n_items=100, calibration=0.0)
    torch.testing.assert_close(gbce, binary_cross_entropy(positive, negative) / 5)


def test_generalised_bce_follows_its_equation(scores: tuple[Tensor, Tensor]) -> None:
    positive, negative = scores
    rate, t = 4 / 99, 0.75
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)
    terms = [
        beta * math.log(1 / (1 + math.exp(-s)))
        + sum(math.log(1 - 1 / (1 + math.exp(-x))) for x in others)
        for s, others in zip(positive.tolist(), negative.tolist(), strict=True)
    ]
    expected = -sum(terms) / len(terms) / 5
    assert float(generalised_bce(positive, negative, 100, t)) == pytest.approx(expected, abs=1e-12)


def test_generalised_bce_weighs_the_positive_less_as_calibration_grows(
    scores: tuple[Tensor, Tensor],
) -> None:
    losses = [float(generalised_bce(*scores, 100, t)) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert losses == sorted(losses, reverse=True)


def test_generalised_bce_in_float32_agrees_with_float64(scores: tuple[Tensor, Tensor]) -> None:
    positive, negative = scores[0] * 20, scores[1] * 20
    single = generalised_bce(positive.float(), negative.float(), 100, 0.75)
    assert float(single) == pytest.approx(
        float(generalised_bce(positive, negative, 100, 0.75)), abs=1e-5
    )


def test_sampled_softmax_over_all_items_equals_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(5)
    states = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    table = torch.randn(31, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(1, 31, (9,), generator=generator)
    everything = torch.arange(1, 31).expand(9, 30)
    positive, negative = positive_and_negative_scores(states, table, labels, everything)
    sampled = sampled_softmax(positive, negative, everything == labels[:, None])
    torch.testing.assert_close(sampled, chunked_cross_entropy(states, table, labels))


def test_scores_are_dot_products() -> None:
    generator = torch.Generator().manual_seed(6)
    states = torch.randn(3, 4, generator=generator)
    table = torch.randn(8, 4, generator=generator)
    labels, negatives = torch.tensor([1, 2, 3]), torch.tensor([[4, 5], [6, 7], [1, 1]])
    positive, negative = positive_and_negative_scores(states, table, labels, negatives)
    for row in range(3):
        wanted = float(states[row] @ table[labels[row]])
        assert float(positive[row]) == pytest.approx(wanted, abs=1e-5)
        for column in range(2):
            expected = float(states[row] @ table[negatives[row, column]])
            assert float(negative[row, column]) == pytest.approx(expected, abs=1e-5)
