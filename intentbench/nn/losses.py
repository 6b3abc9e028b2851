"""The field's losses against sampled negatives.

Notation: T targets, D width, K negatives; h (T, D) states, e+ (T, D) and e- (T, K, D) item
vectors. All are means over targets. The full cross-entropy is `nn.cross_entropy`.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, softplus


def positive_and_negative_scores(
    states: Tensor, table: Tensor, positives: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Dot products with positives (T,) and negatives (T, K): shapes (T,) and (T, K)."""
    positive = (states * table[positives]).sum(-1)
    negative = torch.bmm(table[negatives], states[:, :, None]).squeeze(-1)
    return positive, negative


def shared_negative_scores(
    states: Tensor, table: Tensor, rows: Tensor, negatives: Tensor, longest: int
) -> Tensor:
    """Dot products with negatives that the targets of a row share.

    One product a row, of which no vector of a negative is copied for each target: with 50 targets
    a row a fiftieth of the memory that `positive_and_negative_scores` takes.

    Args:
        states: (T, D).
        table: (V + 1, D) item vectors.
        rows: (T,) int64, the row of each target, not falling.
        negatives: (B, K) items of each row.
        longest: targets of a row at most.

    Returns:
        (T, K).
    """
    count = torch.bincount(rows, minlength=len(negatives))
    first = count.cumsum(0) - count
    place = rows * longest + torch.arange(len(rows), device=rows.device) - first[rows]
    grouped = states.new_zeros(len(negatives) * longest, states.shape[1])
    grouped = grouped.index_copy(0, place, states).view(len(negatives), longest, -1)
    return torch.bmm(grouped, table[negatives].transpose(1, 2)).flatten(0, 1)[place]


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """`-log σ(s+) - Σ_k log(1 - σ(s_k))`; with K = 1 the loss of SASRec (`bce1`).

    Args:
        positive: (T,) scores s+.
        negative: (T, K) scores s_k.
    """
    return (softplus(-positive) + softplus(negative).sum(-1)).mean()


def generalised_bce(positive: Tensor, negative: Tensor, n_items: int, calibration: float) -> Tensor:
    """Generalised BCE (gBCE) of gSASRec (Petrov & Macdonald 2023).

        -(1/(K+1)) [ log σ(s+)^β + Σ_k log(1 - σ(s_k)) ],  β = a(t(1 - 1/a) + 1/a),  a = K/(V-1)

    `log σ^β = -β softplus(-s)` is exact, where the released code clamps a transformed logit.

    Args:
        positive: (T,) scores s+.
        negative: (T, K) scores s_k of negatives drawn uniformly.
        n_items: V.
        calibration: t; 0 gives β = 1 and the plain loss over K + 1, 1 is unbiased.
    """
    count = negative.shape[1]
    rate = count / (n_items - 1)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    terms = beta * logsigmoid(positive) + logsigmoid(-negative).sum(-1)
    return -terms.mean() / (count + 1)


def sampled_softmax(positive: Tensor, negative: Tensor, hits: Tensor) -> Tensor:
    """Cross-entropy over {e+} and K negatives.

    Args:
        positive: (T,) scores.
        negative: (T, K) scores.
        hits: (T, K) bool, where a negative is the positive itself: left out of the sum.
    """
    scores = torch.cat([positive[:, None], negative.masked_fill(hits, -torch.inf)], 1)
    return cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long))
