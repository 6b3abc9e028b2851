"""What pulls the texts of nodes and their embeddings together, at the price of the nodes met."""

from collections.abc import Callable
from typing import Any

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from intentbench.nn.node_contrast import chunk_rows, unit


def project(tower: Callable[[Tensor], Tensor], texts: Tensor, nodes: Tensor) -> Tensor:
    """Texts of some nodes through a tower, each once: (n, D), 0 at all other nodes.

    Args:
        tower: (…, d_t) to (…, D).
        texts: (n, d_t) frozen features.
        nodes: (k,) whose texts are wanted; they may repeat.
    """
    nodes = torch.unique(nodes)
    projected = tower(texts[nodes])
    return projected.new_zeros(len(texts), projected.shape[1]).index_copy(0, nodes, projected)


def nce_of_batch(
    vectors: Tensor, table: Tensor, nodes: Tensor, temperature: float, mask_same: bool = True
) -> Tensor:
    """InfoNCE of drawn nodes against the rows of all nodes drawn with them.

    The same as `nce_in_batch(vectors[nodes], table[nodes], temperature, nodes)` (without the last
    where `mask_same` is false), but that a node drawn several times is computed once.

    Args:
        vectors: (n, D) of all nodes.
        table: (n, D) the candidates, of the same nodes.
        nodes: (B,) rows of both; they may repeat.
        temperature: τ.
        mask_same: whether another draw of the same node is no candidate; in the reference code of
            RLMRec and IRLLRec it is one.

    Returns:
        A scalar; its gradient reaches both (once: no double backward).
    """
    nodes, counts = torch.unique(nodes, return_counts=True)
    anchors, candidates = (unit(rows.index_select(0, nodes)) for rows in (vectors, table))
    apply: Callable[..., Tensor] = _OfBatch.apply
    with torch.autocast(candidates.device.type, enabled=False):
        return apply(anchors / temperature, candidates, counts.to(candidates.dtype), mask_same)


class _OfBatch(torch.autograd.Function):
    """Σ_n w_n (log Σ_c k_nc exp(a_n·t_c) - a_n·t_n), w the share of the draws that are n.

    A candidate is there k times: as often as drawn, or once where it is masked. Forward computes
    the gradients too, a chunk of rows at a time: the similarities are never kept.
    """

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, table: Tensor, counts: Tensor, mask_same: bool
    ) -> Tensor:
        d_anchors, d_table = torch.empty_like(anchors), torch.zeros_like(table)
        weights, total = counts[:, None] / counts.sum(), anchors.new_zeros(())
        rows = chunk_rows(anchors, len(table))
        for start in range(0, len(anchors), rows):
            part = slice(start, start + rows)
            chunk, weight = anchors[part], weights[part]
            # in place: similarities become their exponentials, then the gradient
            cells = chunk @ table.T
            own = cells[:, part].diagonal()  # a view
            positive, peak = own[:, None].clone(), cells.amax(1, keepdim=True)
            cells.sub_(peak).exp_()
            once = own.clone()
            cells.mul_(counts)
            if mask_same:
                own.copy_(once)
            mass = cells.sum(1, keepdim=True)
            total += (weight * (mass.log() + (peak - positive))).sum()
            cells.mul_(weight / mass)
            torch.mm(cells, table, out=d_anchors[part])
            d_table.addmm_(cells.T, chunk)
        d_anchors.addcmul_(weights, table, value=-1)
        d_table.addcmul_(weights, anchors, value=-1)
        ctx.save_for_backward(d_anchors, d_table)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_anchors, d_table = ctx.saved_tensors
        return d_anchors * gradient, d_table * gradient, None, None


def principal_components(texts: Tensor, width: int) -> Tensor:
    """Features (n, width) of texts (n, d_t) along the directions in which these vary most."""
    found = PCA(width, svd_solver="covariance_eigh").fit_transform(texts.double().cpu().numpy())
    return torch.from_numpy(found).to(texts)
