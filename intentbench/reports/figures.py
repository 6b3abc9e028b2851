"""What the pictures of a page share: how a figure becomes SVG, and how an interval is drawn."""

import io
from collections.abc import Collection
from math import inf
from typing import Any

from intentbench.stats.contrast import Contrast

FAR = (30.0, 100.0)
"""Relative differences, in %: beyond the first that holds half of the rows, others stand at the
edge."""

SHADE = "0.35"
"""Of intervals and figures."""


def picture_name(board: str, dataset: str, kind: str) -> str:
    """The file of a dataset's picture, beside the page."""
    return f"{board}.{dataset}.{kind}.svg"


def lay_out(figure: Any) -> None:
    """Give all parts of a figure their final places.

    Saving would do so too, but in a drawing of its own that is thrown away.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def render_svg(figure: Any) -> bytes:
    """A matplotlib figure as SVG; the same figure gives the same bytes with the same matplotlib."""
    import matplotlib as mpl

    lay_out(figure)
    buffer = io.BytesIO()
    # text stays text, ids do not depend on the run
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "intentbench"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "intentbench"})
    return buffer.getvalue()


def relative_limits(differences: Collection[Contrast]) -> tuple[float, float]:
    """Ends of an axis of relative differences, in %, 0 included.

    Where at least half of the estimates lie within one of `FAR`, those that are farther off do not
    stretch the axis, and neither does what an interval has beyond twice that.
    """
    known = [one for one in differences if one.relative is not None]
    for far in FAR:
        near = [one for one in known if abs(100 * (one.relative or 0.0)) <= far]
        while 2 * len(near) >= len(known):
            limits = _around(near, 2 * far)
            inside = [one for one in known if _within(one, limits)]
            if len(inside) == len(near):
                return limits
            near = inside  # whoever stands inside after all is drawn with the whole interval
    return _around(known)


def _around(differences: Collection[Contrast], farthest: float = inf) -> tuple[float, float]:
    ends = [0.0]
    for one in differences:
        found = (one.relative_low, one.relative_high)
        ends += [min(max(100 * end, -farthest), farthest) for end in found if end is not None]
        ends += [100 * one.relative] if one.relative is not None else []
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    return min(ends) - margin, max(ends) + margin


def _within(one: Contrast, limits: tuple[float, float]) -> bool:
    return one.relative is not None and limits[0] <= 100 * one.relative <= limits[1]


def draw_interval(
    axis: Any, place: int, found: Contrast, limits: tuple[float, float], colour: str
) -> None:
    """A relative difference in % with its interval; an arrow stands for what lies beyond the edge.

    Args:
        axis: of matplotlib.
        place: height of the row.
        found: the difference; one without a ratio is not drawn, without an interval it is hollow.
        limits: ends of the axis. A row beyond them stands at the edge with its figure.
        colour: of the point.
    """
    if found.relative is None:
        return
    value = 100 * found.relative
    if not _within(found, limits):
        _beyond(axis, place, value, limits, colour)
        return
    face = "white"
    if found.relative_low is not None and found.relative_high is not None:
        face = colour
        ends = [100 * found.relative_low, 100 * found.relative_high]
        axis.plot(ends, (place, place), linewidth=1.4, color=SHADE, zorder=2)
        for end, edge, mark in zip(ends, limits, "<>", strict=True):
            if not limits[0] <= end <= limits[1]:
                axis.plot(edge, place, mark, color=SHADE, markersize=4, clip_on=False)
    axis.plot(value, place, "o", markersize=4, zorder=3, color=colour, markerfacecolor=face)


def _beyond(axis: Any, place: int, value: float, limits: tuple[float, float], colour: str) -> None:
    """An arrow at the edge with the figure."""
    left = value < limits[0]
    edge, mark, shift, side = (limits[0], "<", 6, "left") if left else (limits[1], ">", -6, "right")
    axis.plot(edge, place, mark, markersize=5, color=colour, clip_on=False)
    axis.annotate(
        f"{value:+.0f}".replace("-", "\N{MINUS SIGN}"),
        (edge, place),
        (shift, 0),
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize="x-small",
        color=SHADE,
    )


def text_inches(labels: Collection[str]) -> float:
    """About how wide the longest of some labels in small letters is."""
    return 0.085 * max(map(len, labels), default=0)
