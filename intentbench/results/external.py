"""Rows that another system made: their results were imported, nothing here was run."""

from collections.abc import Iterable

from datamodules.errors import RequestError
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


def require_metric(records: Iterable[TrialRecord], metric: str) -> None:
    """Refuse a metric that the stored ranks of a trial do not give exactly.

    Args:
        records: of any trials.
        metric: as of `gives_metric`.

    Raises:
        RequestError: a trial was imported from lists that are too short.
    """
    for record in records:
        if not gives_metric(record, metric):
            raise RequestError(
                f"{record.dataset}: {record.label} was imported from lists that are too short to "
                f"give {metric}"
            )
