"""LightGCN: embeddings that move along the graph, and nothing else (He et al., SIGIR 2020).

    E^(l) = Â E^(l-1),   e = Σ_{l=0}^{L} E^(l),   L = L_BPR(e) + λ_Θ Σ_W ‖W‖²

With L = 0 it is matrix factorisation (`bpr_mf` without biases).
"""

import torch
from torch import Tensor

from intentbench.models.card import Card, Published
from intentbench.models.graph import GraphRecommender, Views

_IRLLREC = "IRLLRec, table 2 (SIGIR 2025), row LightGCN; training items masked"


def _published(dataset: str, recall: float, ndcg: float) -> tuple[Published, Published]:
    return (
        Published(dataset, "recall@20", recall, _IRLLREC),
        Published(dataset, "ndcg@20", ndcg, _IRLLREC),
    )


CARD = Card(
    title="LightGCN",
    paper="He et al., LightGCN: Simplifying and Powering Graph Convolution Network for "
    "Recommendation, SIGIR 2020, arXiv:2002.02126",
    code="https://github.com/HKUDS/SSLRec",
    tiny={"width": 16, "layers": 2, "keep": 0.9, "learning_rate": 2e-2},
    published=(
        *_published("amazon-book", 0.1411, 0.0856),
        *_published("yelp-cf", 0.1157, 0.0733),
        *_published("amazon-movie", 0.1661, 0.0891),
    ),
    deviations=(
        "layers are summed, as in SSLRec and RLMRec; the paper averages them, which divides scores "
        "by (L + 1)^2",
        "edges are dropped in training (keep), as in RLMRec; the paper has none by default",
        "the penalty is on all embeddings, as in RLMRec; the paper's is on the batch's",
    ),
    personal=True,
)


class LightGCN(GraphRecommender[Views]):
    """LightGCN.

    Args:
        n_items: V.
        n_users: N.
        width: D.
        layers: L; 0 is matrix factorisation.
        keep: share of the directed edges that a training step keeps.
        l2: λ_Θ.
        learning_rate: of Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 32,
        layers: int = 3,
        keep: float = 0.8,
        l2: float = 1e-6,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, width, l2, learning_rate)
        self.layers = layers
        self.keep = keep

    def views(self, nodes: Tensor) -> Views:
        """The layers on one graph, from which training drops edges, and their sum."""
        graph = self.known_graph()
        weight = graph.dropped(self.keep if self.training else 1.0)
        layers = [nodes]
        for _ in range(self.layers):
            layers.append(graph.product(weight, layers[-1]))
        return Views(torch.stack(layers).sum(0), tuple(layers))
