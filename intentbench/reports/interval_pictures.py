"""Every row's difference to the reference with its interval, as a picture of a page."""

from intentbench.reports.columns import FLAGS, percent, short_name
from intentbench.reports.figures import draw_interval, relative_limits, render_svg, text_inches
from intentbench.reports.leaderboard import ALPHA, Row, Section
from intentbench.stats.contrast import Contrast, contrast


def draw_intervals(section: Section) -> bytes:
    """The picture of a section as SVG: difference to the reference, a panel a headline metric.

    Rows stand by falling primary metric, coloured by the tier that is printed at the right. The
    same section gives the same bytes with the same matplotlib.
    """
    from matplotlib.figure import Figure

    rows = [row for row in section.rows if row.ranked]
    found_tiers = section.family.tiers() if section.family else {}
    tiers = [found_tiers.get(row.label) for row in rows]
    primary = section.table.primary
    metrics = [primary, *(name for name in section.table.headline if name != primary)]
    labels = [_name(section, row) for row in rows]
    width = 0.8 + text_inches(labels) + 3.0 * len(metrics)
    figure = Figure(figsize=(width, 1.25 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        differences = [difference_in(section, row, metric) for row in rows]
        limits = relative_limits([one for one in differences if one])
        axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        for place, (one, tier) in enumerate(zip(differences, tiers, strict=True)):
            colour = "0.6" if tier is None else f"C{(tier - 1) % 10}"
            if place % 2:
                axis.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=-1, linewidth=0)
            if one is not None:
                draw_interval(axis, place, one, limits, colour)
            elif rows[place].label == section.reference:
                axis.plot(0, place, "D", color=colour, markersize=4.5)
        axis.set_xlim(limits)
        axis.set_title(short_name(metric), fontsize="medium")
        axis.tick_params(labelsize="small")
    axes[0].set_yticks(range(len(rows)), labels, fontsize="small")
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    if any(tiers):
        right = axes[-1].secondary_yaxis("right")
        right.set_yticks(range(len(rows)), [str(tier or "-") for tier in tiers], fontsize="small")
        right.tick_params(length=0)
        right.set_ylabel(f"tier by {short_name(primary)}", fontsize="small")
    level = percent(1 - ALPHA)
    figure.supxlabel(f"against {section.reference} (◆), % [{level}]", fontsize="small")
    figure.suptitle(f"{section.table.dataset}: differences to the reference", fontsize="medium")
    return render_svg(figure)


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
