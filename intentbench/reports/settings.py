"""What each row of a section was trained with, from its record alone.

A label is whatever a spec calls a row. Which base a method was put on, and which of its forms ran,
is in the settled arguments, which is why a page has them all.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from intentbench.reports.columns import code
from intentbench.reports.leaderboard import Row, Section
from intentbench.reports.other_settings import FROM_DATASET
from intentbench.results.external import EXTERNAL

FROM_METHOD = ("layout", "pad_to_window", "window", "targets", "mask_history")
"""Arguments of a data module that follow the method, or stand with the protocol."""

OPEN = 3000
"""Characters up to which a list is unfolded."""

_ARGUMENTS = "_arguments"
_NONE = "none"


def settings_block(section: Section) -> list[str]:
    """The settings of all rows that ran here, as lines of Markdown; none where nothing did.

    Rows of one method share a line for what is equal in all of them, and have one each for the
    rest.
    """
    methods: dict[str, list[Row]] = {}
    for row in section.rows:
        if row.ranked and row.records[0].method != EXTERNAL:  # of others nothing is known
            methods.setdefault(row.records[0].method, []).append(row)
    common = _common(section)
    lines = [f"- rows with epochs, where no other: {code(_joined(common))}"] if common else []
    for method, rows in methods.items():
        lines += _method_lines(method, rows, common)
    if not lines:
        return []
    opened = " open" if sum(map(len, lines)) <= OPEN else ""
    summary = "<summary>Settings: what each row was trained with</summary>"
    return [f"<details{opened}>", summary, "", *lines, "", "</details>", ""]


def _method_lines(method: str, rows: Sequence[Row], common: Mapping[str, str]) -> Iterator[str]:
    """One line for a single row; for several what they share, and then what is each one's own."""
    settings = [{**_arguments(row), **_departures(row, common)} for row in rows]
    if len(rows) == 1:
        (row,), (own,) = rows, settings
        name = code(row.label) + ("" if row.label == method else f", method {code(method)}")
        if own or row.label != method:
            yield f"- {name}: {code(_joined(own) or 'no arguments')}"
        return
    first = settings[0]
    shared = {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in settings)
    }
    yield f"- method {code(method)}, {len(rows)} rows: {code(_joined(shared) or 'see each')}"
    for row, found in zip(rows, settings, strict=True):
        own = {name: value for name, value in found.items() if name not in shared}
        yield f"  - {code(row.label)}: {code(_joined(own) or 'nothing else')}"


def _arguments(row: Row) -> dict[str, str]:
    """Settled arguments as text; `base` and `base_arguments` as one."""
    given = row.records[0].arguments
    found = {}
    for name in sorted(given):
        if name in FROM_DATASET or (
            name.endswith(_ARGUMENTS) and name[: -len(_ARGUMENTS)] in given
        ):
            continue
        text, inner = _text(given[name]), name + _ARGUMENTS
        if inner in given:
            text += f" ({_joined(_inner(given[inner])) or 'its defaults'})"
        found[name] = text
    return found


def _inner(given: Any) -> dict[str, str]:
    """Arguments of a method in another one; none where it took its defaults."""
    return {name: _text(given[name]) for name in sorted(given)} if given else {}


def _common(section: Section) -> dict[str, str]:
    """What most rows with epochs were given of batches and training."""
    counts: dict[str, Counter[str]] = {}
    for row in section.rows:
        for name, text in _given(row).items():
            counts.setdefault(name, Counter())[text] += 1
    trained = sum(bool(_given(row)) for row in section.rows)
    # what most rows lack stands with the others
    return {
        name: found.most_common(1)[0][0]
        for name, found in counts.items()
        if 2 * found.total() > trained
    }


def _departures(row: Row, common: Mapping[str, str]) -> dict[str, str]:
    """Where a row's batches and training are other than most rows'."""
    given = _given(row)
    if not given:
        return {}
    names = dict.fromkeys([*common, *given])
    return {
        name: given.get(name, _NONE)
        for name in names
        if given.get(name, _NONE) != common.get(name, _NONE)
    }


def _given(row: Row) -> dict[str, str]:
    """Batches and training of a row with epochs; none for others, which read neither."""
    if not row.ranked or not row.records[0].cost.epochs:
        return {}
    record = row.records[0]
    data = {name: value for name, value in record.data.items() if name not in FROM_METHOD}
    return {
        f"{part}.{name}": _text(values[name])
        for part, values in (("data", data), ("training", record.training))
        for name in sorted(values)
    }


def _joined(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in settings.items())


def _text(value: Any) -> str:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:.10g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
