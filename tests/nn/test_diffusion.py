"""Schedules, the forward and the reverse process (must-hold list of InDiRec, 3 to 5)."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from intentbench.nn.diffusion import GaussianDiffusion, Schedule, betas, step_embedding

LAST = [
    # T, exp β_1, exp β_T, ᾱ_T of exp, linear, cosine, sqrt
    (25, 0.011849, 0.334968, 5.258e-3, 0.7765, 3.88e-7, 2.04e-5),
    (50, 0.003972, 0.182889, 5.805e-3, 0.6030, 9.71e-8, 1.01e-5),
    (100, 0.001494, 0.095610, 6.100e-3, 0.3636, 2.43e-8, 5.01e-6),
    (200, 0.000624, 0.048888, 6.253e-3, 0.1322, 6.07e-9, 2.48e-6),
]


@pytest.mark.parametrize(("steps", "first", "last", "exp", "linear", "cosine", "sqrt"), LAST)
def test_schedules_have_the_known_ends(
    steps: int, first: float, last: float, exp: float, linear: float, cosine: float, sqrt: float
) -> None:
    beta = betas("exp", steps)
    assert beta[0].item() == pytest.approx(first, abs=5e-7)
    assert beta[-1].item() == pytest.approx(last, abs=5e-7)
    expected: dict[Schedule, float] = {"exp": exp, "linear": linear, "cosine": cosine, "sqrt": sqrt}
    for schedule, value in expected.items():
        found = float((1 - betas(schedule, steps)).prod())
        assert found == pytest.approx(value, rel=3e-3), schedule
    closed = math.exp(-0.1 - (10 - 0.1) * (steps + 1) / (2 * steps))
    assert float((1 - beta).prod()) == pytest.approx(closed, rel=1e-5)


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("steps", [1, 2, 32, 200, 1000])
def test_every_step_adds_noise(schedule: Schedule, steps: int) -> None:
    beta = betas(schedule, steps)
    assert beta.shape == (steps,)
    assert ((beta > 0) & (beta < 1)).all()
    assert (torch.diff((1 - beta).cumprod(0)) < 0).all()


def test_closed_form_agrees_with_iterated_steps() -> None:
    torch.manual_seed(0)
    diffusion, draws, clean = GaussianDiffusion("exp", 25), 200_000, 1.7
    state = torch.full((draws,), clean)
    for step in range(10):
        beta = diffusion.beta[step]
        state = (1 - beta).sqrt() * state + beta.sqrt() * torch.randn(draws)
    ones = torch.full((draws, 1), clean)
    direct = diffusion.diffuse(ones, torch.full((draws,), 10), torch.randn(draws, 1))[:, 0]
    mean = math.sqrt(diffusion.alpha_bar[9]) * clean
    variance = 1 - float(diffusion.alpha_bar[9])
    for sample in (state, direct):
        assert sample.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / draws))
        error = 4 * variance * math.sqrt(2 / draws)
        assert sample.var().item() == pytest.approx(variance, abs=error)


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_generation_with_a_known_answer_returns_it(schedule: Schedule, steps: int) -> None:
    torch.manual_seed(0)
    clean = torch.randn(4, 6)
    found = GaussianDiffusion(schedule, steps).sample(torch.randn(4, 6), lambda _, __: clean)
    torch.testing.assert_close(found, clean, atol=1e-5, rtol=0)


def test_last_step_is_the_prediction_without_noise() -> None:
    diffusion = GaussianDiffusion("exp", 50)
    beta = betas("exp", 50)[0]
    assert float(beta / (1 - (1 - beta))) == pytest.approx(1, abs=1e-5)  # the weight in the table
    state, clean = torch.randn(2, 3), torch.randn(2, 3)
    assert diffusion.reverse(state, clean, 1, torch.full((2, 3), 1e9)).equal(clean)


def test_posterior_is_that_of_bayes() -> None:
    """q(x_{t-1} | x_t, x_0) by multiplying the two Gaussians it comes from."""
    diffusion = GaussianDiffusion("exp", 25)
    step = 7
    beta = float(diffusion.beta[step - 1])
    before = float(diffusion.alpha_bar[step - 2])
    noisy, clean = torch.tensor([[0.3]]), torch.tensor([[-1.1]])
    # likelihood of x_t: N(√α x, β); prior of x: N(√ᾱ_{t-1} x_0, 1 - ᾱ_{t-1})
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = (
        math.sqrt(1 - beta) / beta * noisy + math.sqrt(before) / (1 - before) * clean
    ) / precision
    zero: Tensor = torch.zeros(1, 1)
    torch.testing.assert_close(diffusion.reverse(noisy, clean, step, zero), mean)
    spread = diffusion.reverse(noisy, clean, step, zero + 1) - mean
    assert float(spread) == pytest.approx(math.sqrt(1 / precision), rel=1e-4)


def test_step_embedding_has_known_values() -> None:
    found = step_embedding(torch.tensor([0, 3]), 6)
    assert found[0].tolist() == [0, 0, 0, 1, 1, 1]
    frequency = [10000 ** (-k / 2) for k in range(3)]
    expected = [math.sin(3 * f) for f in frequency] + [math.cos(3 * f) for f in frequency]
    assert found[1].tolist() == pytest.approx(expected, abs=1e-6)
