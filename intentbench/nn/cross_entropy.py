"""Cross-entropy over the whole catalogue that never keeps the logits.

The logits of T targets and V items are made a chunk of rows at a time; their gradient is formed
in place of them and multiplied out at once. Memory is one chunk instead of several T x V.
"""

from collections.abc import Callable  # noqa: TC003  # a block of its own for one name
from typing import Any

import torch
from torch import Tensor

from datamodules.types import PAD

CHUNK_CELLS = 4_000_000
"""Logits of a chunk: 16 MB in float32, so that a chunk stays in the cache of a small machine."""


def chunked_cross_entropy(
    states: Tensor, table: Tensor, targets: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Mean over targets of `-h·e+ + log Σ_{v≥1} exp(h·e_v)`; the `PAD` row is no candidate.

    Args:
        states: (T, D) query vectors h.
        table: (V + 1, D) item vectors e; row 0 is `PAD`.
        targets: (T,) items 1..V.
        bias: (V + 1,) added to the scores, or None.

    Returns:
        A scalar; its gradient reaches states, table and bias (once: no double backward). It is
        computed in the type of the table, also under autocast.
    """
    apply: Callable[..., Tensor] = _ChunkedCrossEntropy.apply
    with torch.autocast(states.device.type, enabled=False):
        return apply(states.to(table.dtype), table, targets, bias)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward computes the gradients too: they are linear in the incoming scalar."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, targets: Tensor, bias: Tensor | None
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        d_states = torch.empty_like(states) if wanted else None
        d_table = torch.zeros_like(table) if wanted else None
        d_bias = torch.zeros_like(bias) if wanted and bias is not None else None
        total = states.new_zeros(())
        rows = max(1, CHUNK_CELLS // len(table))
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            chunk, target = states[part], targets[part, None]
            logits = chunk @ table.T
            if bias is not None:
                logits += bias
            logits[:, PAD] = -torch.inf
            wanted_logits = logits.gather(1, target)
            peak = logits.amax(1, keepdim=True)
            # in place: the logits become their exponentials, then the gradient
            mass = logits.sub_(peak).exp_().sum(1, keepdim=True)
            total += (mass.log_() + peak - wanted_logits).sum()
            if d_states is None or d_table is None:
                continue
            logits.mul_(torch.exp(-mass))
            logits.scatter_add_(1, target, logits.new_full((1, 1), -1.0).expand_as(target))
            torch.mm(logits, table, out=d_states[part])
            d_table.addmm_(logits.T, chunk)
            if d_bias is not None:
                d_bias += logits.sum(0)
        ctx.save_for_backward(d_states, d_table, d_bias)
        return total / len(states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_table, d_bias = ctx.saved_tensors
        scale = gradient / len(d_states)
        return (
            d_states * scale,
            d_table * scale,
            None,
            None if d_bias is None else d_bias * scale,
        )
