"""How well methods predict labels of the next event: a table an intent."""

from collections.abc import Mapping
from statistics import mean, stdev

from intentbench.reports.columns import EMPTY, Column, code
from intentbench.reports.leaderboard import Row, Section

SIMPLE = {"majority": "*shares of training*", "last": "*label of the event before*"}
"""Predictors that need no model, as they are printed; a measure of one ends with its name."""

LOWER = ("nll",)
"""Measures of which less is better."""


def intent_means(row: Row) -> dict[str, tuple[float, float | None]]:
    """Mean of each measure over seeds, and its standard deviation, None with one seed.

    Keys are those of `TrialRecord.intents`: "intent/measure".
    """
    found: dict[str, list[float]] = {}
    for record in row.records:
        for key, value in record.intents.items():
            found.setdefault(key, []).append(value)
    return {
        key: (mean(values), stdev(values) if len(values) > 1 else None)
        for key, values in found.items()
    }


def intent_tables(section: Section) -> list[tuple[str, list[Column]]]:
    """For each intent that some row predicts its name and its table; none where no row does."""
    rows = [(row, intent_means(row)) for row in section.rows]
    rows = [(row, means) for row, means in rows if any("/" in key for key in means)]
    intents = dict.fromkeys(key.partition("/")[0] for _, means in rows for key in means)
    return [(intent, _table(intent, rows)) for intent in intents if intent != "item"]


def _table(
    intent: str, rows: list[tuple[Row, dict[str, tuple[float, float | None]]]]
) -> list[Column]:
    prefix = f"{intent}/"
    held = [
        (row.label, {k.removeprefix(prefix): v for k, v in means.items() if k.startswith(prefix)})
        for row, means in rows
    ]
    held = [(label, means) for label, means in held if means]
    measures = [
        measure
        for measure in dict.fromkeys(m for _, means in held for m in means)
        if measure != "targets"
        and not measure.endswith((*(f"_{name}" for name in SIMPLE), "_untied"))
    ]
    labels = [code(label) for label, _ in held] + list(SIMPLE.values())
    columns: list[Column] = [("model", labels)]
    for measure in measures:
        column = _column(measure, [means for _, means in held])
        for name in SIMPLE:
            value = next(
                (m[f"{measure}_{name}"][0] for _, m in held if f"{measure}_{name}" in m), None
            )
            column.append(EMPTY if value is None else f"{value:.4f}")
        columns.append((measure.replace("_", " "), column))
    return columns


def _column(measure: str, held: list[Mapping[str, tuple[float, float | None]]]) -> list[str]:
    values = [means[measure][0] for means in held if measure in means]
    best = (min if measure in LOWER else max)(values)
    cells = []
    for means in held:
        if measure not in means:
            cells.append(EMPTY)
            continue
        value, deviation = means[measure]
        text = f"**{value:.4f}**" if value == best and len(values) > 1 else f"{value:.4f}"
        cells.append(text if deviation is None else f"{text} ± {deviation:.4f}")
    return cells
