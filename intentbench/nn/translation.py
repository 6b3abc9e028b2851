"""Two towers that speak of the same nodes, matched in both directions (IRLLRec Eq. 14, 15, 17).

Row n of one and row n of the other are a pair. With cosines s, S = s(r, z)/τ and the softmax over
its rows (i2t: which text belongs to this interaction intent) and over its columns (t2i):

    L_tran = mean_n -log softmax_row(S)_nn + mean_n -log softmax_column(S)_nn
    L_KL   = mean_n KL(q_n^i2t ‖ p_n^i2t) + mean_n KL(q_n^t2i ‖ p_n^t2i)     q: the teacher's, fixed

Similarities are never kept: each chunk of rows is made twice, for its sums and with them. Their
exponentials are of S - 1/τ, for rows and columns at once; none vanishes from `LOWEST` on.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from intentbench.nn.node_contrast import chunk_rows, unit

LOWEST = 0.025
"""Least τ: exp(-2/τ) is still a normal number in float32."""

Pair = tuple[Tensor, Tensor]
"""Vectors (n, D) of the same n nodes, one a tower."""


def perturb(vectors: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Add c ε ⊙ x, ε ~ N(0, I): noise as large as the signal, coordinate by coordinate (Eq. 14).

    Args:
        vectors: (n, D).
        scale: c, 1 in the paper.
        generator: on the CPU, so that all devices get the same noise.
    """
    noise = torch.randn(vectors.shape, generator=generator).to(vectors)
    return vectors + scale * noise * vectors


def translation_loss(pair: Pair, temperature: float) -> Tensor:
    """L_tran, a scalar; gradients reach both (once: no double backward).

    Args:
        pair: n nodes.
        temperature: τ, at least `LOWEST`; the paper's η is 1/τ.
    """
    with torch.autocast(pair[0].device.type, enabled=False):
        first, second = _scaled(pair, temperature)
        positives = (first * second).sum(-1).mean()
        return _log_masses(first, second, 1 / temperature) - 2 * positives


def matching_loss(student: Pair, teacher: Pair, temperature: float) -> Tensor:
    """L_KL, a scalar; gradients reach the student alone (once: no double backward).

    Args:
        student: n nodes.
        teacher: the same nodes.
        temperature: τ, at least `LOWEST`.
    """
    expected: Callable[..., Tensor] = _Expected.apply
    with torch.autocast(student[0].device.type, enabled=False):
        peak, vectors = 1 / temperature, _scaled(student, temperature)
        taught = (rows.detach() for rows in _scaled(teacher, temperature))
        return _log_masses(*vectors, peak) - expected(*vectors, *taught, peak)


def _scaled(pair: Pair, temperature: float) -> Pair:
    """Whose dot products are S."""
    return unit(pair[0]) / temperature, unit(pair[1])


def _log_masses(first: Tensor, second: Tensor, peak: float) -> Tensor:
    apply: Callable[..., Tensor] = _LogMasses.apply
    return apply(first, second, peak)


class _LogMasses(torch.autograd.Function):
    """Means of log Σ_j exp(S_ij) over rows i, and of log Σ_i exp(S_ij) over columns j, added."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, peak: float) -> Tensor:
        rows, columns = _masses(first, second, peak)
        d_first, d_second = torch.empty_like(first), torch.zeros_like(second)
        for part, cells in _chunks(first, second, peak):
            _weigh(cells, rows[part], columns)
            torch.mm(cells, second, out=d_first[part])
            d_second.addmm_(cells.T, first[part])
        ctx.save_for_backward(d_first, d_second)
        return rows.log().mean() + columns.log().mean() + 2 * peak

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_first, d_second = ctx.saved_tensors
        return d_first * gradient, d_second * gradient, None


class _Expected(torch.autograd.Function):
    """Σ_ij w_ij (S_ij - T_ij) + log masses of T, w the teacher's softmax of T, both ways.

    What this is less than the log masses of S is the divergence.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, taught: Tensor, taught_by: Tensor, peak: float
    ) -> Tensor:
        rows, columns = _masses(taught, taught_by, peak)
        d_first, d_second = torch.empty_like(first), torch.zeros_like(second)
        total = rows.log().mean() + columns.log().mean() + 2 * peak
        width, sent = first.shape[1], torch.cat([second, taught_by], 1)
        for part, cells in _chunks(taught, taught_by, peak):
            _weigh(cells, rows[part], columns)
            received = cells @ sent
            d_first[part] = received[:, :width]
            d_second.addmm_(cells.T, first[part])
            total += (first[part] * d_first[part] - taught[part] * received[:, width:]).sum()
        ctx.save_for_backward(d_first, d_second)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_first, d_second = ctx.saved_tensors
        return d_first * gradient, d_second * gradient, None, None, None


def _chunks(first: Tensor, second: Tensor, peak: float) -> Iterator[tuple[slice, Tensor]]:
    """Rows, and exp(S - peak) of them (rows, n)."""
    rows, shift = chunk_rows(first, len(second)), first.new_full((), -peak)
    for start in range(0, len(first), rows):
        part = slice(start, start + rows)
        yield part, torch.addmm(shift, first[part], second.T).exp_()


def _masses(first: Tensor, second: Tensor, peak: float) -> tuple[Tensor, Tensor]:
    """Sums of exp(S - peak) over each row (n,), and over each column (n,)."""
    rows, columns = first.new_empty(len(first)), first.new_zeros(len(second))
    for part, cells in _chunks(first, second, peak):
        torch.sum(cells, 1, out=rows[part])
        columns += cells.sum(0)
    return rows, columns


def _weigh(cells: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Make exponentials their shares of rows and columns, added, as means over n of each."""
    cells.mul_((1 / rows[:, None]).add(1 / columns).div_(len(columns)))
