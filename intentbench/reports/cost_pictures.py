"""Accuracy against cost, as a picture and a line of a page: which rows does no other one beat?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentbench.reports.columns import short_name
from intentbench.reports.figures import (
    add_panels,
    add_titles,
    label_inches,
    render_svg,
    text_inches,
)
from intentbench.reports.leaderboard import Row, Section
from intentbench.results.record import Cost

FEWEST = 3
"""Rows that make a panel."""

SHORT = 30.0
"""Largest over smallest cost below which decades alone would label an axis too thinly."""

COSTS = {
    "seconds_per_epoch": "training, s an epoch",
    "seconds": "whole trial, s",
    "latency_256": "scoring, ms a user (256 together)",
}
"""Attribute of `Cost` to the heading of its panel."""


@dataclass(frozen=True)
class Point:
    """A row of a panel.

    Attributes:
        number: of the row among the ranked ones, from 1.
        cost: mean over trials, above 0.
        value: the primary metric.
    """

    number: int
    cost: float
    value: float


def cost_points(section: Section) -> dict[str, list[Point]]:
    """The rows of each panel, by attribute of `Cost`; a row without that cost is left out."""
    panels: dict[str, list[Point]] = {}
    for name in COSTS:
        points = [
            Point(number, cost, row.means[section.table.primary])
            for number, row in enumerate(_ranked(section), 1)
            if (cost := mean(_cost(record.cost, name) for record in row.records)) > 0
        ]
        if len(points) >= FEWEST:
            panels[name] = points
    return panels


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Points that no other one beats: none has both no lower value and no higher cost.

    Returns:
        By rising cost. Of equal points all stay.
    """

    def beaten(one: Point) -> bool:
        return any(
            other.value >= one.value
            and other.cost <= one.cost
            and (other.value, other.cost) != (one.value, one.cost)
            for other in points
        )

    return sorted((one for one in points if not beaten(one)), key=lambda one: one.cost)


def costs_line(section: Section) -> str:
    """How to read the picture; "" where there is none."""
    if not cost_points(section):
        return ""
    machines = len(_machines(section))
    place = "one kind of machine" if machines == 1 else f"{machines} kinds of machine"
    return (
        f"Accuracy against cost: {short_name(section.table.primary)} and the means of the cost "
        "table; filled and joined are the rows that no other one beats in both (means, not "
        f"tested). Costs hold for the machines they were measured on, here {place}; times also "
        "depend on what else ran there."
    )


def draw_costs(section: Section) -> bytes:
    """The picture of a section as SVG: primary metric against cost, a panel a cost.

    Rows are numbered by falling metric. The same section gives the same bytes with the same
    matplotlib.
    """
    from matplotlib.figure import Figure

    panels = cost_points(section)
    rows = _ranked(section)
    names = [f"{number}  {row.label}" for number, row in enumerate(rows, 1)]
    width = max(7.0, 1.0 + text_inches(names) + 3.0 * len(panels))
    figure = Figure(figsize=(width, max(3.4, 0.8 + 0.18 * len(rows))))
    margins = (0.8, 0.25 + label_inches(names), 0.3, 0.5)
    axes = add_panels(figure, len(panels), margins, 0.15)
    for axis, (name, points) in zip(axes, panels.items(), strict=True):
        front = pareto_front(points)
        costs, values = [one.cost for one in front], [one.value for one in front]
        axis.step(costs, values, where="post", color="tab:blue", linewidth=1, zorder=1)
        faces = ["tab:blue" if one in front else "white" for one in points]
        places = zip(*((one.cost, one.value) for one in points), strict=True)
        axis.scatter(*places, s=4.5**2, facecolors=faces, edgecolors="tab:blue", linewidths=1)
        axis.margins(0.14)
        _logarithmic(axis, [one.cost for one in points])
        axis.set_xlabel(COSTS[name], fontsize="small")
        axis.tick_params(labelsize="small")
    axes[0].set_ylabel(short_name(section.table.primary))
    # one text of many lines: a legend lays out several boxes a row
    axes[-1].annotate(
        "\n".join(names),
        (1, 0.5),
        (14, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        va="center",
        fontsize="small",
        linespacing=1.25,
    )
    add_titles(
        figure,
        f"{section.table.dataset}: accuracy against cost, as measured on "
        f"{'one kind' if len(_machines(section)) == 1 else 'several kinds'} of machine",
    )
    for axis, points in zip(axes, panels.values(), strict=True):
        _place_numbers(axis, points)
    return render_svg(figure)


def _logarithmic(axis: Any, costs: Sequence[float]) -> None:
    """A logarithmic axis labelled with plain numbers, closer where it is short."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis.set_xscale("log")
    if max(costs) / min(costs) < SHORT:
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(LogLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _place_numbers(axis: Any, points: Sequence[Point]) -> None:
    """Write each row's number near its point, where it covers least of points and numbers."""
    axis.autoscale_view()  # else it waits for the drawing
    scale = 72 / axis.figure.dpi
    spots = [
        tuple(scale * part for part in axis.transData.transform((one.cost, one.value)))
        for one in points
    ]
    taken = np.array([(x, y, 6.0, 6.0) for x, y in spots])
    ways = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)]
    shifts = [(near * x, near * y) for near in (1.0, 1.8, 2.6) for x, y in ways]
    for (x, y), one in zip(spots, points, strict=True):
        width, height = 5.0 * len(str(one.number)) + 1, 8.0
        boxes = np.array(
            [
                (x + (2 + width / 2) * right, y + (1 + height / 2) * up, width, height)
                for right, up in shifts
            ]
        )
        best = boxes[_overlaps(boxes, taken).argmin()]
        taken = np.vstack([taken, best])
        x, y = best[:2] / (72 * axis.figure.get_size_inches())
        style = {"ha": "center", "va": "center", "fontsize": "x-small", "color": "0.25"}
        axis.figure.text(x, y, str(one.number), **style)


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area (N,) that each box (N, 4: centre, width, height) shares with the others (M, 4)."""
    apart = np.abs(boxes[:, None, :2] - others[None, :, :2])
    sides = (boxes[:, None, 2:] + others[None, :, 2:]) / 2 - apart
    shared: NDArray[np.float64] = np.maximum(sides, 0.0).prod(axis=2).sum(axis=1)
    return shared


def _ranked(section: Section) -> list[Row]:
    return [row for row in section.rows if row.ranked]


def _cost(cost: Cost, name: str) -> float:
    value: float = getattr(cost, name)
    return value


def _machines(section: Section) -> set[tuple[str, ...]]:
    """Processors and devices that the ranked rows were measured on."""
    found: list[Mapping[str, Any]] = [
        record.environment for row in _ranked(section) for record in row.records
    ]
    return {tuple(str(place.get(part, "")) for part in ("cpu", "device")) for place in found}
