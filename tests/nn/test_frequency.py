"""Filters along time against a direct Fourier transform, and the encoder around them."""

import cmath
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from intentbench.nn.frequency import (
    FilterLayer,
    FrequencyRescaler,
    LearnableFilter,
    WindowEncoder,
    last_items,
)

WINDOWS = (1, 2, 7, 8)


def _direct(signal: list[float], weights: list[complex]) -> list[float]:
    """The signal with its frequencies weighed, by sums over all of them."""
    n = len(signal)

    def wave(f: int, t: int) -> complex:
        return cmath.exp(2j * math.pi * f * t / n)

    spectrum = [sum(x * wave(-f, t) for t, x in enumerate(signal)) / n**0.5 for f in range(n)]
    weighed = [weight * value for weight, value in zip(weights, spectrum, strict=True)]
    summed = [sum(y * wave(f, t) for f, y in enumerate(weighed)) / n**0.5 for t in range(n)]
    assert max(abs(y.imag) for y in summed) < 1e-9
    return [y.real for y in summed]


def _both_sides(half: list[complex], n: int) -> list[complex]:
    """Weights of all n frequencies from those of 0 … n // 2; the output has to be real."""
    whole = [half[f] if f <= n // 2 else half[n - f].conjugate() for f in range(n)]
    real = {0, n // 2} if n % 2 == 0 else {0}
    return [complex(w.real) if f in real else w for f, w in enumerate(whole)]


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _expected(states: Tensor, weights: Callable[[int], list[complex]]) -> Tensor:
    """Each row and feature filtered on its own; `weights` of a feature."""
    result = torch.empty_like(states)
    for row in range(states.shape[0]):
        for feature in range(states.shape[2]):
            signal = states[row, :, feature].tolist()
            result[row, :, feature] = torch.tensor(_direct(signal, weights(feature)))
    return result


@pytest.mark.parametrize("window", WINDOWS)
def test_learnable_filter_weighs_frequencies(window: int) -> None:
    torch.manual_seed(0)
    mixer = LearnableFilter(window, 3).double()
    nn.init.normal_(mixer.weight)
    states = _random(2, window, 3)

    def weights(feature: int) -> list[complex]:
        half = [complex(*pair) for pair in mixer.weight[:, feature].tolist()]
        return _both_sides(half, window)

    torch.testing.assert_close(mixer(states), _expected(states, weights))


@pytest.mark.parametrize("window", WINDOWS)
def test_learnable_filter_of_ones_is_the_identity(window: int) -> None:
    mixer = LearnableFilter(window, 3).double()
    with torch.no_grad():
        mixer.weight[..., 0], mixer.weight[..., 1] = 1, 0
    states = _random(2, window, 3)
    torch.testing.assert_close(mixer(states), states)
    torch.testing.assert_close(mixer(states, last=True), states[:, -1:])


def _rescaler(window: int, width: int, cutoff: int) -> FrequencyRescaler:
    """In float64, its matrix too: built in that type, but kept in float32."""
    torch.manual_seed(0)
    return FrequencyRescaler(window, width, cutoff).double()


@pytest.mark.parametrize("cutoff", [1, 3, 5, 99])
@pytest.mark.parametrize("window", WINDOWS)
def test_rescaler_keeps_low_frequencies_and_scales_the_others(window: int, cutoff: int) -> None:
    mixer = _rescaler(window, 3, cutoff)
    states = _random(2, window, 3)

    def weights(feature: int) -> list[complex]:
        factor = complex(mixer.root_beta[feature].item() ** 2)
        half = [1 + 0j if f <= cutoff // 2 else factor for f in range(window // 2 + 1)]
        return _both_sides(half, window)

    torch.testing.assert_close(mixer(states), _expected(states, weights), atol=1e-6, rtol=1e-6)


def test_lowest_frequency_is_the_mean_over_time() -> None:
    mixer = _rescaler(8, 3, cutoff=1)
    nn.init.zeros_(mixer.root_beta)
    states = _random(2, 8, 3)
    mean = states.mean(1, keepdim=True).expand_as(states)
    torch.testing.assert_close(mixer(states), mean, atol=1e-6, rtol=1e-6)


def test_beta_of_one_leaves_the_residual_layer_without_a_filter() -> None:
    mixer = _rescaler(8, 4, cutoff=3)
    nn.init.ones_(mixer.root_beta)
    layer = FilterLayer(mixer, 4, dropout=0.5).double()
    states = _random(2, 8, 4)
    torch.manual_seed(2)
    output = layer(states)
    torch.manual_seed(2)
    expected = nn.functional.layer_norm(
        states + nn.functional.dropout(states, 0.5), (4,), eps=1e-12
    )
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("window", WINDOWS)
def test_last_position_alone_is_that_of_all(window: int) -> None:
    states = _random(2, window, 3)
    for mixer in (LearnableFilter(window, 3).double(), _rescaler(window, 3, 3)):
        torch.testing.assert_close(mixer(states, last=True), mixer(states)[:, -1:])
        layer = FilterLayer(mixer, 3, dropout=0.5).double().eval()
        torch.testing.assert_close(layer(states, last=True), layer(states)[:, -1:])


def test_every_position_reads_the_whole_window() -> None:
    """Hence neither filter is causal, and a window of another length gives other outputs."""
    for mixer in (LearnableFilter(7, 1).double(), _rescaler(7, 1, 3)):
        states = _random(1, 7, 1).requires_grad_()
        for position in range(7):
            (gradient,) = torch.autograd.grad(mixer(states)[0, position, 0], states)
            assert (gradient != 0).all()


@pytest.mark.parametrize("window", [1, 3, 6])
def test_last_items_stand_at_the_right_end(window: int) -> None:
    rows = [[4, 2, 7, 1, 9], [5, 6], [3], []]
    items = torch.tensor([row + [0] * (5 - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    expected = [([0] * window + row)[-window:] for row in rows]
    assert last_items(items, lengths, window).tolist() == expected
    assert last_items(items[1:, :2], lengths[1:], window).tolist() == expected[1:]


class _Block(nn.Module):
    """Adds up the window, and notes what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[list[list[bool]], bool]] = []

    def forward(self, states: Tensor, real: Tensor, last: bool) -> Tensor:
        self.asked.append((real.tolist(), last))
        own = states[:, -1:] if last else states
        return own + states.sum(1, keepdim=True)


def test_encoder_asks_the_last_block_for_the_last_position() -> None:
    encoder = WindowEncoder(9, 3, 4, 2, _Block, dropout=0.5).eval()
    items, lengths = torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1])
    states = encoder(items, lengths)
    assert states.shape == (2, 4)
    real = [[True, True, True], [False, False, True]]
    assert [block.asked for block in encoder.blocks] == [[(real, False)], [(real, True)]]
    vectors = encoder.items.weight[torch.tensor([[5, 6, 7], [0, 0, 8]])] + encoder.positions.weight
    first = nn.functional.layer_norm(vectors, (4,), eps=1e-12)
    second = first + first.sum(1, keepdim=True)
    torch.testing.assert_close(states, second[:, -1] + second.sum(1))


def test_encoder_does_not_see_how_wide_the_batch_is() -> None:
    encoder = WindowEncoder(9, 4, 4, 1, _Block, dropout=0.0)
    items, lengths = torch.tensor([[5, 6], [8, 0]]), torch.tensor([2, 1])
    padded = nn.functional.pad(items, (0, 2))
    assert encoder(items, lengths).equal(encoder(padded, lengths))
