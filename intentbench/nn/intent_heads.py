"""Heads that predict intents, the mix of their predictions, and their losses (IntentRec).

    p^i = softmax(FC_i(h)),  v^i = Proj_i(p^i)
    ω = softmax_i(FC_att(v^i)),  Z = Σ_i ω^i v^i                       (Eq. 2)
    Z = 1/M Σ_i v^i, or v^1 ⊕ … ⊕ v^M                     (what it is held against)
    L_single = -log p[label],   L_multi = -Σ_{c in labels} log p[c]

The paper calls L_multi a binary cross-entropy without negative labels. With sigmoids its optimum
would be all ones; with the softmax it is p = 1/r on each of r labels, and r log r.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from intentbench.nn.initialisation import init_normal
from intentbench.nn.processes import pool_mean

Multi = Literal["softmax", "bce"]
Aggregation = Literal["attention", "mean", "concatenation"]


class IntentHeads(nn.Module):
    """FC_i of each intent.

    Args:
        width: of the states.
        intents: (kind, number of labels) of each intent.
        multi: how several labels at once are predicted: "softmax" as above, or "bce", a sigmoid
            each.
    """

    def __init__(self, width: int, intents: Sequence[tuple[str, int]], multi: Multi) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, size) for _, size in intents)
        self.sigmoid = [kind == "multi" and multi == "bce" for kind, _ in intents]

    def forward(self, states: Tensor) -> list[Tensor]:
        """Logits (…, d_i) of each intent at states (…, D)."""
        return [layer(states) for layer in self.layers]

    def distributions(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """p^i (…, d_i) of each intent."""
        return [
            scores.sigmoid() if sigmoid else scores.softmax(-1)
            for scores, sigmoid in zip(logits, self.sigmoid, strict=True)
        ]

    def losses(
        self, logits: Sequence[Tensor], labels: Sequence[Tensor], weights: Tensor | None = None
    ) -> list[Tensor]:
        """A scalar for each intent: see `single_loss` and `multi_loss`."""
        return [
            single_loss(scores, label, weights)
            if label.dim() == 1
            else multi_loss(scores, label, weights, sigmoid)
            for scores, label, sigmoid in zip(logits, labels, self.sigmoid, strict=True)
        ]


class IntentMixture(nn.Module):
    """Proj_i and FC_att: from predictions to the intent vector Z.

    `Proj_i` is linear, so v^i is a mix of one vector a label, and Z by attention a convex
    combination of the v^i: the weights can be read.

    Args:
        sizes: number of labels of each intent.
        width: of v^i.
        aggregation: how the v^i become Z.

    Attributes:
        joined: width of Z.
    """

    def __init__(
        self, sizes: Sequence[int], width: int, aggregation: Aggregation = "attention"
    ) -> None:
        super().__init__()
        self.width = width
        self.aggregation = aggregation
        self.joined = width * len(sizes) if aggregation == "concatenation" else width
        self.project = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        # the softmax cancels a bias, and all of a single score: nothing to learn
        several = len(sizes) > 1 and aggregation == "attention"
        self.attend = nn.Linear(width, 1, bias=False) if several else None

    def initialise(self) -> None:
        """Vectors of labels of length about 1, as those of fields (`EventFeatures`)."""
        for layer in self.project:
            init_normal(layer, self.width**-0.5)

    def forward(self, distributions: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Z (…, joined) and, by attention, the weights ω (…, M) of distributions (…, d_i)."""
        vectors = [
            project(shares) for project, shares in zip(self.project, distributions, strict=True)
        ]
        if self.aggregation == "concatenation":
            return torch.cat(vectors, -1), None
        values = torch.stack(vectors, -2)
        if self.aggregation == "mean":
            return values.mean(-2), None
        if self.attend is None:
            weights = values.new_ones(values.shape[:-1])
        else:
            weights = self.attend(values).squeeze(-1).softmax(-1)
        return (weights[..., None] * values).sum(-2), weights


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Σ w ℓ / Σ w over (T,); 0 where all weights are 0."""
    total = weights.sum()
    mean = (weights * losses).sum() / total.clamp(min=torch.finfo(losses.dtype).tiny)
    return pool_mean(mean, total)


def single_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of -log p[label] over targets that have a label.

    Args:
        logits: (T, d).
        labels: (T,) int64 0..d-1, -1 where the target has none.
        weights: (T,), None for equal ones.
    """
    losses = functional.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
    known = (labels >= 0).to(logits.dtype)
    return weighted_mean(losses, known if weights is None else known * weights)


def multi_loss(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, sigmoid: bool = False
) -> Tensor:
    """Mean of -Σ_c log p[c] over targets that have a label.

    Args:
        logits: (T, d).
        labels: (T, d) bool.
        weights: (T,), None for equal ones.
        sigmoid: instead the binary cross-entropy with negatives, mean over labels.
    """
    holds = labels.to(logits.dtype)
    if sigmoid:
        each = functional.binary_cross_entropy_with_logits(logits, holds, reduction="none")
        losses = each.mean(-1)
    else:
        losses = -(logits.log_softmax(-1) * holds).sum(-1)
    known = labels.any(-1).to(logits.dtype)
    return weighted_mean(losses, known if weights is None else known * weights)
