"""DCCF: intents that all users share, and edges weighed by how alike their ends are.

Ren et al., SIGIR 2023. With the masks G of `intentbench.nn.graph_intents`, for l = 0..L-1:

    Z = Â H^(l),   Q = softmax_K(H^(l) C) Cᵀ,   Y = G(Z) H^(l),   X = G(Q) H^(l)
    H^(l+1) = Z + Q + Y + X + H^(l),   e = Σ_{l=0}^{L} H^(l),   H^(0) = E^(0)
    L = L_BPR(e) + λ_cl Σ_l Σ_{W in Q, Y, X} [NCE_τ(Z_u, W_u) + NCE_τ(Z_i, W_i)] + λ_Θ Σ_W ‖W‖²

NCE is among the batch's distinct users, and among its distinct positive items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.errors import RequestError
from intentbench.models.card import Card, Published
from intentbench.models.graph import GraphRecommender, Triples, Views
from intentbench.nn.graph_intents import Prototypes, adaptive_mask
from intentbench.nn.node_contrast import nce_against_all
from intentbench.nn.processes import gather_fields

_IRLLREC = "IRLLRec, table 2 (SIGIR 2025), row DCCF; training items masked"


def _published(dataset: str, recall: float, ndcg: float) -> tuple[Published, Published]:
    return (
        Published(dataset, "recall@20", recall, _IRLLREC),
        Published(dataset, "ndcg@20", ndcg, _IRLLREC),
    )


CARD = Card(
    title="DCCF",
    paper="Ren et al., Disentangled Contrastive Collaborative Filtering, SIGIR 2023, "
    "arXiv:2305.02759",
    code="https://github.com/HKUDS/SSLRec",
    tiny={
        "width": 16,
        "layers": 2,
        "prototypes": 8,
        "contrast_weight": 1e-2,
        "learning_rate": 2e-2,
    },
    published=(
        *_published("amazon-book", 0.1517, 0.0943),
        *_published("yelp-cf", 0.1249, 0.0800),
        *_published("amazon-movie", 0.1723, 0.1014),
    ),
    deviations=(
        "items' contrast is divided by the number of distinct items; SSLRec, RLMRec and IRLLRec "
        "divide it by that of distinct users",
        "negatives are not contrasted, as in RLMRec and IRLLRec; SSLRec contrasts them too",
    ),
    personal=True,
)


@dataclass(frozen=True)
class LayerViews:
    """What one layer makes of H, (n, D) each.

    Attributes:
        moved: Z, the neighbours' H.
        intents: Q, the mixture of prototypes.
        by_moved: Y, the neighbours' H, edges weighed by Z.
        by_intents: X, the neighbours' H, edges weighed by Q.
    """

    moved: Tensor
    intents: Tensor
    by_moved: Tensor
    by_intents: Tensor


@dataclass(frozen=True)
class DCCFViews(Views):
    """One pass; `layers` are H^(0), …, H^(L).

    Attributes:
        parts: of each layer.
        intents: (n, D) X averaged over layers: a node's intents by its neighbours (IRLLRec's r).
    """

    parts: tuple[LayerViews, ...]
    intents: Tensor


class DCCF(GraphRecommender[DCCFViews]):
    """DCCF.

    Args:
        n_items: V.
        n_users: N.
        width: D.
        layers: L, at least 1.
        prototypes: K intents of users, and as many of items.
        contrast_weight: λ_cl.
        temperature: τ.
        l2: λ_Θ.
        learning_rate: of Adam.

    Raises:
        RequestError: no layers.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 32,
        layers: int = 2,
        prototypes: int = 128,
        contrast_weight: float = 1e-3,
        temperature: float = 0.1,
        l2: float = 1e-4,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, width, l2, learning_rate)
        if layers < 1:
            raise RequestError(f"layers: DCCF needs at least 1, not {layers}")
        self.layers = layers
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.prototypes = Prototypes(width, prototypes)

    def views(self, nodes: Tensor) -> DCCFViews:
        """The layers, and the four parts of which each next one is made."""
        layers, parts = [nodes], []
        for _ in range(self.layers):
            part = self._layer(layers[-1])
            parts.append(part)
            grown = part.moved + part.intents + part.by_moved + part.by_intents
            layers.append(grown + layers[-1])
        intents = torch.stack([part.by_intents for part in parts]).mean(0)
        return DCCFViews(torch.stack(layers).sum(0), tuple(layers), tuple(parts), intents)

    def _layer(self, vectors: Tensor) -> LayerViews:
        graph = self.known_graph()
        moved = graph.product(graph.normalised, vectors)
        intents = self.prototypes(vectors, self.n_users)
        return LayerViews(
            moved,
            intents,
            graph.product(adaptive_mask(graph, moved), vectors),
            graph.product(adaptive_mask(graph, intents), vectors),
        )

    def own_terms(self, views: DCCFViews, triples: Triples) -> dict[str, Tensor]:
        """λ_cl times the contrast, of Z against each of the other parts of its layer."""
        # `unique` makes a device wait, once a step; it spares half of the similarities (a batch of
        # 4096 pairs has some 3000 users), which masking duplicates out would not
        triples = gather_fields(triples)
        terms = [
            self._contrast(part, nodes)
            for nodes in (torch.unique(triples.users), torch.unique(triples.positives))
            for part in views.parts
        ]
        return {"contrast": self.contrast_weight * torch.stack(terms).sum()}

    def _contrast(self, part: LayerViews, nodes: Tensor) -> Tensor:
        """Σ_W NCE_τ(Z, W) among distinct nodes of a side."""
        own = torch.arange(len(nodes), device=nodes.device)
        # not by brackets: the gradient of `index_select` is several times as fast
        anchors = part.moved.index_select(0, nodes)
        terms = [
            nce_against_all(anchors, other.index_select(0, nodes), own, self.temperature)
            for other in (part.intents, part.by_moved, part.by_intents)
        ]
        return torch.stack(terms).sum()
