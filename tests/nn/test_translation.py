"""Translation and matching, against losses of whole matrices by PyTorch's own functions."""

from math import exp, log

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from intentbench.nn.node_contrast import EPSILON
from intentbench.nn.translation import (
    LOWEST,
    Pair,
    matching_loss,
    perturb,
    translation_loss,
)


def _pair(n: int = 9) -> Pair:
    return torch.randn(n, 5, dtype=torch.float64), torch.randn(n, 5, dtype=torch.float64)


def _similarities(pair: Pair, temperature: float) -> Tensor:
    lengths = [(vectors.square().sum(1) + EPSILON).sqrt() for vectors in pair]
    return pair[0] @ pair[1].T / (lengths[0][:, None] * lengths[1]) / temperature


def _full_translation(pair: Pair, temperature: float) -> Tensor:
    found, own = _similarities(pair, temperature), torch.arange(len(pair[0]))
    return cross_entropy(found, own) + cross_entropy(found.T, own)


def _full_matching(student: Pair, teacher: Pair, temperature: float) -> list[Tensor]:
    """KL of the interaction's softmax over texts, and of the text's over interactions."""
    found = [_similarities(pair, temperature) for pair in (student, teacher)]
    return [
        kl_div(s.log_softmax(1), t.log_softmax(1), log_target=True, reduction="batchmean")
        for s, t in (found, [matrix.T for matrix in found])
    ]


@pytest.fixture(params=[1, 20, 1_000_000], autouse=True)
def _chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one row, of two, and of all."""
    monkeypatch.setattr("intentbench.nn.node_contrast.CHUNK_CELLS", {"cpu": request.param})


@pytest.mark.parametrize("temperature", [LOWEST, 0.2, 1.0])
def test_translation_is_the_cross_entropy_of_both_directions(temperature: float) -> None:
    pair = _pair()
    for vectors in pair:
        vectors.requires_grad_()
    found = translation_loss(pair, temperature)
    expected = _full_translation(pair, temperature)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(3 * loss, pair) for loss in (found, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("temperature", [LOWEST, 0.2, 1.0])
def test_matching_is_the_divergence_of_both_directions(temperature: float) -> None:
    student, teacher = _pair(), _pair()
    for vectors in student:
        vectors.requires_grad_()
    found = matching_loss(student, teacher, temperature)
    parts = _full_matching(student, teacher, temperature)
    assert min(parts) >= 0
    torch.testing.assert_close(found, parts[0] + parts[1])
    gradients = (torch.autograd.grad(loss, student) for loss in (found, parts[0] + parts[1]))
    torch.testing.assert_close(*gradients)


def test_matching_is_zero_where_both_agree() -> None:
    pair = _pair()
    assert matching_loss(pair, pair, 0.2).item() == pytest.approx(0, abs=1e-14)
    longer = 3 * pair[0], 7 * pair[1]
    torch.testing.assert_close(matching_loss(longer, pair, 0.2).item(), 0.0, atol=1e-8, rtol=0)


def test_teacher_gets_no_gradient() -> None:
    student, teacher = _pair(), _pair()
    for vectors in (*student, *teacher):
        vectors.requires_grad_()
    matching_loss(student, teacher, 0.2).backward()  # type: ignore[no-untyped-call]  # in torch
    assert all(vectors.grad is not None and vectors.grad.any() for vectors in student)
    assert all(vectors.grad is None for vectors in teacher)


def test_closed_forms() -> None:
    rows = torch.eye(6, dtype=torch.float64)
    one_way = log(1 + 5 * exp(-1 / 0.2))
    assert translation_loss((rows, rows), 0.2).item() == pytest.approx(2 * one_way, abs=1e-7)
    same = torch.ones(6, 4, dtype=torch.float64)
    assert translation_loss((rows[:, :4] + 1, same), 0.2).item() >= log(6)
    assert translation_loss((same, same), 0.2).item() == pytest.approx(2 * log(6), abs=1e-7)


def test_lowest_temperature_keeps_single_precision_finite() -> None:
    apart = torch.eye(8)
    for pair in ((apart, -apart), (apart, apart)):
        for vectors in pair:
            vectors.requires_grad_()
        loss = translation_loss(pair, LOWEST) + matching_loss(pair, (apart, apart), LOWEST)
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, pair))


def test_towers_may_change_places() -> None:
    pair, teacher = _pair(), _pair()
    torch.testing.assert_close(translation_loss(pair, 0.2), translation_loss(pair[::-1], 0.2))
    torch.testing.assert_close(
        matching_loss(pair, teacher, 0.2), matching_loss(pair[::-1], teacher[::-1], 0.2)
    )


def test_lengths_of_vectors_do_not_matter() -> None:
    first, second = _pair()
    longer = first * torch.linspace(0.5, 9, len(first))[:, None], 4 * second
    found = translation_loss(longer, 0.2)
    torch.testing.assert_close(found, translation_loss((first, second), 0.2), atol=1e-5, rtol=0)


def test_noise_is_as_large_as_the_signal() -> None:
    vectors = torch.tensor([[1.0, -2.0, 0.0, 0.5]])
    generator = torch.Generator().manual_seed(0)
    drawn = perturb(vectors.expand(40_000, -1), 1.0, generator)
    torch.testing.assert_close(drawn.mean(0), vectors[0], atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(0), vectors[0].square(), atol=0.1, rtol=0)
    assert not drawn[:, 2].any()


def test_noise_comes_from_its_generator_alone_and_none_changes_nothing() -> None:
    vectors = torch.randn(5, 3)
    state = torch.get_rng_state()
    drawn = [perturb(vectors, 1.0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.get_rng_state().equal(state)
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
    assert perturb(vectors, 0.0, torch.Generator()).equal(vectors)
