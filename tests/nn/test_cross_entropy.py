"""The chunked cross-entropy against torch's own on kept logits."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from intentbench.nn import cross_entropy as module
from intentbench.nn.cross_entropy import chunked_cross_entropy


def _case(targets: int = 37, items: int = 50) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(targets, 8, generator=generator, dtype=torch.float64)
    table = torch.randn(items + 1, 8, generator=generator, dtype=torch.float64)
    bias = torch.randn(items + 1, generator=generator, dtype=torch.float64)
    wanted = torch.randint(1, items + 1, (targets,), generator=generator)
    return states.requires_grad_(), table.requires_grad_(), bias.requires_grad_(), wanted


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("cells", [1, 200, 10**9])
def test_value_and_gradients_equal_those_of_kept_logits(
    cells: int, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_CELLS", cells)
    states, table, bias, wanted = _case()
    inputs = [states, table, bias] if with_bias else [states, table]
    ours = chunked_cross_entropy(states, table, wanted, bias if with_bias else None)
    logits = states @ table[1:].T + (bias[1:] if with_bias else 0.0)
    reference = cross_entropy(logits, wanted - 1)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(3.0 * ours, inputs),
        torch.autograd.grad(3.0 * reference, inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_padding_row_takes_no_gradient() -> None:
    states, table, _, wanted = _case()
    chunked_cross_entropy(states, table, wanted).backward()  # type: ignore[no-untyped-call]
    assert table.grad is not None
    assert not table.grad[0].any()
    assert table.grad[1:].any(1).all()


def test_two_items_equal_the_logistic_loss_of_their_difference() -> None:
    states, table, _, wanted = _case(items=2)
    difference = states @ (table[1] - table[2])
    logistic = binary_cross_entropy_with_logits(difference, (wanted == 1).double())
    torch.testing.assert_close(
        chunked_cross_entropy(states, table, wanted), logistic, rtol=0, atol=1e-12
    )


def test_extreme_logits_stay_finite() -> None:
    states, table, _, wanted = _case()
    loss = chunked_cross_entropy(states.float() * 1e4, table.float(), wanted)
    assert torch.isfinite(loss)


def test_no_gradient_is_computed_when_none_is_wanted() -> None:
    states, table, _, wanted = _case()
    with torch.no_grad():
        loss = chunked_cross_entropy(states, table, wanted)
    assert not loss.requires_grad
    reference = cross_entropy(states @ table[1:].T, wanted - 1)
    torch.testing.assert_close(loss, reference.detach(), rtol=0, atol=1e-12)


def test_mixed_precision_gives_the_loss_in_full_precision() -> None:
    states, table, _, wanted = _case()
    single, rough = table.detach().float().requires_grad_(), states.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = chunked_cross_entropy(rough, single, wanted)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    expected = chunked_cross_entropy(rough.float(), single.detach(), wanted)
    torch.testing.assert_close(loss.detach(), expected)
