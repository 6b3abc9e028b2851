"""The definitions again, as plain loops: slow, and independent of the package."""

import math
from collections.abc import Sequence


def rank(scores: Sequence[float], target: int, masked: Sequence[int]) -> int:
    """Rank of item `target` among the items 1.. that are not masked; last where it is masked."""
    n_items = len(scores) - 1
    if target in masked:
        return n_items
    higher = equal = 0
    for item in range(1, n_items + 1):
        if item == target or item in masked:
            continue
        if scores[item] > scores[target]:
            higher += 1
        elif scores[item] == scores[target]:
            equal += 1
    return 1 + higher + math.ceil(equal / 2)


def metric(name: str, rank: int) -> float:
    """Value of "hit_rate@k", "ndcg@k", "mrr@k" or "mrr" at a rank."""
    formula, _, k = name.partition("@")
    if k and rank > int(k):
        return 0.0
    return {"hit_rate": 1.0, "ndcg": math.log(2) / math.log(rank + 1), "mrr": 1 / rank}[formula]


def set_metric(name: str, ranks: Sequence[int]) -> float:
    """Value of "recall@k" or "ndcg@k" of a user with targets at these ranks."""
    formula, _, k = name.partition("@")
    hits = gain = best = 0.0
    for rank in ranks:
        if rank <= int(k):
            hits += 1
            gain += math.log(2) / math.log(1 + rank)
    for place in range(1, min(int(k), len(ranks)) + 1):
        best += math.log(2) / math.log(1 + place)
    return hits / len(ranks) if formula == "recall" else gain / best
