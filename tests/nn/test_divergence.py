"""The mean divergence against autograd on its equation."""

import pytest
import torch

from intentbench.nn import divergence
from intentbench.nn.divergence import mean_divergence


def test_divergence_of_a_distribution_with_itself_is_zero() -> None:
    torch.manual_seed(0)
    table, one = torch.randn(8, 4), 3 * torch.randn(5, 1, 4)
    for detach in (False, True):
        same = one.expand(-1, 3, -1).clone().requires_grad_()
        value = mean_divergence(same, table, detach)
        assert float(value.detach()) == pytest.approx(0, abs=1e-6)
        gradient = torch.autograd.grad(value, same)[0]
        torch.testing.assert_close(gradient, torch.zeros(5, 3, 4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("cells", [4_000_000, 50])  # one chunk, and a row a chunk
def test_divergence_and_its_gradient_are_those_of_its_equation(
    detach: bool, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(divergence, "CHUNK_CELLS", cells)
    states = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    table = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    shares = [(states[:, i] @ table[1:].T).softmax(1) for i in range(4)]
    pairs = []
    for i, p in enumerate(shares):
        for j, other in enumerate(shares):
            q = other.detach() if detach else other
            if i != j:
                pairs.append((p * (p.log() - q.log())).sum(1).mean())
    expected = torch.stack(pairs).mean()
    found = mean_divergence(states, table, detach)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(3 * expected, [states, table])
    for ours, theirs in zip(torch.autograd.grad(3 * found, [states, table]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
