"""Every row's difference to the reference with its interval, as a picture of a page."""

from typing import Any

from intentbench.reports.columns import FLAGS, percent, short_name
from intentbench.reports.figures import (
    add_panels,
    add_titles,
    draw_differences,
    label_inches,
    label_rows,
    note_rows,
    relative_limits,
    render_svg,
    text_inches,
)
from intentbench.reports.leaderboard import ALPHA, Row, Section
from intentbench.stats.contrast import Contrast, contrast


def draw_intervals(section: Section) -> bytes:
    """The picture of a section as SVG: difference to the reference, a panel a headline metric.

    Rows stand by falling primary metric, coloured by the tier that is printed at the right. The
    same section gives the same bytes with the same matplotlib.
    """
    from matplotlib.figure import Figure

    rows = [row for row in section.rows if row.ranked]
    found_tiers = section.family.tiers if section.family else {}
    tiers = [found_tiers.get(row.label) for row in rows]
    primary = section.table.primary
    metrics = [primary, *(name for name in section.table.headline if name != primary)]
    labels = [_name(section, row) for row in rows]
    notes = [str(tier or "-") for tier in tiers] if any(tiers) else []
    width = 0.8 + text_inches(labels) + 3.0 * len(metrics)
    figure = Figure(figsize=(width, 1.2 + 0.24 * len(rows)))
    right = 0.4 + label_inches(notes) if notes else 0.15
    margins = (0.18 + label_inches(labels), right, 0.5, 0.5)
    axes = add_panels(figure, len(metrics), margins, 0.12)
    colours = ["0.6" if tier is None else f"C{(tier - 1) % 10}" for tier in tiers]
    for axis, metric in zip(axes, metrics, strict=True):
        differences = [difference_in(section, row, metric) for row in rows]
        limits = relative_limits([one for one in differences if one])
        _shade_odd(axis, len(rows))
        draw_differences(axis, differences, limits, colours)
        for place, row in enumerate(rows):
            if row.label == section.reference:
                axis.plot(0, place, "D", color=colours[place], markersize=4.5)
        axis.set_title(short_name(metric), fontsize="medium")
        axis.tick_params(labelsize="small")
    label_rows(axes[0], labels)
    if notes:
        note_rows(axes[-1], notes, f"tier by {short_name(primary)}")
    add_titles(
        figure,
        f"{section.table.dataset}: differences to the reference",
        f"against {section.reference} (◆), % [{percent(1 - ALPHA)}]",
    )
    return render_svg(figure)


def _shade_odd(axis: Any, count: int) -> None:
    """Stripes behind every other row, the panel wide."""
    from matplotlib.collections import PolyCollection

    stripes = [
        [(0, place - 0.5), (1, place - 0.5), (1, place + 0.5), (0, place + 0.5)]
        for place in range(1, count, 2)
    ]
    wide = axis.get_yaxis_transform()
    axis.add_collection(
        PolyCollection(stripes, facecolor="0.96", linewidth=0, zorder=-1, transform=wide)
    )


def difference_in(section: Section, row: Row, metric: str) -> Contrast | None:
    """A ranked row against the reference under a metric; None for the reference itself."""
    if metric == section.table.primary or section.difference(row) is None:
        return section.difference(row)
    other = next(found for found in section.rows if found.label == section.reference)
    if row.cell is None or other.cell is None:
        return None
    return contrast(
        section.table.values(row.cell.ranks, metric),
        section.table.values(other.cell.ranks, metric),
        deterministic_a=row.cell.deterministic,
        deterministic_b=other.cell.deterministic,
        alpha=ALPHA,
    )


def _name(section: Section, row: Row) -> str:
    """The label with the signs that the table has."""
    found = section.difference(row)
    return row.label + "".join(
        sign for note, sign in FLAGS.items() if found is not None and note in found.notes
    )
