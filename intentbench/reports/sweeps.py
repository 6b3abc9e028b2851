"""Rows of a section that differ in one number alone: its effect, as a picture and a line of a page.

Nothing asks for them: where a benchmark has such rows, its page has the picture.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from intentbench.reports.columns import code, short_name
from intentbench.reports.figures import render_svg
from intentbench.reports.leaderboard import Section
from intentbench.results.record import TrialRecord

FEWEST = 3
"""Rows that make a sweep."""

WIDE = 20.0
"""Largest over smallest value from which an axis is logarithmic."""

UNSAID = {"added_pairs": 0.0}
"""Of the data module, where a record does not name it."""

PANELS = 4
"""Panels beside one another."""


@dataclass(frozen=True)
class Point:
    """A row of a sweep.

    Attributes:
        value: of the argument.
        label: of the row.
        mean: the section's primary metric, over seeds and users.
        deviation: its standard deviation over seeds; None with one seed.
    """

    value: float
    label: str
    mean: float
    deviation: float | None

    @property
    def ends(self) -> tuple[float, float]:
        """Of the band: mean ± one standard deviation."""
        spread = self.deviation or 0.0
        return self.mean - spread, self.mean + spread


@dataclass(frozen=True)
class Sweep:
    """Rows of one method that differ in one argument.

    Attributes:
        argument: its name.
        method: key of the method.
        points: by rising value, no value twice.
        others: all other arguments, which its rows share.
    """

    argument: str
    method: str
    points: tuple[Point, ...]
    others: Mapping[str, Any]

    @property
    def positive(self) -> list[float]:
        """Its values but for 0; empty where one is negative."""
        values = [point.value for point in self.points if point.value]
        return values if min(values) > 0 else []

    @property
    def logarithmic(self) -> bool:
        """Whether its values span a range that a linear axis would crowd at one end."""
        some = self.positive
        return bool(some) and max(some) / min(some) > WIDE * (1 - 1e-9)  # 0.01 / 0.0005 is one


def find_sweeps(section: Section) -> tuple[Sweep, ...]:
    """Every set of at least `FEWEST` ranked rows that differ from one another in one number.

    It is an argument of the method, or of its data module: `data.added_pairs`. Their method,
    training and all other arguments are equal. A mapping counts as one argument, which is no
    number. Of rows with all arguments equal the reference stands for the others, or else the best.

    Returns:
        By name of the argument, then by the label of the first row.
    """
    alike: dict[tuple[str, str, str], dict[float, Point]] = {}
    others: dict[str, dict[str, Any]] = {}
    ranked = sorted(
        (row for row in section.rows if row.ranked), key=lambda row: row.label != section.reference
    )
    metric = section.table.primary
    for row in ranked:
        record = row.records[0]
        given = _given(record)
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            rest = {key: other for key, other in given.items() if key != name}
            same = json.dumps([rest, record.training], sort_keys=True)
            others[same] = rest
            point = Point(float(value), row.label, row.means[metric], row.deviations[metric])
            alike.setdefault((name, record.method, same), {}).setdefault(point.value, point)
    found = [
        Sweep(name, method, tuple(points[value] for value in sorted(points)), others[same])
        for (name, method, same), points in alike.items()
        if len(points) >= FEWEST
    ]
    return tuple(sorted(found, key=lambda sweep: (sweep.argument, sweep.points[0].label)))


def _given(record: TrialRecord) -> dict[str, Any]:
    """Arguments of the method, and behind "data." those of its data module."""
    data = {**UNSAID, **record.data}
    return {**record.arguments, **{f"data.{name}": value for name, value in data.items()}}


def sweep_line(section: Section) -> str:
    """Which arguments the picture shows, and how to read it; "" where there is none."""
    sweeps = find_sweeps(section)
    if not sweeps:
        return ""
    named = dict.fromkeys(f"{code(sweep.argument)} of {code(sweep.method)}" for sweep in sweeps)
    return (
        f"Rows that differ in one argument alone: {', '.join(named)}. "
        f"{short_name(section.table.primary)}, mean ± one standard deviation over seeds; the ring "
        f"and the dashed line are {code(section.reference)}."
    )


def draw_sweeps(section: Section) -> bytes:
    """The picture of a section as SVG: metric against value, a panel an argument.

    The same section gives the same bytes with the same matplotlib.
    """
    from matplotlib.figure import Figure

    panels: dict[str, list[Sweep]] = {}
    for sweep in find_sweeps(section):
        panels.setdefault(sweep.argument, []).append(sweep)
    across = min(len(panels), PANELS)
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(0.6 + 3.1 * across, 0.5 + 2.9 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True).flatten()
    for axis, (argument, sweeps) in zip(axes, panels.items(), strict=False):
        _panel(axis, sweeps, section)
        axis.set_xlabel(argument)
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis in axes[: len(panels) : across]:
        axis.set_ylabel(short_name(section.table.primary))
    figure.suptitle(f"{section.table.dataset}: one argument at a time", fontsize="medium")
    return render_svg(figure)


def _panel(axis: Any, sweeps: list[Sweep], section: Section) -> None:
    """Draw the sweeps of one argument, a line each."""
    row = next(row for row in section.rows if row.label == section.reference)
    axis.axhline(row.means[section.table.primary], color="0.6", linewidth=0.9, linestyle="--")
    positive = [value for sweep in sweeps for value in sweep.positive]
    apart = all(sweep.logarithmic for sweep in sweeps)
    # where 0 stands on a logarithmic axis: to the left of all, the further the wider it is
    zero = min(positive) / max(3.0, (max(positive) / min(positive)) ** 0.3) if apart else 0.0
    if apart:
        axis.set_xscale("log")
    places: dict[float, float] = {}
    title, names = _lines(sweeps, section.reference)
    for number, (name, sweep) in enumerate(names):
        colour = f"C{number % 10}"
        first = sweep.points[0]
        lone = apart and first.value == 0
        if lone:
            axis.errorbar(
                *(zero, first.mean, first.deviation), color=colour, marker="o", markersize=4
            )
        line = sweep.points[lone:]
        values = [point.value for point in line]
        axis.fill_between(
            values, *zip(*(p.ends for p in line), strict=True), color=colour, alpha=0.15, lw=0
        )
        means = [point.mean for point in line]
        axis.plot(values, means, color=colour, marker="o", markersize=4, lw=1.2, label=name)
        for point in sweep.points:
            place = places[point.value] = zero if apart and point.value == 0 else point.value
            if point.label == section.reference:
                ring = {"markersize": 10, "markerfacecolor": "none", "markeredgecolor": "0.2"}
                axis.plot(place, point.mean, "o", **ring)
    if len(sweeps) > 1:
        axis.legend(title=title, fontsize="x-small", title_fontsize="x-small", frameon=False)
    _ticks(axis, places, apart)


def _lines(sweeps: list[Sweep], reference: str) -> tuple[str, list[tuple[str, Sweep]]]:
    """What tells the sweeps of an argument apart, and each with its name.

    That is the one other argument in which they differ, by rising value; where there are several,
    each goes by the reference, or else the best of its rows.
    """
    given = {name: [sweep.others.get(name) for sweep in sweeps] for name in sweeps[0].others}
    differ = [name for name, values in given.items() if any(v != values[0] for v in values)]
    alone = differ[0] if len(differ) == 1 else ""
    if alone and len({repr(value) for value in given[alone]}) == len(sweeps):
        named = list(zip(given[alone], sweeps, strict=True))
        if all(isinstance(value, int | float) for value in given[alone]):
            named.sort(key=itemgetter(0))
        return alone, [(str(value), sweep) for value, sweep in named]
    best = [min(one.points, key=lambda p: (p.label != reference, -p.mean)) for one in sweeps]
    return "around", [(point.label, one) for point, one in zip(best, sweeps, strict=True)]


def _ticks(axis: Any, places: dict[float, float], apart: bool) -> None:
    """Label the values themselves, but for those whose label would touch the one before."""
    spot = math.log if apart else float
    spots = {value: spot(place) for value, place in places.items()}
    texts = {value: f"{value:g}" for value in spots}
    width = max(spots.values()) - min(spots.values())
    shown: list[float] = []
    for value in sorted(spots):
        longest = max(len(texts[value]), len(texts[shown[-1]]) if shown else 0)
        if not shown or spots[value] - spots[shown[-1]] > max(0.12, 0.03 * longest) * width:
            shown.append(value)
    axis.set_xticks([places[value] for value in shown], [texts[value] for value in shown])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axis.tick_params(labelsize="small")
