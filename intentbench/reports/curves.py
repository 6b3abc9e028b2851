"""The monitored metric over the epochs of each trial, as a picture and a line of a page."""

import math
from textwrap import fill
from typing import Any

from intentbench.reports.columns import short_name, short_names
from intentbench.reports.figures import render_svg
from intentbench.reports.leaderboard import Row, Section
from intentbench.results.record import TrialRecord

PANELS = 4
"""Panels beside one another."""

WIDEST = 30
"""Characters of a heading beside another."""


def has_curves(section: Section) -> bool:
    """Whether a trial has a curve."""
    return bool(_rows(section))


def curves_line(section: Section) -> str:
    """How to read the picture; "" where there is none."""
    if not has_curves(section):
        return ""
    names = short_names(dict.fromkeys(_monitor(row) for row in _rows(section)))
    return (
        f"Learning curves: {names} on the validation targets after each epoch that was validated, "
        "a line a seed; the dot is the epoch that was tested. Grey: the reference. Rows without "
        "epochs, and trials from before curves were recorded, have none."
    )


def draw_curves(section: Section) -> bytes:
    """The picture of a section as SVG: validation metric against epoch, a panel a row.

    The same section gives the same bytes with the same matplotlib.
    """
    from matplotlib.figure import Figure

    rows = _rows(section)
    monitors = list(dict.fromkeys(_monitor(row) for row in rows))
    reference = [row for row in rows if row.label == section.reference]
    across = min(len(rows), PANELS)
    down = math.ceil(len(rows) / across)
    figure = Figure(figsize=(0.7 + 2.5 * across, 0.9 + 1.6 * down), layout="constrained")
    alike = len(monitors) == 1
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=alike).flatten()
    for number, (axis, row) in enumerate(zip(axes, rows, strict=False)):
        for other in reference:
            if other is not row and _monitor(other) == _monitor(row):
                _draw(axis, other.records, color="0.75", linewidth=0.7)
        _draw(axis, row.records, dot=True, color="tab:blue", linewidth=0.8)
        metric = "" if alike else f"\n{short_name(_monitor(row))}"
        axis.set_title(fill(row.label, WIDEST) + metric, fontsize="small")
        axis.tick_params(labelsize="small", labelbottom=number + across >= len(rows))
    for axis in axes[len(rows) :]:
        axis.remove()
    figure.supylabel(
        f"validation {short_names(monitors)}" if alike else "validation metric", fontsize="small"
    )
    figure.supxlabel("epoch", fontsize="small")
    figure.suptitle(f"{section.table.dataset}: learning curves", fontsize="medium")
    return render_svg(figure)


def _rows(section: Section) -> list[Row]:
    return [
        row for row in section.rows if row.ranked and any(record.curve for record in row.records)
    ]


def _monitor(row: Row) -> str:
    return str(row.records[0].training.get("monitor", ""))


def _draw(axis: Any, records: tuple[TrialRecord, ...], dot: bool = False, **of: Any) -> None:
    """A line a trial, and a dot at its best epoch."""
    for record in records:
        step = int(record.training.get("validate_every", 1))
        epochs = [step * (number + 1) for number in range(len(record.curve))]
        axis.plot(epochs, record.curve, **of)
        if dot and record.best_epoch + 1 in epochs:
            best = epochs.index(record.best_epoch + 1)
            axis.plot(epochs[best], record.curve[best], "o", color=of["color"], markersize=3)
