"""All datasets of a leaderboard together: a table, what to know of it, and what is behind it."""

from dataclasses import asdict
from itertools import combinations
from math import inf
from typing import Any

from intentbench.reports.columns import EMPTY, Column, code, percent, short_names
from intentbench.reports.leaderboard import Leaderboard
from intentbench.stats.across import INTERVAL_FROM, TEST_FROM, Across, AcrossPair, smallest_p
from intentbench.stats.correction import Method

CORRECTION: dict[Method, str] = {"holm": "Holm", "bh": "Benjamini-Hochberg"}
"""Corrections as printed."""


def overall_reference(board: Leaderboard) -> str:
    """What differences over datasets are taken against: the page's reference, else the first row.

    The reference stands aside where a dataset lacks it; "" where no row has results on all.
    """
    labels = board.across.labels if board.across else ()
    if board.plan.reference in labels:
        return board.plan.reference
    return labels[0] if labels else ""


def overall_table(board: Leaderboard) -> list[Column]:
    """Rows with results on every dataset; empty where there are not two of them."""
    across, reference = board.across, overall_reference(board)
    if across is None or len(across.labels) < 2:
        return []
    others = [
        None if label == reference else across.pairs[label, reference] for label in across.labels
    ]
    against = f"against {code(reference)}"
    columns = [
        ("model", [code(label) for label in across.labels]),
        ("mean rank", [f"{across.mean_ranks[label]:.2f}" for label in across.labels]),
        (_ratio_heading(across, against), [_ratio(pair) for pair in others]),
        (f"datasets won / tied / lost {against}", [_counts(pair) for pair in others]),
    ]
    if across.n_tests:
        heading = f"p ({CORRECTION[board.plan.correction]})"
        columns.append((heading, [_p(pair) for pair in others]))
    return columns


def _ratio_heading(across: Across, against: str) -> str:
    interval = f" [{percent(1 - across.alpha)}]" if len(across.datasets) >= INTERVAL_FROM else ""
    return f"{against}, %{interval}"


def _ratio(pair: AcrossPair | None) -> str:
    if pair is None:
        return "reference"
    if pair.ratio is None:
        return EMPTY
    text = f"{100 * (pair.ratio - 1):+.1f}"
    if pair.ratio_low is None or pair.ratio_high is None:
        return text
    low, high = (100 * (end - 1) for end in (pair.ratio_low, pair.ratio_high))
    return f"{text} [{low:+.1f}, {high:+.1f}]"


def _counts(pair: AcrossPair | None) -> str:
    if pair is None:
        return EMPTY
    untested = f" ({pair.untested} not tested)" if pair.untested else ""
    return f"{pair.wins} / {pair.ties} / {pair.losses}{untested}"


def _p(pair: AcrossPair | None) -> str:
    return EMPTY if pair is None or pair.p_adjusted is None else f"{pair.p_adjusted:.3g}"


def overall_lines(board: Leaderboard) -> list[str]:
    """What stands below the table: datasets, rows left out, and the test or why there is none."""
    across = board.across
    if across is None:
        return []
    count = len(across.datasets)
    lines = [f"{short_names(board.primaries)} on {count} datasets: {', '.join(across.datasets)}."]
    if len(across.labels) < 2:
        lines.append("Fewer than two rows have results on all of them: nothing to compare.")
    elif count < TEST_FROM:
        lines.append(
            f"No test over datasets: the smallest two-sided p that signed ranks of {count} "
            f"datasets can give is {smallest_p(count):g}; {TEST_FROM} datasets are needed."
        )
    else:
        lines += _test_lines(board, across)
    if across.left_out:
        missing = (f"{code(row)} ({', '.join(names)})" for row, names in across.left_out.items())
        lines.append(f"Left out, for they lack datasets: {', '.join(missing)}.")
    return lines


def _test_lines(board: Leaderboard, across: Across) -> list[str]:
    lines = []
    found = across.friedman
    if found and found.f == inf:
        lines.append(
            "Friedman's test over datasets: every dataset ranks the rows alike (chi-squared "
            f"{found.chi2:.2f}); F after Iman and Davenport is infinite."
        )
    elif found:
        lines.append(
            f"Friedman's test over datasets, after Iman and Davenport: F({found.df1}, {found.df2}) "
            f"= {found.f:.2f}, p = {found.p:.3g} (chi-squared {found.chi2:.2f})."
        )
    if not across.n_tests:
        return [*lines, "No pair of rows could be tested over datasets."]
    separated = [
        f"{code(a)} over {code(b)}"
        for a, b in combinations(across.labels, 2)
        if (p := across.pairs[a, b].p_adjusted) is not None and p < across.alpha
    ]
    method = CORRECTION[board.plan.correction]
    least = min(1.0, across.n_tests * smallest_p(len(across.datasets)))
    lines.append(
        f"Wilcoxon's signed-rank test of each pair, exact, on log ratios, {method} over "
        f"{across.n_tests}: {len(separated)} separated at {across.alpha:g}"
        + (f" ({', '.join(separated)})." if 0 < len(separated) <= 10 else ".")
        + (
            f" {len(across.datasets)} datasets cannot separate a single pair of so many: the "
            f"smallest p after Holm is {least:.2g}."
            if least >= across.alpha and board.plan.correction == "holm"
            else ""
        )
    )
    return lines


def overall_caption(board: Leaderboard) -> str:
    """How the table is to be read; "" where there is none."""
    if not overall_table(board):
        return ""
    return (
        "Overall: rows with results on every dataset. Mean rank among them; geometric mean over "
        "datasets of mean / mean of the reference, - 1, with an interval from t on its logarithms "
        f"(from {INTERVAL_FROM} datasets on), which takes the datasets for a sample of such; "
        "datasets on which a row is separated from the reference upwards, not, or downwards, at "
        "the corrected level of each."
    )


def overall_json(across: Across) -> dict[str, Any]:
    """Everything behind the table, each pair once, the one with the better mean rank first."""
    return {
        "datasets": across.datasets,
        "left_out": across.left_out,
        "mean_ranks": across.mean_ranks,
        "friedman": asdict(across.friedman) if across.friedman else None,
        "tests": across.n_tests,
        "pairs": [
            {"a": a, "b": b, **asdict(across.pairs[a, b])}
            for a, b in combinations(across.labels, 2)
        ],
    }
