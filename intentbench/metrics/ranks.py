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
    own = torch.zeros(len(queries), 1, device=queries.device)
    unordered = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    for start in starts:
        scores = _score_chunk(queries, table, start, chunk, bias)
        place = _within(target, start, chunk)[:, None]
        unordered |= _unordered(scores)
        own = torch.where(place == PAD, own, scores.gather(1, place))
    _refuse(unordered)
    count = torch.zeros_like(target)
    for start in starts:
        scores = _score_chunk(queries, table, start, chunk, bias)
        count += _count(scores, own, _within(masked, start, chunk))
    return _ranks(count, target, masked, n_items)


def best_from_vectors(
    queries: Tensor, table: Tensor, masked: Tensor, k: int, chunk: int = 65536
) -> tuple[Tensor, Tensor]:
    """The k best candidates for the scores `queries @ table.T`, of which B x chunk exist at a time.

    Args:
        queries: (B, D).
        table: (V + 1, D) item vectors; row `PAD` is no candidate.
        masked: (B, M) int64 item ids that are no candidates; repeats and `PAD` do no harm.
        k: at most V.
        chunk: items scored at a time.

    Returns:
        Items and scores, both (B, k), best first; -inf: no candidate is left.
    """
    values = torch.empty(len(queries), 0, device=queries.device)
    items = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(1, len(table), chunk):
        scores = _score_chunk(queries, table, start, chunk)
        best = masked_scores(scores, _within(masked, start, chunk)).topk(min(k, scores.shape[1]))
        found = torch.where(best.indices == PAD, PAD, best.indices + start - 1)
        values, items = torch.cat([values, best.values], 1), torch.cat([items, found], 1)
        values, places = values.topk(min(k, values.shape[1]))
        items = items.gather(1, places)
    return items, values


def _score_chunk(
    queries: Tensor, table: Tensor, start: int, chunk: int, bias: Tensor | None = None
) -> Tensor:
    """Scores of the items from `start`; in column `PAD` stands whatever is before them."""
    part = slice(start - 1, start + chunk)
    scores = queries @ table[part].T
    if bias is not None:
        scores = scores + bias[part]
    return scores.detach().float()


def _within(items: Tensor, start: int, chunk: int) -> Tensor:
    """Columns of items in that chunk, `PAD` for items that are not in it."""
    inside = (items >= start) & (items < start + chunk)
    return torch.where(inside, items - start + 1, PAD)


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
