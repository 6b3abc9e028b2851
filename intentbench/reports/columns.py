"""Columns of a table: one producer each, its output checked.

A producer takes a section and gives a heading and one text a row. Another column is another
producer in `accuracy_columns`, `published_columns` or `COST`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from intentbench.reports.leaderboard import ALPHA, Row, Section
from intentbench.results.printable import printable
from intentbench.stats.contrast import BORROWED, USERS_ONLY, Contrast

Column = tuple[str, list[str]]
Producer = Callable[[Section], Column]

EMPTY = "-"

FLAGS = {BORROWED: "†", USERS_ONLY: "‡"}
"""Signs of what a reader must know of a difference."""

OWN_TEXTS = "§"
"""Sign of a published figure of a row that has read texts: its source had its own."""

_SHORT = {"hit_rate": "HR", "recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}


def produce(section: Section, producers: Sequence[Producer]) -> list[Column]:
    """The columns of a table.

    Raises:
        ValueError: a producer gave other than one line of text a row.
    """
    columns = []
    for producer in producers:
        heading, cells = producer(section)
        if len(cells) != len(section.rows):
            raise ValueError(f"column {heading!r}: {len(cells)} cells, {len(section.rows)} rows")
        for cell in cells:
            if not isinstance(cell, str) or not cell or "\n" in cell or "|" in cell:
                raise ValueError(f"column {heading!r}: {cell!r} is no cell of a table")
        columns.append((heading, cells))
    return columns


def short_name(metric: str) -> str:
    """A metric as printed.

    >>> short_name("hit_rate@10"), short_name("mrr")
    ('HR@10', 'MRR')
    """
    formula, at, k = metric.partition("@")
    return _SHORT.get(formula, formula) + at + k


def short_names(metrics: Iterable[str]) -> str:
    """Metrics as printed in a line that is about several tables.

    >>> short_names(["ndcg@10", "recall@20"])
    'NDCG@10 or Recall@20'
    """
    return " or ".join(map(short_name, metrics))


def percent(share: float, digits: int = 0) -> str:
    """A share as printed.

    >>> percent(0.05)
    '5 %'
    """
    return f"{100 * share:.{digits}f} %"


def code(text: str) -> str:
    """A name or message as code, safe inside a table."""
    return "`" + printable(text).replace("`", "'").replace("|", "¦") + "`"


def row_name(section: Section) -> Column:
    """The label; the ceiling in words."""
    return "model", [
        f"*{code(row.label)} (ceiling)*" if row.ceiling else code(row.label) for row in section.rows
    ]


def seeds(section: Section) -> Column:
    """Seeds done, of those asked for where some are missing."""
    return "seeds", [
        str(len(row.records)) if row.complete else f"{len(row.records)}/{row.wanted}"
        for row in section.rows
    ]


def accuracy(metric: str) -> Producer:
    """A producer of mean ± standard deviation over seeds, best bold, second underlined.

    Under the primary metric, the best carries its mark against the second.
    """

    def produce_metric(section: Section) -> Column:
        family = section.family if metric == section.table.primary else None
        means = sorted({row.means[metric] for row in section.rows if row.ranked}, reverse=True)
        cells = []
        for row in section.rows:
            if not row.means:
                cells.append(EMPTY)
                continue
            value, deviation = row.means[metric], row.deviations[metric]
            text = f"{value:.4f}"
            if row.ranked and value == means[0]:
                text = f"**{text}**"
            elif row.ranked and len(means) > 1 and value == means[1]:
                text = f"<ins>{text}</ins>"
            spread = "" if deviation is None else f"± {deviation:.4f}"
            mark = _escaped(family.lead) if family and row.label == family.labels[0] else ""
            cells.append(" ".join(part for part in (text, spread, mark) if part))
        return short_name(metric), cells

    return produce_metric


def _escaped(mark: str) -> str:
    """A mark as Markdown prints it."""
    return mark.replace("~", r"\~")


def tier(section: Section) -> Column:
    """Shared rank by the primary metric."""
    tiers = section.family.tiers if section.family else {}
    return "tier", [str(tiers.get(row.label) or EMPTY) for row in section.rows]


def difference(section: Section) -> Column:
    """Relative difference to the reference with its interval, and the mark."""
    name = short_name(section.table.primary)
    heading = f"{name} against {code(section.reference)}, % [{percent(1 - ALPHA)}]"
    return heading, [_difference(section, row) for row in section.rows]


def _difference(section: Section, row: Row) -> str:
    contrast = section.difference(row)
    if section.family is None or contrast is None:
        return "reference" if row.ranked and len(section.rows) > 1 else EMPTY
    mark = _escaped(section.family.mark(row.label, section.reference))
    return " ".join(part for part in (interval(contrast), mark + flags(contrast)) if part)


def interval(contrast: Contrast, unit: str = "") -> str:
    """A relative difference in % with its interval; the absolute one where there is no such.

    Args:
        contrast: of two rows.
        unit: what follows relative figures.
    """
    if contrast.relative is None or contrast.relative_low is None or contrast.relative_high is None:
        return f"{contrast.est:+.4f} [{contrast.low:+.4f}, {contrast.high:+.4f}] absolute"
    low, high = (100 * end for end in (contrast.relative_low, contrast.relative_high))
    return f"{100 * contrast.relative:+.1f} [{low:+.1f}, {high:+.1f}]{unit}"


def flags(contrast: Contrast) -> str:
    """Signs of what a reader must know of a difference."""
    return "".join(flag for note, flag in FLAGS.items() if note in contrast.notes)


def users(section: Section) -> Column:
    """Share of users for whom the row beats, equals and loses to the reference."""
    cells = []
    for row in section.rows:
        if section.family is None or section.difference(row) is None:
            cells.append(EMPTY)
            continue
        effect = section.family.effects[row.label, section.reference]
        parts = (effect.won, effect.tied, effect.lost)
        cells.append(" / ".join(f"{100 * part / sum(parts):.0f}" for part in parts))
    return "users won / tied / lost, %", cells


def published(metric: str) -> Producer:
    """A producer of the published figure and how far the measured one is from it."""

    def produce_metric(section: Section) -> Column:
        cells = []
        for row in section.rows:
            figure = row.published.get(metric)
            if figure is None:
                cells.append(EMPTY)
                continue
            value, sign = figure["value"], f" {OWN_TEXTS}" if row.own_texts else ""
            cells.append(f"{value:.4f} ({100 * (row.means[metric] / value - 1):+.1f} %){sign}")
        return f"published {short_name(metric)}", cells

    return produce_metric


def cost(heading: str, read: Callable[[Row], float], digits: int = 0) -> Producer:
    """A producer of a cost; 0 is printed as nothing to report."""

    def produce_cost(section: Section) -> Column:
        values = [read(row) if row.records else 0.0 for row in section.rows]
        return heading, [f"{value:,.{digits}f}" if value else EMPTY for value in values]

    return produce_cost


def accuracy_columns(section: Section) -> list[Column]:
    """How well: always shown. MRR stands in the files beside the page."""
    metrics = [accuracy(metric) for metric in section.table.metrics if metric != "mrr"]
    # Tiers need all pairs.
    ranks = (tier,) if section.family is None or section.family.reference is None else ()
    return produce(section, (row_name, *metrics, seeds, *ranks, difference, users))


def published_columns(section: Section) -> list[Column]:
    """What others measured: shown where there is anything."""
    return produce(section, [published(metric) for metric in section.table.headline])


def tuning(section: Section) -> Column:
    """What the search cost that chose the arguments, or what they are instead."""
    return "arguments", [_tuning(row.tuning) for row in section.rows]


def _tuning(found: Mapping[str, Any]) -> str:
    search = found.get("search")
    if search is None:
        return str(found.get("instead", EMPTY))
    failed = f", {search['failed']} failed" if search["failed"] else ""
    return f"tuned: {search['trials']} trials, {search['pruned']} pruned{failed}, " + (
        f"{search['seconds']:,.0f} s"
    )


COST: tuple[Producer, ...] = (
    row_name,
    cost("parameters", lambda row: row.records[0].cost.parameters),
    cost("epochs", lambda row: mean(r.cost.epochs for r in row.records), 1),
    cost("s / epoch", lambda row: mean(r.cost.seconds_per_epoch for r in row.records), 2),
    cost("total s", lambda row: mean(r.cost.seconds for r in row.records), 1),
    cost("ms / user, batch 1", lambda row: mean(r.cost.latency_1 for r in row.records), 2),
    cost("ms / user, batch 256", lambda row: mean(r.cost.latency_256 for r in row.records), 3),
    cost("peak MiB", lambda row: max(r.cost.peak_memory_mb for r in row.records)),
    cost("peak device MiB", lambda row: max(r.cost.peak_device_memory_mb for r in row.records)),
    tuning,
)
"""At what price: shown where there is anything."""
