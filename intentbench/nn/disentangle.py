"""Split behaviour into interest and intent, and read the current intent out of the past ones.

    R = softmax((H W_Q)(H W_K)ᵀ/√D + M)(H W_V)    interest: what is consistent with the past
    I = H - R                                      intent: what is left
    C_j = [cos(I_j, q) ≥ δ]                        category of the current intent q = I_n
    i = Σ_j α_j I_j,  α = softmax over C           categorical intent, by importance

after IDCLRec (Choi & Lim 2025). B rows, n positions, Q queries a row, width D. A query is a
position; it sees itself and what precedes it, which hides padding on the right.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, scaled_dot_product_attention

from datamodules.errors import RequestError
from intentbench.nn.initialisation import init_normal

Values = Literal["projected", "identity"]
Threshold = Literal["fixed", "none", "learned", "per_user", "top_m"]
Importance = Literal["mean_dot", "mean_cos", "self_attention", "to_current", "uniform"]
FusionName = Literal["sum", "scalar", "vector", "gate", "linear", "interest", "intent"]

SHORT = 1e-4
"""Vectors shorter than this have no direction: rounding leaves such intents where R = H."""

SOFTNESS = 0.1
"""Temperature of the soft threshold, and of importance by cosines."""


def unit(vectors: Tensor) -> Tensor:
    """Vectors (…, D) of length 1; those shorter than `SHORT` become 0 and take no gradient."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return torch.where(length > SHORT, vectors / length.clamp(min=SHORT), 0.0)


class CausalCrossAttention(nn.Module):
    """The interest: behaviour asks earlier behaviour what it has in common with it.

    No bias, no output layer, no residual, no normalisation: a residual would put H into R, and
    then H - R would mean nothing.

    Args:
        width: D.
        heads: number of heads; must divide `width`.
        dropout: on the attention weights.
        own: whether a position sees itself; if not, the first one still does.
        values: "projected" H W_V, or "identity" H itself: R is then a mean of past behaviour.
    """

    def __init__(self, width: int, heads: int, dropout: float, own: bool, values: Values) -> None:
        super().__init__()
        if width % heads:
            raise RequestError(f"cca_heads {heads} does not divide width {width}; choose another")
        self.heads = heads
        self.dropout = dropout
        self.own = own
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        projected = values == "projected"
        self.value = nn.Linear(width, width, bias=False) if projected else nn.Identity()
        self.apply(init_normal)

    def forward(self, states: Tensor) -> Tensor:
        """R (B, n, D) of H (B, n, D)."""
        shape = (*states.shape[:2], self.heads, -1)
        parts = (self.query(states), self.key(states), self.value(states))
        query, key, value = (part.view(shape).transpose(1, 2) for part in parts)
        visible = None
        if not self.own:
            seen = states.shape[1]
            visible = torch.ones(seen, seen, dtype=torch.bool, device=states.device).tril(-1)
            visible[0, 0] = True
        rate = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, visible, rate, visible is None)
        return mixed.transpose(1, 2).reshape(states.shape)


class Category(nn.Module):
    """Which of the intents so far belong to the category of the current one.

    - `fixed`: cosine at least δ; the comparison carries no gradient;
    - `none`: all of them;
    - `top_m`: the m earlier ones with the largest cosine (all that tie with the last of them);
    - `learned`: softly, by σ((cos - tanh θ)/0.1), θ one number that begins at tanh θ = δ;
    - `per_user`: the same with θ + w·q for θ, w begins at 0.

    The current intent always belongs.

    Args:
        width: D.
        threshold: the above.
        delta: δ.
        top_m: m.
    """

    def __init__(self, width: int, threshold: Threshold, delta: float, top_m: int) -> None:
        super().__init__()
        self.threshold = threshold
        self.delta = delta
        self.top_m = top_m
        if threshold in ("learned", "per_user"):
            if not -1 < delta < 1:
                raise RequestError(
                    f"threshold {threshold!r} begins at delta {delta}; choose one within (-1, 1)"
                )
            self.theta = nn.Parameter(torch.tensor(math.atanh(delta)))
        if threshold == "per_user":
            self.slope = nn.Parameter(torch.zeros(width))

    def forward(self, queries: Tensor, intents: Tensor, positions: Tensor) -> Tensor:
        """The logarithm of each intent's membership: 0 inside, very negative outside.

        Args:
            queries: (B, Q, D) current intents.
            intents: (B, n, D).
            positions: (B, Q) where the current intents stand.

        Returns:
            (B, Q, n).
        """
        column = torch.arange(intents.shape[1], device=intents.device)
        visible = column <= positions[..., None]
        current = column == positions[..., None]
        likeness = (unit(queries) @ unit(intents).mT).clamp(-1, 1)
        inside = visible
        log_weights = torch.zeros_like(likeness)
        if self.threshold == "fixed":
            inside = visible & (likeness >= self.delta) | current
        elif self.threshold == "top_m":
            order = likeness.detach().masked_fill(~visible, -2).masked_fill(current, 2)
            kept = min(1 + self.top_m, order.shape[-1])
            inside = visible & (order >= order.topk(kept).values[..., -1:])
        elif self.threshold != "none":
            theta: Tensor = self.theta
            if self.threshold == "per_user":
                theta = theta + (queries @ self.slope)[..., None]
            soft = logsigmoid((likeness - theta.tanh()) / SOFTNESS)
            log_weights = torch.where(current, log_weights, soft)
        outside = torch.finfo(log_weights.dtype).min  # finite: -inf times 0 is no number
        return log_weights.masked_fill(~inside, outside)


def importance(form: Importance, queries: Tensor, intents: Tensor, log_weights: Tensor) -> Tensor:
    """The weights α of the intents of a category: how alike each is to the others of it.

    With G = I Iᵀ/√D and membership w: α = softmax_j(e_j + log w_j), where e_j is

    - `mean_dot`: Σ_k w_k G_jk / Σ_k w_k;
    - `mean_cos`: the same with cosines / 0.1 in place of G;
    - `to_current`: G_jn;
    - `uniform`: 0;

    and for `self_attention` α_j is the mean, by w, of column j of softmax(G) inside the category.

    Args:
        form: the above.
        queries: (B, Q, D) current intents.
        intents: (B, n, D).
        log_weights: (B, Q, n) log w.

    Returns:
        (B, Q, n), rows sum to 1.
    """
    scale = math.sqrt(intents.shape[-1])
    shares = log_weights.softmax(-1)  # w / Σ w
    if form == "uniform":
        return shares
    if form == "self_attention":
        scores = (intents @ intents.mT / scale)[:, None] + log_weights[:, :, None]
        return (shares[:, :, None] @ scores.softmax(-1)).squeeze(2)
    if form == "to_current":
        scores = queries @ intents.mT / scale
    else:
        rows = unit(intents) if form == "mean_cos" else intents
        mean = shares @ rows  # Σ_k w_k G_jk / Σ_k w_k is I_j times the mean intent
        scores = mean @ rows.mT / (SOFTNESS if form == "mean_cos" else scale)
    return (scores + log_weights).softmax(-1)


class Fusion(nn.Module):
    """The vector that predicts, of interest r and categorical intent i.

    - `sum`: r + i;
    - `scalar`, `vector`: 2 σ(a) r + 2 (1 - σ(a)) i, a one number or D;
    - `gate`: the same with a = W [r; i] + b;
    - `linear`: W [r; i];
    - `interest`, `intent`: one of the two alone.

    All but the last line begin as the sum.

    Args:
        width: D.
        name: the above.
    """

    def __init__(self, width: int, name: FusionName) -> None:
        super().__init__()
        self.name = name
        if name in ("scalar", "vector"):
            self.gate = nn.Parameter(torch.zeros(width if name == "vector" else 1))
        elif name in ("gate", "linear"):
            self.mix = nn.Linear(2 * width, width, bias=name == "gate")
            with torch.no_grad():
                for parameter in self.mix.parameters():
                    parameter.zero_()
                if name == "linear":
                    self.mix.weight.copy_(torch.eye(width).repeat(1, 2))

    def forward(self, state: Tensor, interest: Tensor, raw: Tensor, intent: Tensor) -> Tensor:
        """All (…, D): h, r, q = h - r, and the categorical intent i."""
        if self.name == "sum":
            return state + (intent - raw)  # r + i, and h to the bit where i is h's own intent
        if self.name == "interest":
            return interest
        if self.name == "intent":
            return intent
        gated = self.name in ("scalar", "vector")
        mixed: Tensor = self.gate if gated else self.mix(torch.cat([interest, intent], -1))
        if self.name == "linear":
            return mixed
        share = 2 * torch.sigmoid(mixed)
        return share * interest + (2 - share) * intent


class Split(NamedTuple):
    """H, R and I = H - R, each (B, n, D)."""

    states: Tensor
    interests: Tensor
    intents: Tensor


class Reading(NamedTuple):
    """What stands at Q positions of B rows, of which n are seen.

    Attributes:
        state, interest, raw: (B, Q, D) h, r and q = h - r, the intent of the position itself.
        intent: (B, Q, D) i, the intent of its category.
        fused: (B, Q, D) the vector that predicts.
        shares: (B, Q, n) w / Σ w: 1/|C| in the category, 0 outside.
        weights: (B, Q, n) α.
    """

    state: Tensor
    interest: Tensor
    raw: Tensor
    intent: Tensor
    fused: Tensor
    shares: Tensor
    weights: Tensor


class Disentangler(nn.Module):
    """All of the above in order.

    Args: see `CausalCrossAttention`, `Category`, `importance` and `Fusion`.
    """

    def __init__(
        self,
        width: int,
        cca_heads: int,
        dropout: float,
        cca_self: bool,
        cca_values: Values,
        threshold: Threshold,
        delta: float,
        top_m: int,
        importance: Importance,
        fusion: FusionName,
    ) -> None:
        super().__init__()
        self.attention = CausalCrossAttention(width, cca_heads, dropout, cca_self, cca_values)
        self.category = Category(width, threshold, delta, top_m)
        self.importance = importance
        self.fusion = Fusion(width, fusion)

    def split(self, states: Tensor) -> Split:
        """Behaviour (B, n, D) into interest and intent."""
        interests = self.attention(states)
        return Split(states, interests, states - interests)

    def read(self, split: Split, positions: Tensor) -> Reading:
        """Read at positions (B, Q); each sees what stands there and before."""
        where = positions[..., None].expand(-1, -1, split.states.shape[2])
        state, interest, raw = (part.gather(1, where) for part in split)
        log_weights = self.category(raw, split.intents, positions)
        weights = importance(self.importance, raw, split.intents, log_weights)
        intent = weights @ split.intents
        fused = self.fusion(state, interest, raw, intent)
        return Reading(state, interest, raw, intent, fused, log_weights.softmax(-1), weights)
