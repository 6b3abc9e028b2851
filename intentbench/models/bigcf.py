"""BIGCF: intents as the spread of noisy embeddings (Zhang et al., SIGIR 2024).

    μ = Σ_{l=0}^{L} Â^l E^(0),   σ = softmax_K(μ C) Cᵀ,   e = μ + σ ⊙ ε,   ε ~ N(0, I)
    L = L_BPR(e) + λ_cl L_gcr + λ_cen (‖C_u‖² + ‖C_i‖²) + λ_Θ Σ_W ‖W‖²
    L_gcr = h(e_u, e_u) + h(e_i, e_i) + h(e_u, e_i) + h(σ_u, σ_u) + h(σ_i, σ_i)

over the batch's users and positive items, where h is InfoNCE in batch: of a vector with itself, it
is how close the vectors are to one another. There is no KL term in spite of the noise.
"""

from collections.abc import Callable  # noqa: TC003  # a block of its own for one name
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from intentbench.models.card import Card, Published
from intentbench.models.graph import GraphRecommender, Triples, Views
from intentbench.nn.graph_intents import Prototypes
from intentbench.nn.node_contrast import chunk_rows
from intentbench.nn.processes import gather_fields

_IRLLREC = "IRLLRec, table 2 (SIGIR 2025), row BIGCF; training items masked, scored with noise"


def _published(dataset: str, recall: float, ndcg: float) -> tuple[Published, Published]:
    return (
        Published(dataset, "recall@20", recall, _IRLLREC),
        Published(dataset, "ndcg@20", ndcg, _IRLLREC),
    )


CARD = Card(
    title="BIGCF",
    paper="Zhang et al., Exploring the Individuality and Collectivity of Intents behind "
    "Interactions for Graph Collaborative Filtering, SIGIR 2024, arXiv:2405.09042",
    code="https://github.com/wangyu0627/IRLLRec",
    tiny={
        "width": 16,
        "layers": 2,
        "prototypes": 8,
        "contrast_weight": 1e-2,
        "prototype_l2": 1e-3,
        "learning_rate": 2e-2,
    },
    published=(
        *_published("amazon-book", 0.1552, 0.0955),
        *_published("yelp-cf", 0.1237, 0.0789),
        *_published("amazon-movie", 0.1793, 0.1022),
    ),
    deviations=(
        "scores are those of μ; the reference code draws noise when it scores too (`noisy_eval`), "
        "and anew for every batch of users",
        "Xavier-uniform and a penalty on all parameters, as in IRLLRec; the authors' own code has "
        "Xavier-normal and penalises the batch's embeddings",
        "h without the 1e-8 in the denominator and in the logarithm",
    ),
    personal=True,
)


@dataclass(frozen=True)
class BIGCFViews(Views):
    """One pass; `layers` are Â^l E^(0), and `final` is e.

    Attributes:
        spread: (n, D) σ.
    """

    spread: Tensor


class BIGCF(GraphRecommender[BIGCFViews]):
    """BIGCF.

    Args:
        n_items: V.
        n_users: N.
        width: D.
        layers: L.
        prototypes: K intents of users, and as many of items.
        contrast_weight: λ_cl.
        temperature: τ.
        prototype_l2: λ_cen.
        noisy_eval: whether scores are noisy as well: one draw an evaluation, always the same.
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
        prototypes: int = 128,
        contrast_weight: float = 0.05,
        temperature: float = 0.2,
        prototype_l2: float = 1e-5,
        noisy_eval: bool = False,
        l2: float = 1e-5,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, width, l2, learning_rate)
        self.layers = layers
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.prototype_l2 = prototype_l2
        self.noisy_eval = noisy_eval
        self.prototypes = Prototypes(width, prototypes)

    def views(self, nodes: Tensor) -> BIGCFViews:
        """The layers, their sum μ, and e."""
        graph = self.known_graph()
        layers = [nodes]
        for _ in range(self.layers):
            layers.append(graph.product(graph.normalised, layers[-1]))
        mean = torch.stack(layers).sum(0)
        spread = self.prototypes(mean, self.n_users)
        return BIGCFViews(self._drawn(mean, spread), tuple(layers), spread)

    def _drawn(self, mean: Tensor, spread: Tensor) -> Tensor:
        """E (n, D): noisy in training, and where scores are to be so."""
        if self.training:
            return mean + spread * torch.randn_like(mean)
        if not self.noisy_eval:
            return mean
        # of its own, so that training goes on with the draws that it would have had
        generator = torch.Generator(mean.device).manual_seed(0)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean + spread * noise

    def own_terms(self, views: BIGCFViews, triples: Triples) -> dict[str, Tensor]:
        """λ_cl L_gcr and the penalty of λ_cen."""
        centres = torch.stack([c.square().sum() for c in self.prototypes.parameters()])
        return {
            "contrast": self.contrast_weight * self._contrast(views, gather_fields(triples)),
            "prototype_l2": self.prototype_l2 * centres.sum(),
        }

    def _contrast(self, views: BIGCFViews, triples: Triples) -> Tensor:
        """L_gcr; nodes drawn several times count as often, but are computed once."""
        e, spread = views.final, views.spread
        # `unique` makes a device wait, once a side; it spares half of the similarities
        users, n_users = torch.unique(triples.users, return_counts=True)
        items, n_items = torch.unique(triples.positives, return_counts=True)
        e_u, e_i = e.index_select(0, users), e.index_select(0, items)
        terms = [closeness(e_u, e_i, n_users, n_items, self.temperature)]
        for of_users, of_items in (
            (e_u, e_i),
            (spread.index_select(0, users), spread.index_select(0, items)),
        ):
            terms += [
                closeness(of_users, of_users, n_users, n_users, self.temperature),
                closeness(of_items, of_items, n_items, n_items, self.temperature),
            ]
        # a vector's cosine with itself is 1: only the pairs of the batch have a numerator
        agreement = cosine_similarity(e[triples.users], e[triples.positives])
        return torch.stack(terms).sum() + (1 - agreement).mean() / self.temperature


def closeness(
    anchors: Tensor, candidates: Tensor, n_anchors: Tensor, n_candidates: Tensor, temperature: float
) -> Tensor:
    """How close candidates are to anchors: mean over a of log Σ_b exp((cos(a, b) - 1)/τ).

    It is h of vectors with themselves, and h(a, b) less the mean of (1 - cos(a_n, b_n))/τ.

    Args:
        anchors: (A, D) distinct rows.
        candidates: (C, D) distinct rows.
        n_anchors: (A,) how often each anchor is there.
        n_candidates: (C,) how often each candidate is there.
        temperature: τ.

    Returns:
        A scalar; its gradient reaches both sides (once: no double backward).
    """
    apply: Callable[..., Tensor] = _Closeness.apply
    weights = [counts[:, None].to(anchors.dtype) for counts in (n_anchors, n_candidates)]
    with torch.autocast(anchors.device.type, enabled=False):
        return apply(normalize(anchors), normalize(candidates), *weights, temperature)


class _Closeness(torch.autograd.Function):
    """Forward computes the gradients too, a chunk of rows at a time: no cosine is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        n_anchors: Tensor,
        n_candidates: Tensor,
        temperature: float,
    ) -> Tensor:
        d_anchors, d_candidates = torch.empty_like(anchors), torch.zeros_like(candidates)
        total = anchors.new_zeros(())
        counted = n_candidates * candidates
        rows = chunk_rows(anchors, len(candidates))
        for start in range(0, len(anchors), rows):
            part = slice(start, start + rows)
            # no cosine is above 1: nothing overflows
            cells = (anchors[part] / temperature @ candidates.T).sub_(1 / temperature).exp_()
            mass = cells @ n_candidates
            total += (n_anchors[part] * mass.log()).sum()
            share = n_anchors[part] / mass
            d_anchors[part] = share * (cells @ counted)
            d_candidates.addmm_(cells.T, share * anchors[part])
        d_candidates *= n_candidates
        drawn = n_anchors.sum()
        scale = 1 / (temperature * drawn)
        ctx.save_for_backward(d_anchors * scale, d_candidates * scale)
        return total / drawn

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_anchors, d_candidates = ctx.saved_tensors
        return d_anchors * gradient, d_candidates * gradient, None, None, None
