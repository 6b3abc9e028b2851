"""What the page of a dataset shows: what it is, and every row of every leaderboard on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from datamodules.catalog import DatasetEntry, catalog
from intentbench.reports.columns import short_name
from intentbench.reports.provenance import data_lines, protocol_line
from intentbench.reports.site.names import board_page, row_anchor
from intentbench.reports.site.sections import SectionView, row_link
from intentbench.reports.site.tables import Cell, HtmlTable, link, make_table, plain_cell
from intentbench.reports.site.text import inline

ROOT = "../"
"""From a dataset's page to the root of the site."""


@dataclass(frozen=True)
class DatasetPage:
    """A dataset.

    Attributes:
        name: catalogue key.
        entry: of the catalogue; None for data of somebody's own.
        facts: statistics, protocol and notes, as the named leaderboards have them.
        table: rows of all leaderboards.
    """

    name: str
    entry: DatasetEntry | None
    facts: tuple[tuple[tuple[str, ...], tuple[Markup, ...]], ...]
    table: HtmlTable


def dataset_pages(views: Sequence[SectionView]) -> list[DatasetPage]:
    """A page a dataset, by name.

    Args:
        views: sections of all leaderboards.
    """
    by_name: dict[str, list[SectionView]] = {}
    for view in views:
        by_name.setdefault(view.dataset, []).append(view)
    known = catalog()
    return [
        DatasetPage(name, known.get(name), _facts(found), _table(found))
        for name, found in sorted(by_name.items())
    ]


def _facts(views: Sequence[SectionView]) -> tuple[tuple[tuple[str, ...], tuple[Markup, ...]], ...]:
    """Lines, and the titles of the leaderboards that share them."""
    boards: dict[tuple[str, ...], list[str]] = {}
    for view in views:
        lines = (protocol_line(view.section), *data_lines(view.section))
        boards.setdefault(lines, []).append(view.title)
    return tuple(
        (tuple(titles), tuple(inline(line) for line in lines if line))
        for lines, titles in boards.items()
    )


def _table(views: Sequence[SectionView]) -> HtmlTable:
    """Rows of all leaderboards, by falling primary metric of the first of them."""
    metrics = list(dict.fromkeys(m for view in views for m in view.accuracy if m != "mrr"))
    primary = views[0].section.table.primary
    lines = [line for view in views for line in _lines(view, metrics)]
    place = metrics.index(primary) + 2
    lines.sort(key=lambda line: -(line[place].key or 0.0))
    headings = ["model", "leaderboard", *map(short_name, metrics), "seeds", "tier there"]
    columns = [
        (heading, [line[number] for line in lines]) for number, heading in enumerate(headings)
    ]
    return make_table(f"Rows of all leaderboards, by {short_name(primary)}", columns)


def _lines(view: SectionView, metrics: Sequence[str]) -> list[list[Cell]]:
    """The rows of a leaderboard that have a result."""
    page = ROOT + board_page(view.board.name)
    standing = [cells for _, cells in view.standing]
    return [
        [
            row_link(row, ROOT),
            Cell(link(f"{page}#{row_anchor(view.dataset, row.label)}", view.board.name)),
            *(view.accuracy[m][n] if m in view.accuracy else plain_cell("") for m in metrics),
            standing[0][n],
            standing[1][n],
        ]
        for n, row in enumerate(view.section.rows)
        if row.means
    ]
