"""SimGCL: two passes with noise should tell the same of each node (Yu et al., SIGIR 2022).

    e    = Σ_{l=0}^{L} E^(l),   E^(l) = Â E^(l-1)                 what is scored with, and BPR's
    e'   = E⁰ + Σ_{l=1}^{L} P^(l),   P^(l) = X + Δ,   X = Â P^(l-1)
    Δ_n  = ε sign(X_n) ⊙ ξ_n / ‖ξ_n‖,   ξ_n ~ U[0, 1]^D,          anew for each layer and view
    L    = L_BPR(e) + λ_cl [NCE_τ(e'_u, e''_u; all users) + NCE_τ(e'_i, e''_i; all items)]
           + λ_Θ Σ_W ‖W‖²

for the users u and positives i of a batch; see `intentbench.nn.node_contrast`.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from intentbench.models.card import Card, Published
from intentbench.models.graph import GraphRecommender, Triples
from intentbench.models.sgl import TwoViews
from intentbench.nn.node_contrast import nce_of_nodes

_IRLLREC = "IRLLRec, table 2 (SIGIR 2025), row SimGCL; training items masked"


def _published(dataset: str, recall: float, ndcg: float) -> tuple[Published, Published]:
    return (
        Published(dataset, "recall@20", recall, _IRLLREC),
        Published(dataset, "ndcg@20", ndcg, _IRLLREC),
    )


CARD = Card(
    title="SimGCL",
    paper="Yu et al., Are Graph Augmentations Necessary? Simple Graph Contrastive Learning for "
    "Recommendation, SIGIR 2022, arXiv:2112.08679",
    code="https://github.com/HKUDS/SSLRec",
    tiny={
        "width": 16,
        "layers": 2,
        "epsilon": 0.1,
        "contrast_weight": 0.01,
        "learning_rate": 2e-2,
    },
    published=(
        *_published("amazon-book", 0.1512, 0.0919),
        *_published("yelp-cf", 0.1254, 0.0801),
        *_published("amazon-movie", 0.1700, 0.0978),
    ),
    deviations=(
        "layers are summed, as in SSLRec and RLMRec; the paper averages them",
        "views have layer 0 too, without noise, as in SSLRec; the paper leaves it out",
        "a node is contrasted with its whole side, as in SSLRec; the paper contrasts it with the "
        "batch",
        "the penalty is on all embeddings, as in RLMRec; the paper's is on the batch's",
    ),
    personal=True,
)


class SimGCL(GraphRecommender[TwoViews]):
    """SimGCL.

    Args:
        n_items: V.
        n_users: N.
        width: D.
        layers: L.
        epsilon: ε, the length of what is added to each node in each layer of a view.
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
        epsilon: float = 0.9,
        contrast_weight: float = 0.1,
        temperature: float = 0.2,
        l2: float = 1e-5,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, width, l2, learning_rate)
        self.layers = layers
        self.epsilon = epsilon
        self.contrast_weight = contrast_weight
        self.temperature = temperature

    def views(self, nodes: Tensor) -> TwoViews:
        """A pass without noise; and, where there is something to contrast, two with it."""
        layers = self._propagate(nodes, epsilon=0.0)
        final = torch.stack(layers).sum(0)
        if not (self.training and self.contrast_weight):
            return TwoViews(final, layers, final, final)
        first, second = (torch.stack(self._propagate(nodes, self.epsilon)).sum(0) for _ in range(2))
        return TwoViews(final, layers, first, second)

    def _propagate(self, nodes: Tensor, epsilon: float) -> tuple[Tensor, ...]:
        graph = self.known_graph()
        layers = [nodes]
        for _ in range(self.layers):
            moved = graph.product(graph.normalised, layers[-1])
            layers.append(perturb(moved, epsilon) if epsilon else moved)
        return tuple(layers)

    def own_terms(self, views: TwoViews, triples: Triples) -> dict[str, Tensor]:
        """The term "contrast", λ_cl times the sum over users and positives."""
        if not self.contrast_weight:
            return {}
        sides = [self.n_users, self.n_items]
        pairs = (torch.split(view, sides) for view in (views.first, views.second))
        users, items = zip(*pairs, strict=True)
        positives = triples.positives - self.n_users
        contrast = nce_of_nodes(users[0], users[1], triples.users, self.temperature)
        contrast = contrast + nce_of_nodes(items[0], items[1], positives, self.temperature)
        return {"contrast": self.contrast_weight * contrast}


def perturb(vectors: Tensor, epsilon: float) -> Tensor:
    """Add ε sign(x) ⊙ ξ / ‖ξ‖, ξ uniform: each row moves by ε, away from 0 in each coordinate.

    Args:
        vectors: (n, D); coordinates that are 0 stay so.
        epsilon: ε.
    """
    return vectors + epsilon * vectors.detach().sign() * normalize(torch.rand_like(vectors), dim=1)
