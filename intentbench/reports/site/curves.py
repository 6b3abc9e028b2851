"""Learning curves of a method's trials, small and beside one another."""

from collections.abc import Iterable
from dataclasses import dataclass

from intentbench.reports.columns import short_name
from intentbench.results.record import TrialRecord

WIDTH, HEIGHT = 240, 90
"""Of a picture, in units of its own."""


@dataclass(frozen=True)
class Curves:
    """The validations of one row, a line a seed.

    Attributes:
        dataset: catalogue key.
        label: of the row.
        metric: that was monitored, as printed.
        epochs: the last epoch of any seed.
        low: the lowest value of any seed.
        high: the highest.
        lines: points of each seed's line, as SVG has them.
    """

    dataset: str
    label: str
    metric: str
    epochs: int
    low: float
    high: float
    lines: tuple[str, ...]


def find_curves(records: Iterable[TrialRecord]) -> list[Curves]:
    """The curves of every row that has some, by dataset and label."""
    rows: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in records:
        if record.curve:
            rows.setdefault((record.dataset, record.label), []).append(record)
    return [_curves(found) for _, found in sorted(rows.items())]


def _curves(records: list[TrialRecord]) -> Curves:
    first = records[0]
    values = [value for record in records for value in record.curve]
    low, high = min(values), max(values)
    step = int(first.training.get("validate_every", 1))
    longest = max(len(record.curve) for record in records)
    lines = []
    for record in sorted(records, key=lambda record: record.seed):
        points = [
            f"{WIDTH * (n + 1) / longest:.1f},{_height(value, low, high):.1f}"
            for n, value in enumerate(record.curve)
        ]
        lines.append(" ".join(points))
    metric = short_name(str(first.training.get("monitor", "monitored metric")))
    return Curves(first.dataset, first.label, metric, step * longest, low, high, tuple(lines))


def _height(value: float, low: float, high: float) -> float:
    """Of a point, from above."""
    return HEIGHT * (high - value) / (high - low) if high > low else HEIGHT / 2
