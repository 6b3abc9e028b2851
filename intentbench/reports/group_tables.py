"""Groups of users by activity, as a table, a line and a picture of a page."""

from intentbench.reports.columns import EMPTY, Column, code, percent, short_name
from intentbench.reports.figures import render_svg
from intentbench.reports.leaderboard import ALPHA, Section
from intentbench.stats.contrast import Contrast


def groups_picture_name(board: str, dataset: str) -> str:
    """The file of a section's picture, beside the page."""
    return f"{board}.{dataset}.groups.svg"


def group_table(section: Section) -> list[Column]:
    """A column a group: each row's metric there, and its difference to the reference."""
    groups, rows = section.groups, section.grouped
    if groups is None:
        return []
    columns: list[Column] = [("model", [*(code(row.label) for row in rows), "*users*"])]
    for number, (heading, size) in enumerate(zip(groups.headings, groups.sizes, strict=True)):
        cells = [
            f"{row.means[number]:.4f}"
            + (f", {_relative(row.differences[number])}" if row.differences else "")
            for row in rows
        ]
        columns.append((heading, [*cells, f"{size:,}"]))
    return columns


def _relative(found: Contrast) -> str:
    if found.relative is None or found.relative_low is None or found.relative_high is None:
        return EMPTY
    low, high = 100 * found.relative_low, 100 * found.relative_high
    return f"{100 * found.relative:+.1f} [{low:+.1f}, {high:+.1f}]"


def group_line(section: Section) -> str:
    """How to read the table."""
    if section.groups is None:
        return ""
    return (
        "Groups: users with a target by their number of interactions (training, validation and "
        "test), cut so that each group has about the same number of interactions in all; "
        f"{short_name(section.table.primary)}, and its difference to {code(section.reference)} in "
        f"the same users in % with its {percent(1 - ALPHA)} interval (not corrected)."
    )


def draw_groups(section: Section) -> bytes:
    """The picture of a section as SVG: the difference to the reference, a panel a group.

    The same section gives the same bytes with the same matplotlib.
    """
    from matplotlib.figure import Figure

    groups = section.groups
    if groups is None:
        raise ValueError(f"{section.table.dataset}: has no groups to draw")
    rows = [row for row in section.grouped if row.differences]
    panels = len(groups.sizes)
    figure = Figure(figsize=(1.6 + 2.3 * panels, 1.3 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharex=True, sharey=True)[0]
    for number, axis in enumerate(axes):
        for place, row in enumerate(rows):
            found = row.differences[number] if row.differences else None
            if found is None or found.relative is None:
                continue
            if found.relative_low is not None and found.relative_high is not None:
                ends = 100 * found.relative_low, 100 * found.relative_high
                axis.plot(ends, (place, place), color="0.35", linewidth=1.4)
            axis.plot(100 * found.relative, place, "o", color="tab:blue", markersize=4)
        axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        title = f"{groups.headings[number]}\n{groups.sizes[number]:,} users"
        axis.set_title(title, fontsize="small")
    axes[0].set_yticks(range(len(rows)), [row.label for row in rows], fontsize="small")
    axes[0].invert_yaxis()
    name = short_name(section.table.primary)
    figure.supxlabel(f"{name} against {section.reference}, %", fontsize="small")
    figure.suptitle(f"{section.table.dataset}: users by interactions", fontsize="medium")
    return render_svg(figure)
