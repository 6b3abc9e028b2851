"""One-directional InfoNCE between the nodes of a graph (RLMRec, SSLRec, IRLLRec Eq. 13).

    NCE_τ(a, b; C) = mean_n -s(a_n, b_n)/τ + log Σ_{c in C} exp(s(a_n, c)/τ)

with the cosine s(a, b) = a·b / (√(|a|² + 1e-8) √(|b|² + 1e-8)). Gradients reach both sides.
"""

from collections.abc import Callable  # noqa: TC003  # a block of its own for one name
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-8
"""Under both roots, as in the reference code: a vector of zeros has the direction 0."""

CHUNK_CELLS = {"cpu": 1_000_000, "cuda": 64_000_000}
"""Similarities that are held at once: 4 MB in float32 stay in a CPU's cache; a GPU wants few, large
kernels."""


def chunk_rows(vectors: Tensor, width: int) -> int:
    """Rows of similarities to `width` candidates that are held at once where the vectors are."""
    return max(1, CHUNK_CELLS["cpu" if vectors.device.type == "cpu" else "cuda"] // width)


def unit(vectors: Tensor) -> Tensor:
    """Rows of any (…, D) at length 1: x / √(|x|² + ε)."""
    return vectors * (vectors.square().sum(-1, keepdim=True) + EPSILON).rsqrt()


def nce_against_all(
    anchors: Tensor,
    table: Tensor,
    own: Tensor,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """InfoNCE against every row of a table, one of which is the positive.

    The B x C similarities are never kept.

    Args:
        anchors: (B, D).
        table: (C, D) the candidates.
        own: (B,) row of the table that is each anchor's positive.
        temperature: τ.
        weights: (B,) how much each anchor counts in the mean; None: alike.

    Returns:
        A scalar; its gradient reaches anchors and table (once: no double backward).
    """
    counts = table.new_ones(len(own)) if weights is None else weights.to(table.dtype)
    apply: Callable[..., Tensor] = _AgainstAll.apply
    with torch.autocast(table.device.type, enabled=False):
        queries = unit(anchors.to(table.dtype)) / temperature
        return apply(queries, unit(table), own, counts / counts.sum())


def nce_of_nodes(vectors: Tensor, table: Tensor, nodes: Tensor, temperature: float) -> Tensor:
    """InfoNCE of drawn nodes, each against every row of a table: its own row is the positive.

    The same as `nce_against_all(vectors[nodes], table, nodes, temperature)`, but that a node drawn
    several times is computed once.

    Args:
        vectors: (C, D) of all nodes of a side.
        table: (C, D) the candidates, of the same nodes.
        nodes: (B,) rows of both; they may repeat.
        temperature: τ.
    """
    drawn, counts = torch.unique(nodes, return_counts=True)
    return nce_against_all(vectors.index_select(0, drawn), table, drawn, temperature, counts)


def nce_in_batch(
    anchors: Tensor, partners: Tensor, temperature: float, nodes: Tensor | None = None
) -> Tensor:
    """InfoNCE against the partners of the whole batch.

    Args:
        anchors: (B, D).
        partners: (B, D), row n is the positive of anchor n.
        temperature: τ.
        nodes: (B,) whose rows these are: another row of the same node is no candidate. None:
            duplicates are negatives of one another, as in the reference code.

    Returns:
        A scalar.
    """
    similarity = unit(anchors) @ unit(partners).T / temperature
    positive = similarity.diagonal()
    if nodes is not None:
        same = nodes[:, None] == nodes
        same.fill_diagonal_(False)
        similarity = similarity.masked_fill(same, -torch.inf)
    return (similarity.logsumexp(1) - positive).mean()


class _AgainstAll(torch.autograd.Function):
    """Σ_n w_n (log Σ_c exp(a_n·t_c) - a_n·t_own(n)); forward computes the gradients too."""

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, table: Tensor, own: Tensor, weights: Tensor) -> Tensor:
        d_anchors, d_table = torch.empty_like(anchors), torch.zeros_like(table)
        positives = table[own]
        total: Tensor = -(weights * torch.linalg.vecdot(anchors, positives)).sum()
        rows = chunk_rows(anchors, len(table))
        for start in range(0, len(anchors), rows):
            part = slice(start, start + rows)
            chunk, weight = anchors[part], weights[part, None]
            # in place: similarities become their exponentials, then the gradient
            cells = chunk @ table.T
            peak = cells.amax(1, keepdim=True)
            mass = cells.sub_(peak).exp_().sum(1, keepdim=True)
            total += (weight * (mass.log() + peak)).sum()
            cells.mul_(weight / mass)
            torch.mm(cells, table, out=d_anchors[part])
            d_table.addmm_(cells.T, chunk)
        d_anchors.addcmul_(weights[:, None], positives, value=-1)
        d_table.index_add_(0, own, weights[:, None] * anchors, alpha=-1)
        ctx.save_for_backward(d_anchors, d_table)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_anchors, d_table = ctx.saved_tensors
        return d_anchors * gradient, d_table * gradient, None, None
