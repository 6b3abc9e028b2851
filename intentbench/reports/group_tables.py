"""Groups of users by activity, and of targets by popularity, on a page: table, line and picture."""

from collections.abc import Sequence

from intentbench.reports.columns import EMPTY, Column, code, interval, percent, short_name
from intentbench.reports.figures import (
    add_panels,
    add_titles,
    draw_differences,
    label_inches,
    label_rows,
    relative_limits,
    render_svg,
    text_inches,
)
from intentbench.reports.groups import GroupedRow, Groups
from intentbench.reports.leaderboard import ALPHA, Section
from intentbench.stats.contrast import Contrast


def group_table(section: Section) -> list[Column]:
    """A column a group: each row's metric there, and its difference to the reference."""
    return _table(section.groups, section.grouped, "users") if section.groups else []


def group_line(section: Section) -> str:
    """How to read the table."""
    if section.groups is None:
        return ""
    cut = "so that each group has about the same number of interactions in all"
    return (
        "Groups: users with a target by their number of interactions (training, validation and "
        f"test), cut {'where the benchmark says' if section.groups.named else cut}; "
        f"{_measure(section)} in the same users in % with its {percent(1 - ALPHA)} interval (not "
        "corrected)."
    )


def draw_groups(section: Section) -> bytes:
    """The picture of a section as SVG: the difference to the reference, a panel a group.

    The same section gives the same bytes with the same matplotlib.

    Raises:
        ValueError: the section has no groups.
    """
    if section.groups is None:
        raise ValueError(f"{section.table.dataset}: has no groups to draw")
    title = "users by number of interactions"
    return _draw(section, section.groups, section.grouped, title, "users")


def popularity_table(section: Section) -> list[Column]:
    """A column a group of targets: each row's metric there, and its difference to the reference."""
    groups = section.target_groups
    return _table(groups, section.target_grouped, "targets") if groups else []


def popularity_line(section: Section) -> str:
    """How to read the table of targets."""
    if section.target_groups is None:
        return ""
    return (
        "Groups of targets: by the number of training interactions of their item, cut so that each "
        f"group has about as many targets; {_measure(section)} over users by their targets in the "
        f"group alone, in % with its {percent(1 - ALPHA)} interval (not corrected). Ranks stay "
        "those in the whole catalogue."
    )


def draw_popularity(section: Section) -> bytes:
    """The picture of groups of targets as SVG, otherwise as `draw_groups`.

    Raises:
        ValueError: the section has no groups of targets.
    """
    if section.target_groups is None:
        raise ValueError(f"{section.table.dataset}: has no groups of targets to draw")
    title = "targets by training interactions of their item"
    return _draw(section, section.target_groups, section.target_grouped, title, "targets")


def _measure(section: Section) -> str:
    return f"{short_name(section.table.primary)}, and its difference to {code(section.reference)}"


def _table(groups: Groups, rows: Sequence[GroupedRow], unit: str) -> list[Column]:
    columns: list[Column] = [("model", [*(code(row.label) for row in rows), f"*{unit}*"])]
    for number, (heading, size) in enumerate(zip(groups.headings, groups.sizes, strict=True)):
        cells = [
            f"{row.means[number]:.4f}"
            + (f", {_relative(row.differences[number])}" if row.differences else "")
            for row in rows
        ]
        columns.append((heading, [*cells, f"{size:,}"]))
    return columns


def _relative(found: Contrast) -> str:
    known = (found.relative, found.relative_low, found.relative_high)
    return EMPTY if None in known else interval(found)


def _draw(
    section: Section, groups: Groups, grouped: Sequence[GroupedRow], title: str, unit: str
) -> bytes:
    from matplotlib.figure import Figure

    rows = {row.label: row.differences for row in grouped if row.differences}
    limits = relative_limits([one for differences in rows.values() for one in differences])
    panels = len(groups.sizes)
    width = max(5.5, 0.5 + text_inches(rows) + 2.2 * panels)
    figure = Figure(figsize=(width, 1.4 + 0.24 * len(rows)))
    margins = (0.18 + label_inches(rows), 0.2, 0.62, 0.5)
    axes = add_panels(figure, panels, margins, 0.2)
    for number, axis in enumerate(axes):
        found = [differences[number] for differences in rows.values()]
        draw_differences(axis, found, limits, ["tab:blue"] * len(found))
        axis.set_title(
            f"{groups.headings[number]}\n{groups.sizes[number]:,} {unit}", fontsize="small"
        )
        axis.tick_params(labelsize="small")
    label_rows(axes[0], list(rows))
    name, level = short_name(section.table.primary), percent(1 - ALPHA)
    below = f"{name} against {section.reference}, % [{level}]"
    add_titles(figure, f"{section.table.dataset}: {title}", below)
    return render_svg(figure)
