"""A table of a leaderboard as the pages of board, method and dataset show it, made once."""

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from markupsafe import Markup

from intentbench.reports import columns as producers
from intentbench.reports.leaderboard import Leaderboard, Row, Section
from intentbench.reports.site.names import compare_page, method_page
from intentbench.reports.site.tables import Cell, plain_cell, text_cell

Columns = list[tuple[str, list[Cell]]]
"""Heading, in Markdown, and cells of each."""


@dataclass(frozen=True, eq=False)
class SectionView:
    """One dataset of one leaderboard.

    Attributes:
        board: the leaderboard.
        section: of it.
    """

    board: Leaderboard
    section: Section

    @property
    def dataset(self) -> str:
        """Catalogue key."""
        return self.section.table.dataset

    @property
    def title(self) -> str:
        """Of the leaderboard."""
        return self.board.plan.title or self.board.name

    @property
    def comparable(self) -> bool:
        """Whether there are rows to compare."""
        return self.section.family is not None

    @cached_property
    def accuracy(self) -> dict[str, list[Cell]]:
        """Metric to the cell of each row: mean ± deviation, sorted by the mean.

        Best and second are not marked, as on the leaderboard's own page: beside rows of others they
        would mean nothing.
        """
        return {
            metric: [_measured(row, metric) for row in self.section.rows]
            for metric in self.section.table.metrics
        }

    @cached_property
    def standing(self) -> Columns:
        """Seeds, tier and difference to the reference, of each row."""
        parts = (producers.seeds, producers.tier, producers.difference)
        found = [produce(self.section) for produce in parts]
        return [(heading, [text_cell(text) for text in texts]) for heading, texts in found]

    @property
    def difference_heading(self) -> str:
        """Of the column that compares with the reference."""
        return producers.difference(self.section)[0]

    def comparison(self, row: Row) -> str:
        """Address of the comparison of a row with the reference, from the root; "" without one."""
        if not self.comparable or not row.ranked:
            return ""
        pair = f"#a={quote(row.label, safe='')}&b={quote(self.section.reference, safe='')}"
        return compare_page(self.board.name, self.dataset) + pair


def _measured(row: Row, metric: str) -> Cell:
    if not row.means:
        return plain_cell("")
    value, deviation = row.means[metric], row.deviations[metric]
    text = f"{value:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
    return plain_cell(text, value)


def method_of(row: Row) -> str:
    """Key of a row's method; "" where there is no trial of it."""
    return row.cell.any_record.method if row.cell else ""


def row_link(row: Row, root: str) -> Cell:
    """A row's name, as a link to its method where there is a trial of it.

    Args:
        row: of a table.
        root: from the page to the root of the site.
    """
    name = Markup("<code>{}</code>").format(row.label)
    if row.cell and not row.ceiling:
        name = Markup('<a href="{}">{}</a>').format(root + method_page(method_of(row)), name)
    return Cell(name + (" (ceiling)" if row.ceiling else ""))
