"""Mean ranks over datasets, and which models they do not separate, as a picture of a page.

A critical difference diagram (Demšar, JMLR 2006, figure 1) without a critical difference: the bars
come from corrected p-values of pairs (Benavoli et al., JMLR 2016), so a bar is a largest set of
models of which no two are separated. It need not be contiguous; its members have a dot each.
"""

from collections.abc import Mapping
from math import ceil, comb
from typing import TypeGuard

from intentbench.reports.figures import (
    add_panels,
    add_titles,
    label_inches,
    render_svg,
    text_inches,
)
from intentbench.stats.across import Across

FEWEST = 3
"""Models of which a picture says more than the table."""

STEP = 0.45
"""Height of a level of bars, in lines of text."""


def critical_difference_picture_name(board: str) -> str:
    """The file of a board's picture, beside the page."""
    return f"{board}.critical-difference.svg"


def tied_sets(across: Across) -> list[tuple[str, ...]]:
    """Largest sets of two and more models of which no two are separated.

    The maximal cliques of the graph of pairs that are not separated, after Bron & Kerbosch
    (CACM 1973).

    Returns:
        Members by mean rank, sets by the places of their first and last.
    """
    order = across.labels

    def tied(a: str, b: str) -> bool:
        p = across.pairs[a, b].p_adjusted
        return p is None or p >= across.alpha

    near = {a: {b for b in order if b != a and tied(a, b)} for a in order}
    found: list[tuple[str, ...]] = []

    def grow(members: set[str], open_: set[str], closed: set[str]) -> None:
        if not open_ and not closed:
            found.append(tuple(sorted(members, key=order.index)))
            return
        # a largest set without the pivot's neighbours holds the pivot itself
        pivot = max(order, key=lambda u: (u in open_ | closed, len(open_ & near[u])))
        for label in sorted(open_ - near[pivot], key=order.index):
            grow(members | {label}, open_ & near[label], closed & near[label])
            open_ = open_ - {label}
            closed = closed | {label}

    grow(set(), set(order), set())
    several = [members for members in found if len(members) > 1]
    return sorted(several, key=lambda members: [order.index(members[i]) for i in (0, -1)])


def has_critical_difference(across: Across | None) -> TypeGuard[Across]:
    """Whether every pair of three and more models was tested over datasets."""
    if across is None or len(across.labels) < FEWEST:
        return False
    return across.n_tests == comb(len(across.labels), 2)


def draw_critical_difference(across: Across) -> bytes:
    """The picture as SVG: an axis of mean ranks, the best at the left, and a bar a tied set.

    The same ranks and p-values give the same bytes with the same matplotlib.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ranks, order = across.mean_ranks, across.labels
    half = ceil(len(order) / 2)
    bars = _levels(tied_sets(across), ranks)
    depth = STEP * (1 + max((level for level, _ in bars), default=-1)) + 0.8
    width = 5.0 + 2 * text_inches(order)
    names = [f"{label}  {ranks[label]:.2f}" for label in order]
    side = 0.12 + label_inches(names)
    figure = Figure(figsize=(width, 0.58 + 0.26 * (depth + half)))
    (axis,) = add_panels(figure, 1, (side, side, 0.45, 0.08), 0)
    axis.set_ylim(depth + half - 0.5, -0.3)
    axis.set_xlim(1, len(order))
    axis.xaxis.set_ticks_position("top")
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axis.tick_params(labelsize="small")
    axis.yaxis.set_visible(False)
    for unused in ("left", "right", "bottom"):
        axis.spines[unused].set_visible(False)
    axis.spines["top"].set_position(("data", 0))
    for level, members in bars:
        places, height = [ranks[label] for label in members], [STEP * (level + 1)] * len(members)
        axis.plot(places, height, "o-", color="0.2", lw=2.5, ms=4, zorder=3, clip_on=False)
    for number, label in enumerate(order):
        left = number < half
        end, place = (1, depth + number) if left else (len(order), depth + len(order) - 1 - number)
        mean = ranks[label]
        axis.plot([end, mean, mean], [place, place, 0], color="0.6", lw=0.8, clip_on=False)
        axis.annotate(
            f"{label}  {mean:.2f}" if left else f"{mean:.2f}  {label}",
            (end, place),
            (-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize="small",
        )
    axis.plot([*ranks.values()], [0] * len(ranks), "o", color="tab:blue", ms=4, clip_on=False)
    title = (
        f"mean rank over {len(across.datasets)} datasets; a bar joins models that are not separated"
    )
    add_titles(figure, title)
    return render_svg(figure)


def _levels(
    sets: list[tuple[str, ...]], ranks: Mapping[str, float]
) -> list[tuple[int, tuple[str, ...]]]:
    """Each bar with the number of its level; bars of a level do not touch."""
    ends: list[float] = []
    placed = []
    for members in sets:
        first, last = ranks[members[0]], ranks[members[-1]]
        level = next((i for i, end in enumerate(ends) if end < first), len(ends))
        ends[level : level + 1] = [last]
        placed.append((level, members))
    return placed
