"""Intents of the nodes of a graph, and the edges that they explain (DCCF; IRLLRec Eq. 9-12).

P = softmax_K(E C),  q = P Cᵀ                     each side with prototypes of its own
α_ab = (cos(q_a, q_b) + 1) / 2                    how alike the ends of an edge are
G_ab = α_ab / Σ_b' α_ab'                          rows sum to 1, or are 0 where all α are
"""

import torch
from torch import Tensor, nn

from intentbench.nn.graph import BipartiteGraph
from intentbench.nn.node_contrast import unit


class Prototypes(nn.Module):
    """K intents of users and K of items, as columns, Xavier-uniform.

    Args:
        width: D.
        count: K of each side.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.users = nn.Parameter(torch.empty(width, count))
        self.items = nn.Parameter(torch.empty(width, count))
        nn.init.xavier_uniform_(self.users)
        nn.init.xavier_uniform_(self.items)

    def forward(self, vectors: Tensor, n_users: int) -> Tensor:
        """What the prototypes make of each node: q (n, D).

        Args:
            vectors: (n, D), users first.
            n_users: how many rows are users.
        """
        with torch.autocast(vectors.device.type, enabled=False):  # as all that moves along a graph
            users = assign(vectors[:n_users], self.users)
            return torch.cat([users, assign(vectors[n_users:], self.items)])


def shares(vectors: Tensor, prototypes: Tensor) -> Tensor:
    """P (rows, K), no temperature; rows sum to 1.

    Args:
        vectors: (rows, D).
        prototypes: (D, K).
    """
    return (vectors @ prototypes).softmax(1)


def assign(vectors: Tensor, prototypes: Tensor) -> Tensor:
    """The mixture of prototypes (rows, D) of each row; see `shares`."""
    return shares(vectors, prototypes) @ prototypes.T


def likeness(graph: BipartiteGraph, vectors: Tensor) -> Tensor:
    """α (2E,), in 0..1: half of 1 + cosine of the vectors (n, D) at the ends of each edge."""
    return ((graph.inner(unit(vectors)) + 1) / 2).clamp(0, 1)


def adaptive_mask(graph: BipartiteGraph, vectors: Tensor) -> Tensor:
    """G (2E,): each node's edges by how alike their ends are.

    Args:
        graph: of the training pairs.
        vectors: (n, D) what is compared, of any length.
    """
    alike = likeness(graph, vectors)
    sums = graph.receive(alike)
    # chosen before dividing: an infinite inverse, replaced afterwards, has no finite gradient
    possible = sums > 0
    inverse = torch.where(possible, 1 / torch.where(possible, sums, 1), 0)
    return alike * inverse.index_select(0, graph.receiver)
