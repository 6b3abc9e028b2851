"""What noise costs, as tables, lines and a picture of a page."""

from typing import Any

from intentbench.reports.columns import EMPTY, Column, code, percent, short_name, short_names
from intentbench.reports.figures import render_svg
from intentbench.reports.leaderboard import ALPHA, Leaderboard, Section
from intentbench.reports.noise import IGR_SR, RESAMPLES, Loss, Study

_PROTOCOLS = {"test": "Noise at test time", "training": "Noise in training and at test time"}


def noise_tables(section: Section) -> list[tuple[str, list[Column]]]:
    """For each study its heading and its table."""
    name = short_name(section.table.primary)
    return [(_heading(study, name), _table(study)) for study in section.noise]


def noise_lines(section: Section) -> list[str]:
    """What others published about the rows."""
    methods = {row.cell.any_record.method for row in section.rows if row.cell}
    return [IGR_SR] if section.noise and "igr_sr" in methods else []


def noise_caption(board: Leaderboard) -> list[str]:
    """How to read the tables; nothing where there are none."""
    if not any(section.noise for section in board.sections):
        return []
    name = short_names(board.primaries)
    return [
        "Noise: a column a rate, the share of a user's inputs that is touched; "
        f"{name} under noise, and its loss, 1 - with noise / without (trained and tested clean), "
        f"with its {percent(1 - ALPHA)} interval over users (bootstrap, {RESAMPLES:,} resamples, "
        "the same for all rows, seeds averaged; not corrected). Targets stay clean, all rows see "
        "the same noise, and items that come in count as history, which is not ranked. Realised: "
        "inputs touched of all inputs, less than the rate where the number of a user is rounded "
        "down."
    ]


def _heading(study: Study, name: str) -> str:
    rounding = "" if study.rounding == "floor" else f", rounding {study.rounding}"
    seed = f", seed {study.seed}" if study.seed else ""
    what = f"{_PROTOCOLS[study.protocol]}: {study.kind}{rounding}{seed}"
    return f"{what}; {name}, and its loss"


def _table(study: Study) -> list[Column]:
    trained = any(loss.training_share is not None for loss in study.losses)
    labels = [code(label) for label in study.clean]
    columns: list[Column] = [
        ("model", [*labels, "*realised*", *(["*realised in training*"] if trained else [])]),
        ("0 %", [*(f"{value:.4f}" for value in study.clean.values()), *[EMPTY] * (1 + trained)]),
    ]
    for rate in study.rates:
        losses = [study.at(label, rate) for label in study.clean]
        some = [loss for loss in losses if loss is not None]
        cells = [*map(_cell, losses), percent(some[0].share, 1)]
        if trained:
            cells.append(_range([x.training_share for x in some if x.training_share is not None]))
        columns.append((f"{100 * rate:g} %", cells))
    return columns


def _cell(loss: Loss | None) -> str:
    if loss is None:
        return EMPTY
    if loss.loss is None or loss.low is None or loss.high is None:
        return f"{loss.mean:.4f}"
    return f"{loss.mean:.4f}, {percent(loss.loss, 1)} [{100 * loss.low:.1f}, {100 * loss.high:.1f}]"


def _range(shares: list[float]) -> str:
    """Shares of training differ with the rows that methods are trained on."""
    low, high = (f"{100 * share:.1f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def draw_noise(section: Section) -> bytes:
    """The picture of a section as SVG: loss against rate, a line a row, a panel a study.

    The same section gives the same bytes with the same matplotlib.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    studies = section.noise
    figure = Figure(figsize=(4.8 * len(studies), 3.8), layout="constrained")
    axes = figure.subplots(1, len(studies), squeeze=False, sharey=True)[0]
    labels = list(dict.fromkeys(label for study in studies for label in study.clean))
    palette = mpl.colormaps["tab10" if len(labels) <= 10 else "tab20"]
    lines: dict[str, Any] = {}
    for axis, study in zip(axes, studies, strict=True):
        for label in study.clean:
            number = labels.index(label)
            shade, marker = palette(number % palette.N), "os^Dv"[number % 5]
            lines[label] = _line(axis, study.of_row(label), shade, marker)
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.set_title(f"{_PROTOCOLS[study.protocol]}: {study.kind}", fontsize="medium")
        axis.set_xlabel("inputs touched, asked for (%)")
    axes[0].set_ylabel(f"loss of {short_name(section.table.primary)} (%)")
    handles = [lines[label] for label in labels]
    figure.legend(handles, labels, loc="outside right center", fontsize="small", frameon=False)
    figure.suptitle(section.table.dataset)
    return render_svg(figure)


def _line(axis: Any, losses: list[Loss], colour: Any, marker: str) -> Any:
    known = [
        (100 * x.rate, 100 * x.loss, 100 * x.low, 100 * x.high)
        for x in losses
        if x.loss is not None and x.low is not None and x.high is not None
    ]
    rates, loss, low, high = zip((0.0, 0.0, 0.0, 0.0), *known, strict=True)
    axis.fill_between(rates, low, high, color=colour, alpha=0.12, linewidth=0)
    (line,) = axis.plot(rates, loss, color=colour, marker=marker, markersize=4, linewidth=1.2)
    return line
