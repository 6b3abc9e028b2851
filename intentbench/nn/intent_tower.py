"""The graph's side of IRLLRec: what a node's neighbours say, by shared intents (Eq. 9-12)."""

from typing import Literal

import torch
from torch import Tensor

from intentbench.nn.graph import BipartiteGraph
from intentbench.nn.graph_intents import Prototypes, adaptive_mask

Operand = Literal["layers", "intents"]


def interaction_intents(
    graph: BipartiteGraph, layers: tuple[Tensor, ...], prototypes: Prototypes, operand: Operand
) -> Tensor:
    """The mean over layers of G^(l) E^(l), or of G^(l) q^(l): r (n, D).

    Args:
        graph: all training edges.
        layers: (n, D) each, E^0..E^(L-1); at least one.
        prototypes: of users and items; they make q^(l), which G^(l) compares.
        operand: "layers" E^(l), as in the authors' code, or "intents" q^(l), as Eq. 12 is printed.
    """
    moved = []
    for layer in layers:
        intents = prototypes(layer, graph.n_users)
        sent = layer if operand == "layers" else intents
        moved.append(graph.product(adaptive_mask(graph, intents), sent))
    return torch.stack(moved).mean(0)
