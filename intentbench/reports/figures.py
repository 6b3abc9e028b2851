"""What the pictures of a page share: how a figure becomes SVG, and how an interval is drawn."""

import io
from collections.abc import Collection, Sequence
from functools import cache
from math import inf
from typing import Any

from intentbench.stats.contrast import Contrast, find_relative_ends

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


def add_panels(
    figure: Any, count: int, margins: tuple[float, float, float, float], gap: float
) -> list[Any]:
    """Panels beside one another that share their rows.

    With a known frame no layout has to be searched for, which takes as long as drawing.

    Args:
        figure: of matplotlib.
        count: of panels.
        margins: inches at the left, right, top and bottom.
        gap: inches between panels.
    """
    width, height = figure.get_size_inches()
    left, right, top, bottom = margins
    panel = (width - left - right - gap * (count - 1)) / count
    frame = {
        "left": left / width,
        "right": 1 - right / width,
        "top": 1 - top / height,
        "bottom": bottom / height,
        "wspace": gap / panel,
    }
    axes = figure.subplots(1, count, squeeze=False, sharey=True, gridspec_kw=frame)
    return list(axes[0])


def add_titles(figure: Any, above: str, below: str = "") -> None:
    """Titles of all panels, as far from the edges whatever the height."""
    height = figure.get_size_inches()[1]
    figure.suptitle(above, y=1 - 0.06 / height, fontsize="medium")
    if below:
        figure.supxlabel(below, y=0.05 / height, fontsize="small")


def relative_limits(differences: Collection[Contrast]) -> tuple[float, float]:
    """Ends of an axis of relative differences, in %, 0 included.

    Where at least half of the estimates lie within one of `FAR`, those that are farther off do not
    stretch the axis, and neither does what an interval has beyond twice that.
    """
    known = [one for one in differences if one.relative is not None]
    find_relative_ends(known)
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


def draw_differences(
    axis: Any,
    differences: Sequence[Contrast | None],
    limits: tuple[float, float],
    colours: Sequence[str],
) -> None:
    """Relative differences in % with their intervals, a row each; an artist a kind, not a row.

    An arrow stands for what an interval has beyond the edge; a row that lies there itself stands at
    the edge with its figure.

    Args:
        axis: of matplotlib.
        differences: one without a ratio is not drawn, one without an interval is hollow.
        limits: ends of the axis.
        colours: of the points.
    """
    axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.set_xlim(limits)
    dots, faces, ends = [], [], []
    for place, (one, colour) in enumerate(zip(differences, colours, strict=True)):
        if one is None or one.relative is None:
            continue
        value = 100 * one.relative
        if not _within(one, limits):
            _beyond(axis, place, value, limits, colour)
            continue
        dots.append((value, place, colour))
        if one.relative_low is None or one.relative_high is None:
            faces.append("white")
        else:
            faces.append(colour)
            ends.append((place, 100 * one.relative_low, 100 * one.relative_high))
    if ends:
        axis.hlines(*zip(*ends, strict=True), linewidth=1.4, color=SHADE, zorder=2)
    cut = [(limits[0], place, "<") for place, low, _ in ends if low < limits[0]]
    cut += [(limits[1], place, ">") for place, _, high in ends if high > limits[1]]
    for edge, place, mark in cut:
        axis.plot(edge, place, mark, color=SHADE, markersize=4, clip_on=False)
    if dots:
        values, places, edges = zip(*dots, strict=True)
        style = {"s": 4**2, "linewidths": 1, "zorder": 3}
        axis.scatter(values, places, facecolors=faces, edgecolors=edges, **style)


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


def label_rows(axis: Any, labels: Sequence[str]) -> None:
    """Names at the left of a panel, the first row at the top.

    They are plain texts: a tick a row, in every panel that shares the axis, takes most of the time
    of a picture.
    """
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_yticks([])
    _beside(axis, labels, 0, -6, ha="right")


def note_rows(axis: Any, notes: Sequence[str], heading: str) -> None:
    """A short note at the right of each row, and beside them what they are."""
    _beside(axis, notes, 1, 6, ha="left")
    shift = 12 + 72 * label_inches(notes)
    axis.annotate(
        heading,
        (1, 0.5),
        (shift, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        rotation="vertical",
        va="center",
        fontsize="small",
    )


def _beside(axis: Any, texts: Sequence[str], edge: int, points: float, ha: str) -> None:
    """Write a text a row, so many points from the left (0) or right (1) edge of a panel."""
    from matplotlib.transforms import ScaledTranslation

    shift = ScaledTranslation(points / 72, 0, axis.figure.dpi_scale_trans)
    style = {"transform": axis.get_yaxis_transform() + shift, "ha": ha, "va": "center"}
    for place, text in enumerate(texts):
        axis.text(edge, place, text, fontsize="small", **style)


def text_inches(labels: Collection[str]) -> float:
    """About how wide the longest of some labels in small letters is."""
    return 0.085 * max(map(len, labels), default=0)


def label_inches(labels: Collection[str]) -> float:
    """How wide the widest of some labels in small letters is."""
    return max(map(_inches, labels), default=0.0)


@cache
def _inches(label: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    small = FontProperties(size="small")
    return float(text_to_path.get_text_width_height_descent(label, small, False)[0]) / 72
