"""InfoNCE between two views of the same rows, with negatives from the batch (S3-Rec lineage)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from intentbench.nn.processes import gather


def info_nce(
    first: Tensor,
    second: Tensor,
    temperature: float = 1.0,
    groups: Tensor | None = None,
    cosine: bool = False,
) -> Tensor:
    """Two-sided InfoNCE (NT-Xent) of B pairs.

    The 2B rows stand in one list; row a has its partner as the positive and the other 2B - 2 rows
    as negatives, less those of its own group:

        mean_a -log( e^{s(a, a+)} / (e^{s(a, a+)} + Σ_{b: g_b ≠ g_a} e^{s(a, b)}) )

    with s(a, b) = z_a·z_b / τ. Several processes contrast the rows of all of them.

    Args:
        first: (B, D).
        second: (B, D), row k belongs to row k of `first`.
        temperature: τ.
        groups: (B,) integers: rows of one group are never negatives of each other. Or (B, B)
            bool, symmetric and true on the diagonal: the pairs that are not (of the rows of all
            processes, where there are several). None: every row is a group of its own.
        cosine: divide by the lengths of the vectors.

    Returns:
        A scalar; 0 where no row has a negative.
    """
    first, second = gather(first), gather(second)
    rows = torch.cat([first, second])
    if cosine:
        rows = normalize(rows, dim=1)
    if groups is None:
        groups = torch.arange(len(first), device=first.device)
    elif groups.ndim == 1:
        groups = gather(groups)
    alike = groups if groups.ndim == 2 else groups[:, None] == groups
    similarity = rows @ rows.T / temperature
    positive = similarity.diagonal(len(first)).repeat(2)
    negatives = similarity.masked_fill(alike.repeat(2, 2), -torch.inf)
    return (torch.cat([positive[:, None], negatives], 1).logsumexp(1) - positive).mean()
