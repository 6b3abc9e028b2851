"""Rank of the target among the candidates of the catalogue.

Rule: rank = 1 + #(candidates scored higher) + #(other candidates scored equal) / 2, rounded up.
Candidates are the items 1..V that are not masked. Ties count half, so a constant scorer gains
nothing from them. A target that is itself masked ranks last, at V.

With `higher` and `as high` counted over all candidates, the target included, the same rank is
1 + (higher + as high) // 2; that is how it is computed here.
"""

import torch
from torch import Tensor

from datamodules.types import PAD


class NonFiniteScoresError(ValueError):
    """Scores hold NaN or +inf, so that they have no order. -inf is allowed: it means "never"."""


def masked_scores(scores: Tensor, masked: Tensor) -> Tensor:
    """A copy of the scores from which `topk` picks candidates only.

    Args:
        scores: (B, V + 1), left as they are.
        masked: (B, M) item ids; repeats and `PAD` do no harm.

    Returns:
        (B, V + 1) scores, -inf in column `PAD` and at masked items.
    """
    copy = scores.clone()
    copy[:, PAD] = -torch.inf
    return copy.scatter_(1, masked, -torch.inf)


def ranks_from_scores(scores: Tensor, target: Tensor, masked: Tensor) -> Tensor:
    """Rank each row's target in the whole catalogue.

    Scores are compared in float32. The device is waited for once.

    Args:
        scores: (B, V + 1) of any floating type, left as they are; column `PAD` never counts.
        target: (B,) int64 item ids; where `PAD`, the rank is V.
        masked: (B, M) int64 item ids that are no candidates; repeats and `PAD` do no harm.

    Returns:
        (B,) int64 ranks in 1..V.

    Raises:
        NonFiniteScoresError: some rows hold NaN or +inf.
    """
    scores = scores.detach().float()
    _refuse(_unordered(scores))
    own = scores.gather(1, target[:, None])
    return _ranks(_count(scores, own, masked), target, masked, scores.shape[1] - 1)


def ranks_from_vectors(
    queries: Tensor,
    table: Tensor,
    target: Tensor,
    masked: Tensor,
    chunk: int = 65536,
    bias: Tensor | None = None,
) -> Tensor:
    """Ranks for the scores `queries @ table.T + bias`, of which only B x chunk exist at a time.

    Each chunk is multiplied twice, first for the score of the targets. A shorter product for the
    targets alone rounds differently, and then ties (items with equal vectors) are no longer ties.

    Args:
        queries: (B, D).
        table: (V + 1, D) item vectors; row `PAD` never counts.
        target: (B,) int64 item ids; where `PAD`, the rank is V.
        masked: (B, M) int64 item ids that are no candidates; repeats and `PAD` do no harm.
        chunk: items scored at a time.
        bias: (V + 1,) added to the scores of each item, or None.

    Returns:
        (B,) int64 ranks in 1..V, those of `ranks_from_scores`.

    Raises:
        NonFiniteScoresError: some rows hold NaN or +inf.
    """
    n_items = len(table) - 1
    starts = range(1, n_items + 1, chunk)

    def score(start: int) -> Tensor:
        """Scores of `PAD` and of the items from `start`: a small catalogue of its own."""
        picked = torch.cat([table[:1], table[start : start + chunk]])
        scores = queries @ picked.T
        if bias is not None:
            scores = scores + torch.cat([bias[:1], bias[start : start + chunk]])
        return scores.detach().float()

    def within(items: Tensor, start: int) -> Tensor:
        """Ids in that small catalogue, `PAD` for items that are not in it."""
        inside = (items >= start) & (items < start + chunk)
        return torch.where(inside, items - start + 1, PAD)

    own = torch.zeros(len(queries), 1, device=queries.device)
    unordered = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    for start in starts:
        scores, place = score(start), within(target, start)[:, None]
        unordered |= _unordered(scores)
        own = torch.where(place == PAD, own, scores.gather(1, place))
    _refuse(unordered)
    count = torch.zeros_like(target)
    for start in starts:
        count += _count(score(start), own, within(masked, start))
    return _ranks(count, target, masked, n_items)


def _unordered(scores: Tensor) -> Tensor:
    """(B,) rows with NaN or +inf; the maximum carries both."""
    return ~(scores.amax(1) < torch.inf)


def _refuse(unordered: Tensor) -> None:
    rows = int(unordered.sum())  # the one place that waits for the device
    if rows:
        raise NonFiniteScoresError(
            f"{rows} of {len(unordered)} rows of scores hold NaN or +inf; the model has diverged"
        )


def _count(scores: Tensor, own: Tensor, masked: Tensor) -> Tensor:
    """(B,) candidates scored higher than `own` (B, 1), plus those scored as high or higher.

    Comparisons go into floats, which add up several times as fast as booleans (exactly so up to
    2^24 columns), and what is no candidate is taken out of those: no masked copy of the scores.
    """
    result = torch.empty_like(scores)
    count = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    for compare in (torch.gt, torch.ge):
        compare(scores, own, out=result)
        result[:, PAD] = 0
        count += result.scatter_(1, masked, 0).sum(1).long()
    return count


def _ranks(count: Tensor, target: Tensor, masked: Tensor, n_items: int) -> Tensor:
    excluded = (target == PAD) | (masked == target[:, None]).any(1)
    return torch.where(excluded, n_items, 1 + count // 2)
