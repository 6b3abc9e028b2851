"""Every pair of rows of a table, for the page that compares two of them."""

from itertools import combinations, permutations
from math import isfinite
from typing import Any

from intentbench.reports.columns import EMPTY, code, short_name
from intentbench.reports.site.sections import SectionView
from intentbench.reports.site.tables import Cell, HtmlTable, make_table, plain_cell
from intentbench.reports.site.text import inline
from intentbench.stats.contrast import find_relative_ends
from intentbench.stats.effects import ROPE
from intentbench.stats.family import Family

FIELDS = (
    *("a", "b", "est", "low", "high", "se", "df", "t", "p", "p_adjusted", "users_share"),
    *("relative", "relative_low", "relative_high"),
    *("reverse", "reverse_low", "reverse_high"),
    *("won", "tied", "lost", "win_share", "d_z", "notes"),
)
"""What a pair holds: places of A and B among the rows, the difference A - B with its interval and
test, the users' share of its variance, A / B - 1 and B / A - 1 with their intervals, and users for
whom A is better, equal and worse."""

CORRECTIONS = {"holm": "Holm", "bh": "Benjamini and Hochberg"}
"""Names of corrections as printed."""

_DIGITS = 10  # as in the JSON beside a page


def pairs_data(view: SectionView) -> dict[str, Any]:
    """All pairs of a table as JSON types; None stands for what is not defined or infinite.

    Raises:
        ValueError: the table has no two rows to compare.
    """
    section = view.section
    family, metric = section.family, section.table.primary
    if family is None:
        raise ValueError(f"{view.board.name}, {view.dataset}: nothing to compare")
    rows = {row.label: row for row in section.rows}
    tiers = family.tiers
    find_relative_ends(family.contrasts[pair] for pair in permutations(family.labels, 2))
    return {
        "metric": short_name(metric),
        "alpha": family.alpha,
        "rope": ROPE,
        "correction": CORRECTIONS[family.method],
        "tests": family.n_tests,
        "reference": section.reference,
        "rows": [
            {
                "label": label,
                "mean": _number(rows[label].means[metric]),
                "std": _number(rows[label].deviations[metric]),
                "seeds": len(rows[label].records),
                "tier": tiers.get(label),
            }
            for label in family.labels
        ],
        "fields": FIELDS,
        "pairs": [
            [x, y, *_pair(family, a, b)]
            for (x, a), (y, b) in combinations(enumerate(family.labels), 2)
        ],
    }


def _pair(family: Family, a: str, b: str) -> list[Any]:
    test, back, effect = family.contrasts[a, b], family.contrasts[b, a], family.effects[a, b]
    numbers = (
        *(test.est, test.low, test.high, test.se, test.df, test.t, test.p),
        *(family.adjusted[a, b], test.v_users / test.se**2 if test.se else None),
        *(test.relative, test.relative_low, test.relative_high),
        *(back.relative, back.relative_low, back.relative_high),
    )
    users = effect.won, effect.tied, effect.lost
    sizes = map(_number, (effect.win_share, effect.d_z))
    return [*map(_number, numbers), *users, *sizes, list(test.notes)]


def _number(value: float | None) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if value is not None and isfinite(value) else None


def matrix(view: SectionView) -> HtmlTable | None:
    """Row against column: relative difference in % and mark; None where there is nothing to test.

    It is what a reader without scripts has.
    """
    family = view.section.family
    if family is None:
        return None
    columns = [("A \\ B", [Cell(inline(code(label))) for label in family.labels])]
    columns += [(code(b), [_cell(family, a, b) for a in family.labels]) for b in family.labels]
    return make_table("A (row) against B (column), %", columns)


def _cell(family: Family, a: str, b: str) -> Cell:
    if a == b:
        return plain_cell(EMPTY)
    relative = family.contrasts[a, b].relative
    if relative is None:
        return plain_cell("not defined")
    return plain_cell(f"{100 * relative:+.1f} {family.mark(a, b)}".rstrip(), relative)
