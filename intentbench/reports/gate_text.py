"""A gate's report as text for the terminal, and as Markdown for a pull request."""

from collections.abc import Sequence

from intentbench.reports.columns import EMPTY, code, percent, short_name
from intentbench.reports.gate import GateCell, GateReport
from intentbench.reports.gate_baseline import Change
from intentbench.stats.contrast import USERS_ONLY
from intentbench.stats.gate import ALPHA, MOST_SEEDS, Verdict


def render_text(report: GateReport) -> str:
    """The report for a terminal."""
    lines = [
        f"{report.verdict.upper()}: {report.runs} against {report.baseline}",
        f"{_counts(report)}; {_method(report)}",
        "",
    ]
    for cell in report.cells:
        test = cell.test
        lines += [
            f"{cell.dataset}, {cell.label}, {cell.metric}: {_verdict(cell)}",
            f"  baseline {test.contrast.mean_b:.4f} ({_seeds(cell.seeds_base)}), "
            f"new {test.contrast.mean_a:.4f} ({_seeds(cell.seeds_new)})",
            f"  change {_change(cell)}",
            *_tested(cell),
            *(f"  note: {note}" for note in _notes(cell)),
        ]
    advice = _advice(report)
    return "\n".join([*lines, *([""] if advice else []), *advice]) + "\n"


def render_markdown(report: GateReport) -> str:
    """The report for a job summary or a comment on a pull request."""
    lines = [
        f"## Regression gate: {report.verdict}",
        "",
        f"{_counts(report)}; {_method(report)}.",
        "",
        "| dataset | row | metric | verdict | baseline | new | change | 90 % interval "
        "| seeds (new / baseline) | can certify | seeds needed |",
        "| :-- | :-- | :-- | :-- | --: | --: | --: | :-: | :-: | --: | --: |",
    ]
    for cell in report.cells:
        means = cell.test.contrast
        verdict = cell.verdict if cell.verdict is Verdict.PASS else f"**{cell.verdict}**"
        fields = (
            code(cell.dataset),
            code(cell.label),
            short_name(cell.metric),
            f"{verdict}, same ranks" if cell.test.unchanged and not cell.failed else verdict,
            f"{means.mean_b:.4f}",
            f"{means.mean_a:.4f}",
            _change(cell),
            _interval(cell),
            f"{cell.seeds_new} / {cell.seeds_base}",
            _certifiable(cell),
            _needed(cell),
        )
        lines.append("| " + " | ".join(fields) + " |")
    notes = [
        f"- {code(cell.label)} on {code(cell.dataset)}: {text}."
        for cell in report.cells
        for text in (cell.reason, *_notes(cell))
        if text
    ]
    lines += ["", *notes, *([""] if notes else [])]
    advice = _advice(report) or ["Nothing."]
    return "\n".join([*lines, "**What to do next**", "", *map("- {}".format, advice)]) + "\n"


def render_update_text(changes: Sequence[Change], baseline: object) -> str:
    """What was accepted, for a terminal."""
    lines = [f"accepted as {baseline}; commit it with the reason"]
    lines += [
        f"  {one.dataset}, {one.label}, {one.metric}: {_mean(one.old)} -> {_mean(one.new)} "
        f"({_relative(one)}, {_seeds(one.seeds)})"
        for one in changes
    ]
    return "\n".join(lines) + "\n"


def render_update_markdown(changes: Sequence[Change], baseline: object) -> str:
    """What was accepted, for a job summary or a comment on a pull request."""
    lines = [
        f"## Baseline accepted: {code(str(baseline))}",
        "",
        "| dataset | row | metric | old mean | new mean | change | seeds |",
        "| :-- | :-- | :-- | --: | --: | --: | --: |",
    ]
    for one in changes:
        fields = (
            code(one.dataset),
            code(one.label),
            short_name(one.metric),
            _mean(one.old),
            _mean(one.new),
            _relative(one),
            str(one.seeds),
        )
        lines.append("| " + " | ".join(fields) + " |")
    return (
        "\n".join([*lines, "", "Nothing was tested: these runs are what counts from now on."])
        + "\n"
    )


def _counts(report: GateReport) -> str:
    passed = sum(cell.verdict is Verdict.PASS for cell in report.cells)
    worse = sum(cell.verdict is Verdict.WORSE for cell in report.cells)
    left = len(report.cells) - passed - worse
    return f"{passed} pass, {worse} worse, {left} cannot tell"


def _notes(cell: GateCell) -> list[str]:
    """What a reader must know of the test, in the words of the gate."""
    return [
        note.replace("(A)", "(new)").replace("(B)", "(baseline)")
        for note in cell.test.contrast.notes
        if note != USERS_ONLY
    ]


def _method(report: GateReport) -> str:
    family = f'; "worse" corrected after Holm over {report.n_tests}' if report.n_tests > 1 else ""
    return (
        f"margin {percent(report.margin, 1)} of the baseline's mean, one-sided tests at "
        f"{percent(ALPHA)}, users and seeds random{family}"
    )


def _verdict(cell: GateCell) -> str:
    if cell.reason:
        return f"{cell.verdict} ({cell.reason})"
    return f"{cell.verdict} (the same ranks)" if cell.test.unchanged else str(cell.verdict)


def _tested(cell: GateCell) -> list[str]:
    """What follows from the test, where one was made."""
    if cell.test.p_worse is None:
        return []
    return [
        f"  90 % interval {_interval(cell)}",
        f"  can certify {_certifiable(cell)}; seeds needed {_needed(cell)}",
    ]


def _change(cell: GateCell) -> str:
    relative = cell.test.contrast.relative
    return EMPTY if relative is None else f"{100 * relative:+.2f} %"


def _interval(cell: GateCell) -> str:
    low, high = cell.test.contrast.relative_low, cell.test.contrast.relative_high
    if low is None or high is None or cell.test.p_worse is None:
        return EMPTY
    return f"[{100 * low:+.2f} %, {100 * high:+.2f} %]"


def _certifiable(cell: GateCell) -> str:
    share = cell.test.certifiable
    if share is None:
        return EMPTY
    return percent(share, 1) if share <= 1 else "> 100 %"


def _needed(cell: GateCell) -> str:
    if cell.test.certifiable is None:
        return EMPTY
    needed = cell.test.seeds_needed
    return f"> {MOST_SEEDS}" if needed is None else str(needed)


def _advice(report: GateReport) -> list[str]:
    """What to do next."""
    file = "FILE" if report.baseline.is_dir() else report.baseline
    accept = f"`intentbench check {report.runs} --baseline {file} --update`"
    lines = []
    if report.verdict is Verdict.WORSE:
        lines.append(
            f"Worse: mend the change, or accept the loss on purpose with {accept} and commit the "
            "file with the reason."
        )
    open_cells = [cell for cell in report.cells if cell.verdict is Verdict.CANNOT_TELL]
    if any(cell.failed for cell in open_cells):
        lines.append("A trial failed: see its `log.txt`, mend it and run again.")
    if undecided := [cell for cell in open_cells if not cell.failed]:
        lines.append(_seed_advice(undecided, report.margin))
    if report.unjudged:
        names = ", ".join(f"{code(label)} on {code(dataset)}" for dataset, label in report.unjudged)
        lines.append(f"Not in the baseline, hence not judged: {names}; {accept} takes them in.")
    return lines


def _seed_advice(cells: Sequence[GateCell], margin: float) -> str:
    """How the next run could tell."""
    if all(cell.test.contrast.mean_b == 0 for cell in cells):
        return "Cannot tell: the baseline's mean is 0; take another metric or more test users."
    known = [cell.test.seeds_needed for cell in cells if cell.test.seeds_needed is not None]
    # what was tested and left open needs more than it had, whatever the formula says
    known += [max(c.seeds_new, c.seeds_base) + 1 for c in cells if c.test.p_worse is not None]
    limited = [c for c in cells if c.test.certifiable is not None and c.test.seeds_needed is None]
    more = max(known, default=3)
    text = (
        f"Cannot tell: run baseline and change with {more} seeds or more each, and accept the "
        "former with --update."
    )
    if limited:
        text = "Cannot tell: no number of seeds is enough for every row; take more test users."
    return (
        f"{text} Or agree on a margin wider than {percent(margin, 1)}. Decide before the run: "
        "adding seeds until it passes is not a test."
    )


def _seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"


def _mean(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.4f}"


def _relative(one: Change) -> str:
    if one.old is None:
        return "new"
    if one.new is None:
        return "gone"
    return f"{100 * (one.new / one.old - 1):+.2f} %" if one.old else EMPTY
