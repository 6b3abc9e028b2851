"""Mean divergence of several predictions of one row, that never keeps the probabilities.

As in `cross_entropy`, the logits of B rows, T predictions and V items are made a chunk of rows at a
time, their gradient is formed in place of them and multiplied out at once.
"""

from collections.abc import Callable  # noqa: TC003  # a block of its own for one name
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from intentbench.nn.cross_entropy import CHUNK_CELLS


def mean_divergence(states: Tensor, table: Tensor, detach: bool = False) -> Tensor:
    """Mean over rows and ordered pairs i ≠ j of KL(p_i || p_j), p_i = softmax(r_i E^T) over items.

    To push predictions apart by it alone has no bound: KL grows with -log p_j wherever p_i has
    mass. With `detach` it still has none in value, but no p_j is moved to raise it.

    Args:
        states: (B, T, D) r, T at least 2.
        table: (V + 1, D) E; row 0 is `PAD`, no candidate.
        detach: keep the gradient from p_j, of states and table.

    Returns:
        A scalar; its gradient reaches states and table (once: no double backward). It is computed
        in the type of the table, also under autocast.
    """
    apply: Callable[..., Tensor] = _MeanDivergence.apply
    with torch.autocast(states.device.type, enabled=False):
        return apply(states.to(table.dtype), table, detach)


class _MeanDivergence(torch.autograd.Function):
    """Forward computes the gradients too: they are linear in the incoming scalar.

    With z_i the logits, l_i = log p_i and a_i = T l_i - Σ_j l_j, the sum over pairs is Σ_i p_i·a_i,
    and its gradient in z_i is p_i (a_i - p_i·a_i) + T p_i - Σ_j p_j; a fixed p_j takes off the end.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, detach: bool) -> Tensor:
        rows, count, _ = states.shape
        items, total = table[1:], states.new_zeros(())
        d_states, d_table = torch.empty_like(states), torch.zeros_like(table)
        step = max(1, CHUNK_CELLS // (count * len(table)))
        for start in range(0, rows, step):
            part = states[start : start + step]
            logs = log_softmax(part @ items.T, 2)
            shares = logs.exp()
            against = logs.mul_(count).sub_(logs.sum(1, keepdim=True) / count)  # already T times l
            divergence = (shares * against).sum(2, keepdim=True)
            total += divergence.sum()
            gradient = against.sub_(divergence if detach else divergence - count).mul_(shares)
            if not detach:
                gradient -= shares.sum(1, keepdim=True)
            torch.matmul(gradient, items, out=d_states[start : start + step])
            d_table[1:].addmm_(gradient.flatten(0, 1).T, part.flatten(0, 1))
        pairs = rows * count * (count - 1)
        ctx.save_for_backward(d_states / pairs, d_table / pairs)
        return total / pairs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_table = ctx.saved_tensors
        return d_states * gradient, d_table * gradient, None
