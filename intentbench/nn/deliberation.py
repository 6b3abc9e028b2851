"""A sequence encoder that consults intents before each of its decisions (IDR of IGR-SR).

    A = MHA(Q = X, K = T, V = T),  U = LN(X + Drop(A))        deliberation: items ask the intents
    W = LN(U + Drop(MHA(U, U, U; causal)))                    decision
    X' = LN(W + Drop(FFN(W)))

after arXiv:2512.14034; residuals and norms are reconstructed. Decision and FFN are a block of
SASRec in its BERT form, so that without intents the whole is that encoder, bit for bit.

B rows, n items on the right padded to the widest row, m intents, width D.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from intentbench.nn.initialisation import init_normal
from intentbench.nn.transformer import SequenceEncoder

Fusion = Literal["cross", "add", "concat", "none"]


class CrossAttention(nn.Module):
    """U = LN(X + Drop(W_o MHA(X, T, T))): every item looks at all intents, whatever its place.

    Args:
        width: D.
        heads: number of heads; must divide `width`.
        dropout: on the attention weights and before the residual sum.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.weight_dropout = nn.Dropout(dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, states: Tensor, intents: Tensor, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let items look at intents.

        Args:
            states: (B, n, D) X.
            intents: (B, m, D), the same for all items of a row, or (B, n, m, D).
            kept: (B, m) bool, which intents can be seen; None: all.

        Returns:
            U (B, n, D), and the attention weights (B, heads, n, m).
        """
        if intents.ndim == 4:  # every item is a row of its own
            rows, n = states.shape[:2]
            kept = None if kept is None else kept.repeat_interleave(n, 0)
            mixed, weights = self(states.flatten(0, 1)[:, None], intents.flatten(0, 1), kept)
            return mixed.view_as(states), weights.view(rows, n, self.heads, -1).transpose(1, 2)
        shape = (len(states), -1, self.heads, states.shape[2] // self.heads)
        key, value = self.key_value(intents).chunk(2, dim=-1)
        parts = (self.query(states), key, value)
        query, key, value = (part.reshape(shape).transpose(1, 2) for part in parts)
        scores = query @ key.mT / math.sqrt(shape[3])  # there are few intents: nothing to fuse
        if kept is not None:
            scores = scores.masked_fill(~kept[:, None, None], -torch.inf)
        weights = scores.softmax(-1)
        mixed = (self.weight_dropout(weights) @ value).transpose(1, 2).reshape(states.shape)
        return self.norm(states + self.dropout(self.out(mixed))), weights


class Deliberated(NamedTuple):
    """What stands at Q positions of B rows.

    Attributes:
        states: (B, Q, D).
        weights: (layers, B, heads, Q, m) attention to the intents; None where there is none.
    """

    states: Tensor
    weights: Tensor | None


class DeliberativeReasoner(nn.Module):
    """Blocks of deliberation and decision.

    Args:
        encoder: embeddings and the blocks of the decision, of kind "bert".
        heads: of the deliberation.
        dropout: of the deliberation.
        fusion: how intents come in. "cross": as above; "add": their mean is added to every item;
            "concat": they stand in front of the items, without positions; "none": not at all.
    """

    def __init__(
        self, encoder: SequenceEncoder, heads: int, dropout: float, fusion: Fusion
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.fusion = fusion
        layers = len(encoder.blocks) if fusion == "cross" else 0
        width = encoder.items.embedding_dim
        self.crosses = nn.ModuleList(CrossAttention(width, heads, dropout) for _ in range(layers))
        self.crosses.apply(init_normal)

    def forward(
        self,
        items: Tensor,
        intents: Tensor | None,
        last: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Deliberated:
        """Read items with their intents.

        Args:
            items: (B, n).
            intents: (R B, m, D) or (R B, n, m, D), R sets of intents for the same items, one set
                after the other; None with fusion "none", where R is 1.
            last: (B,) positions; what stands there is returned alone, at less cost.
            kept: (R B, m) bool, which intents can be seen; None: all.

        Returns:
            Of R B rows, n or 1 positions each.
        """
        encoder = self.encoder
        states = encoder.first_norm(
            encoder.items(items) + encoder.positions.weight[: items.shape[1]]
        )
        if intents is not None:
            copies = len(intents) // len(items)
            states = states.repeat(copies, 1, 1)
            last = None if last is None else last.repeat(copies)
        states = encoder.dropout(states)
        if self.fusion == "concat" and intents is not None:
            return Deliberated(self._behind(intents, states, last), None)
        if self.fusion == "add" and intents is not None:
            mean = intents.mean(-2)
            states = states + (mean if intents.ndim == 4 else mean[:, None])
        if self.fusion != "cross" or intents is None:
            return Deliberated(self._decide(states, last), None)
        return self._deliberate(states, intents, last, kept)

    def _deliberate(
        self, states: Tensor, intents: Tensor, last: Tensor | None, kept: Tensor | None
    ) -> Deliberated:
        seen = []
        layers = list(zip(self.crosses, self.encoder.blocks, strict=True))
        for number, (cross, block) in enumerate(layers, 1):
            states, weights = cross(states, intents, kept)
            states = block(states, last if number == len(layers) else None)
            seen.append(weights if last is None else _weights_at(weights, last))
        return Deliberated(states, torch.stack(seen))

    def _decide(self, states: Tensor, last: Tensor | None) -> Tensor:
        for block in self.encoder.blocks[:-1]:
            states = block(states)
        result: Tensor = self.encoder.blocks[-1](states, last)
        return result

    def _behind(self, intents: Tensor, states: Tensor, last: Tensor | None) -> Tensor:
        m = intents.shape[1]
        joined = torch.cat([intents, states], 1)
        if last is not None:
            return self._decide(joined, last + m)
        return self._decide(joined, None)[:, m:]


def _weights_at(weights: Tensor, last: Tensor) -> Tensor:
    """(B, heads, n, m) and (B,) to (B, heads, 1, m)."""
    place = last[:, None, None, None].expand(-1, weights.shape[1], 1, weights.shape[3])
    return weights.gather(2, place)


def projection(given: int, width: int) -> nn.Sequential:
    """LN(W_2 GELU(W_1 t + b_1) + b_2): intents of another width and kind, made ready for items."""
    return nn.Sequential(
        nn.Linear(given, 2 * width),
        nn.GELU(),
        nn.Linear(2 * width, width),
        nn.LayerNorm(width, eps=1e-12),
    ).apply(init_normal)


def draw_rounds(rows: int, m: int, p_mask: float, device: torch.device) -> Tensor:
    """Which intents are kept in each round, (3, B, m) bool: all of them, then `two_masks`."""
    views = two_masks(torch.rand(rows, 2 * m + 4, device=device), p_mask)
    return torch.cat([torch.ones_like(views[:1]), views])


def two_masks(noise: Tensor, p_mask: float) -> Tensor:
    """Which of m intents each of two views of a row keeps, at random, each with 1 - p_mask.

    No view is empty, and with two intents or more no row has twice the same view: a view without
    intents keeps one of them; where both are alike, one entry of the second is turned round, and
    should that leave nothing, another intent is kept in its place. With one intent it is kept.

    Args:
        noise: (B, 2 m + 4) uniform in [0, 1): of either view, then of the choices above.
        p_mask: probability that an intent is masked.

    Returns:
        (2, B, m) bool.
    """
    m = noise.shape[1] // 2 - 2
    number = torch.arange(m, device=noise.device)
    drawn = noise[:, : 2 * m].reshape(-1, 2, m).transpose(0, 1) >= p_mask
    keep = (noise[:, 2 * m : 2 * m + 2].T * m).long()
    turn, shift = (noise[:, -2] * m).long(), (noise[:, -1] * (m - 1)).long()
    empty = ~drawn.any(2, keepdim=True)
    masks = drawn | (empty & (number == keep[:, :, None]))
    if m == 1:
        return masks
    first, second = masks
    alike = (first == second).all(1, keepdim=True)
    turned = second ^ (alike & (number == turn[:, None]))
    other = (turn + 1 + shift) % m
    nothing = ~turned.any(1, keepdim=True)
    return torch.stack([first, turned | (nothing & (number == other[:, None]))])


def apply_masks(intents: Tensor, masks: Tensor, drop: bool) -> tuple[Tensor, Tensor | None]:
    """Intents as R rounds see them.

    Args:
        intents: (B, m, D) or (B, n, m, D).
        masks: (R, B, m) bool, those kept.
        drop: whether the others are hidden; otherwise they are vectors of zeros.

    Returns:
        (R B, …), one round after the other, and (R B, m) those that can be seen, or None for all.
    """
    if drop:
        again = [len(masks)] + [1] * (intents.ndim - 1)
        return intents.repeat(again), masks.flatten(0, 1)
    kept = masks[..., None] if intents.ndim == 3 else masks[:, :, None, :, None]
    return (intents * kept).flatten(0, 1), None


@torch.no_grad()
def intent_signs(intents: Tensor, weights: Tensor | None, last: Tensor) -> dict[str, Tensor]:
    """Of each row at its last item, what tells that intents are alike or not told apart.

    Args:
        intents: (B, m, D) or (B, n, m, D).
        weights: (layers, R B, heads, Q, m) attention, of which the first B rows count, with Q = 1
            or n; or None.
        last: (B,) position of the last item.

    Returns:
        "intent_cosine" (B,), the mean over pairs of intents, and with weights "attention_entropy"
        (B,), the mean entropy of the attention over log m: 1 where all intents get as much.
        Nothing where m is 1.
    """
    m = intents.shape[-2]
    if m == 1:
        return {}
    rows = torch.arange(len(last), device=last.device)
    if intents.ndim == 4:
        intents = intents[rows, last]
    length = normalize(intents, dim=2).sum(1).square().sum(1)
    signs = {"intent_cosine": (length - m) / (m * (m - 1))}
    if weights is not None:
        place = last if weights.shape[3] > 1 else torch.zeros_like(last)
        entropy = torch.special.entr(weights[:, rows, :, place]).sum(-1)  # (B, layers, heads)
        signs["attention_entropy"] = entropy.mean((1, 2)) / math.log(m)
    return signs
