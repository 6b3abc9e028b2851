"""SGL: two graphs with dropped edges should tell the same of each node (Wu et al., SIGIR 2021).

    e   = Σ_{l=0}^{L} Â^l E⁰                                      what is scored with, and BPR's
    e'  = Σ_{l=0}^{L} Â'^l E⁰,   e'' = Σ_{l=0}^{L} Â''^l E⁰       each of a random part of the edges
    L   = L_BPR(e) + λ_cl [NCE_τ(e'_u, e''_u; all users) + NCE_τ(e'_i, e''_i; all items)
                           + NCE_τ(e'_j, e''_j; all items)] + λ_Θ Σ_W ‖W‖²

for the users u, positives i and negatives j of a batch; see `intentbench.nn.node_contrast`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from intentbench.models.card import Card, Published
from intentbench.models.graph import GraphRecommender, Triples, Views
from intentbench.nn.node_contrast import nce_of_nodes

_IRLLREC = "IRLLRec, table 2 (SIGIR 2025), row SGL; training items masked"


def _published(dataset: str, recall: float, ndcg: float) -> tuple[Published, Published]:
    return (
        Published(dataset, "recall@20", recall, _IRLLREC),
        Published(dataset, "ndcg@20", ndcg, _IRLLREC),
    )


CARD = Card(
    title="SGL",
    paper="Wu et al., Self-supervised Graph Learning for Recommendation, SIGIR 2021, "
    "arXiv:2010.10783",
    code="https://github.com/HKUDS/SSLRec",
    tiny={
        "width": 16,
        "layers": 2,
        "keep": 0.9,
        "contrast_weight": 0.01,
        "learning_rate": 2e-2,
    },
    published=(
        *_published("amazon-book", 0.1473, 0.0913),
        *_published("yelp-cf", 0.1197, 0.0753),
        *_published("amazon-movie", 0.1658, 0.0953),
    ),
    deviations=(
        "edges are dropped (SGL-ED); the paper's dropped nodes and random walks are left out",
        "layers are summed, as in SSLRec and RLMRec; the paper averages them",
        "each direction of a pair is dropped apart and degrees are those of the whole graph, as in "
        "SSLRec; the paper drops pairs and counts degrees anew",
        "views are drawn at each step, as in SSLRec; the paper draws them once an epoch",
        "the batch's negative items are contrasted too, as in SSLRec; the paper contrasts users "
        "and positive items",
        "the penalty is on all embeddings, as in RLMRec; the paper's is on the batch's",
    ),
    personal=True,
)


@dataclass(frozen=True)
class TwoViews(Views):
    """A clean pass and two that differ by chance.

    Attributes:
        first: (n, D) e'; the clean e where nothing is contrasted.
        second: (n, D) e''; likewise.
    """

    first: Tensor
    second: Tensor


class SGL(GraphRecommender[TwoViews]):
    """SGL, edge drop.

    Args:
        n_items: V.
        n_users: N.
        width: D.
        layers: L.
        keep: share of the directed edges that a view keeps, the same in all its layers.
        contrast_weight: λ_cl; 0 is LightGCN with all edges.
        temperature: τ.
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
        contrast_weight: float = 0.1,
        temperature: float = 0.2,
        l2: float = 1e-5,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, width, l2, learning_rate)
        self.layers = layers
        self.keep = keep
        self.contrast_weight = contrast_weight
        self.temperature = temperature

    def views(self, nodes: Tensor) -> TwoViews:
        """The whole graph; and, where there is something to contrast, two random parts of it."""
        graph = self.known_graph()
        layers = self._propagate(nodes, graph.normalised)
        final = torch.stack(layers).sum(0)
        if not (self.training and self.contrast_weight):
            return TwoViews(final, layers, final, final)
        first, second = (
            torch.stack(self._propagate(nodes, graph.dropped(self.keep))).sum(0) for _ in range(2)
        )
        return TwoViews(final, layers, first, second)

    def _propagate(self, nodes: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        layers = [nodes]
        for _ in range(self.layers):
            layers.append(self.known_graph().product(weight, layers[-1]))
        return tuple(layers)

    def own_terms(self, views: TwoViews, triples: Triples) -> dict[str, Tensor]:
        """The term "contrast", λ_cl times the sum over users, positives and negatives."""
        if not self.contrast_weight:
            return {}
        sides = [self.n_users, self.n_items]
        pairs = (torch.split(view, sides) for view in (views.first, views.second))
        users, items = zip(*pairs, strict=True)
        drawn = torch.cat([triples.positives, triples.negatives]) - self.n_users
        # as many negatives as positives: the sum of their means is twice the mean of all
        contrast = nce_of_nodes(users[0], users[1], triples.users, self.temperature)
        contrast = contrast + 2 * nce_of_nodes(items[0], items[1], drawn, self.temperature)
        return {"contrast": self.contrast_weight * contrast}
