"""The denoiser and its guided diffusion (must-hold list of InDiRec, 5 to 7 and 10)."""

import math

import pytest
import torch
from torch import Tensor, nn

from intentbench.nn.denoiser import DenoiserName, GuidedDiffusion

D = 6


def diffusion(
    kind: DenoiserName = "mlp1", steps: int = 5, guidance: float = 2.0, dropped: float = 0.1
) -> GuidedDiffusion:
    torch.manual_seed(0)
    return GuidedDiffusion(D, kind, "exp", steps, guidance, dropped).double()


def vectors(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def sampled(model: GuidedDiffusion, signal: Tensor) -> Tensor:
    torch.manual_seed(1)
    return model.generate(signal)


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("guidance", [-1.0, 0.0, 2.0])
def test_one_affine_call_a_step_equals_two_calls(steps: int, guidance: float) -> None:
    model, signal = diffusion(steps=steps, guidance=guidance), vectors(3, D)
    torch.manual_seed(1)
    start = torch.randn_like(signal)
    with torch.no_grad():
        slow = model.process.sample(start, lambda noisy, step: model.guided(noisy, signal, step))
    torch.testing.assert_close(sampled(model, signal), slow, atol=1e-10, rtol=0)


def test_guidance_of_a_linear_denoiser_is_a_shifted_signal() -> None:
    model, noisy, signal = diffusion(guidance=3.0), vectors(4, D), vectors(4, D)
    shifted = signal + 3.0 * (signal - model.denoiser.nothing)
    one_call = model.denoiser(noisy, shifted, torch.full((4,), 2))
    torch.testing.assert_close(model.guided(noisy, signal, 2), one_call)


@pytest.mark.parametrize("kind", ["mlp1", "mlp2"])
def test_guidance_minus_one_ignores_the_signal_and_zero_is_conditional(kind: DenoiserName) -> None:
    model, signal, other = diffusion(kind, guidance=-1.0), vectors(3, D), vectors(3, D)
    torch.testing.assert_close(sampled(model, signal), sampled(model, other), atol=1e-12, rtol=0)
    model.guidance = 0.0
    torch.manual_seed(1)
    start = torch.randn_like(signal)
    with torch.no_grad():
        conditional = model.process.sample(
            start, lambda noisy, step: model.denoiser(noisy, signal, torch.full((3,), step))
        )
    torch.testing.assert_close(sampled(model, signal), conditional, atol=1e-12, rtol=0)
    assert not sampled(model, signal).allclose(sampled(model, other))


@pytest.mark.parametrize("kind", ["mlp1", "mlp2"])
@pytest.mark.parametrize("steps", [1, 25])
@pytest.mark.parametrize("guidance", [-1.0, 2.0])
def test_a_denoiser_that_knows_the_answer_generates_it(
    kind: DenoiserName, steps: int, guidance: float
) -> None:
    model, answer = diffusion(kind, steps, guidance), vectors(D)
    last = [part for part in model.denoiser.network.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(answer)
    found = sampled(model, vectors(3, D))
    torch.testing.assert_close(found, answer.expand(3, D), atol=1e-5, rtol=0)


def test_generation_keeps_no_graph_and_last_step_is_the_guided_prediction() -> None:
    model, signal = diffusion(steps=1), vectors(3, D).requires_grad_()
    found = sampled(model, signal)
    assert not found.requires_grad
    torch.manual_seed(1)
    start = torch.randn(3, D, dtype=torch.float64)
    torch.testing.assert_close(found, model.guided(start, signal, 1).detach())


def test_loss_has_one_step_and_one_signal_a_sequence() -> None:
    model, clean, signal = diffusion(dropped=0.5), vectors(5, D), vectors(3, D)
    rows = torch.tensor([0, 0, 1, 2, 2])
    torch.manual_seed(2)
    found = model.loss(clean, signal, rows)
    torch.manual_seed(2)
    hidden = (torch.rand(3) < 0.5).tolist()
    steps = torch.randint(1, 6, (3,)).tolist()
    noise = torch.randn(5, D, dtype=torch.float64)
    assert len(set(hidden)) == 2
    total = 0.0
    for k, row in enumerate(rows.tolist()):
        kept = math.prod(1 - float(beta) for beta in model.process.beta[: steps[row]])
        noisy = math.sqrt(kept) * clean[k] + math.sqrt(1 - kept) * noise[k]
        given = model.denoiser.nothing if hidden[row] else signal[row]
        step = torch.tensor([steps[row]])
        predicted = model.denoiser(noisy[None], given[None], step)
        total += float((clean[k] - predicted[0]).square().sum().detach())
    assert found.item() == pytest.approx(total / (5 * D), rel=1e-6)


@pytest.mark.parametrize("dropped", [0.0, 1.0])
def test_hidden_signals_take_no_gradient_and_shown_ones_leave_nothing_alone(dropped: float) -> None:
    model, signal = diffusion(dropped=dropped), vectors(8, D).requires_grad_()
    model.loss(vectors(8, D), signal, torch.arange(8)).backward()  # type: ignore[no-untyped-call]
    assert signal.grad is not None
    assert model.denoiser.nothing.grad is not None
    assert bool(signal.grad.any()) == (dropped == 0)
    assert bool(model.denoiser.nothing.grad.any()) == (dropped == 1)


def test_signals_are_dropped_whole_and_as_often_as_asked() -> None:
    model, signal = diffusion(dropped=0.3), vectors(20_000, D)
    found = model.drop(signal, torch.rand(20_000))
    hidden = (found == model.denoiser.nothing).all(1)
    assert (found[~hidden] == signal[~hidden]).all()
    assert int(hidden.sum()) == pytest.approx(6000, abs=4 * math.sqrt(20_000 * 0.3 * 0.7))


def test_it_has_the_parameters_of_the_official_code() -> None:
    """70,272 there, less 41,280 of two layers that are never called."""
    model = GuidedDiffusion(64, "mlp1", "exp", 50, 2.0, 0.1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 70_272 - 41_280
