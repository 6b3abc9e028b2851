"""Rows that another system made: their results were imported, nothing here was run."""

from intentbench.results.record import TrialRecord

EXTERNAL = "external"
"""`TrialRecord.method` of imported results."""

DEPTH = "depth"
"""Entry of the card of imported results where ranks are known down to that place alone."""


def gives_metric(record: TrialRecord, metric: str) -> bool:
    """Whether the stored ranks of a trial give a metric exactly.

    Lists that were cut off say nothing of what stands below their end: of them, metrics "@k" are
    known for k up to the shortest list, and others are lower bounds.

    Args:
        record: of any trial; ranks that the suite made give every metric.
        metric: such as "ndcg@10" or "mrr".
    """
    depth = record.card.get(DEPTH) if record.method == EXTERNAL else None
    k = metric.partition("@")[2]
    return depth is None or (k.isdecimal() and int(k) <= depth)
