"""What the page of a leaderboard shows: its Markdown page, tables to sort, rows to follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from intentbench.reports.columns import Column, row_name, short_name
from intentbench.reports.leaderboard import Leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.site.blocks import Block, Chapter, take_apart
from intentbench.reports.site.names import compare_page, row_anchor
from intentbench.reports.site.sections import SectionView, row_link
from intentbench.reports.site.tables import Cell, HtmlTable, from_columns
from intentbench.reports.site.text import inline

ROOT = "../"
"""From a leaderboard's page to the root of the site."""

MAIN = "Accuracy and differences"
"""Caption of the first table of a dataset."""


@dataclass(frozen=True)
class Part:
    """A block of a page, ready to be shown.

    Attributes:
        kind: as in `Block`.
        html: of a line; description of a picture or code as text.
        table: of a table.
        file: of a picture.
        items: of a list.
    """

    kind: str
    html: Markup | str = ""
    table: HtmlTable | None = None
    file: str = ""
    items: tuple[Markup, ...] = ()


@dataclass(frozen=True)
class ChapterView:
    """A chapter of a page.

    Attributes:
        heading: its text.
        dataset: whose results it holds; "" where it holds none.
        compare: page that compares two rows, from the root; "" where there is none.
        parts: what stands in it.
    """

    heading: str
    dataset: str
    compare: str
    parts: tuple[Part, ...]


def board_chapters(board: Leaderboard, views: Sequence[SectionView]) -> list[ChapterView]:
    """The chapters of a leaderboard's page, in the order of its Markdown page.

    Args:
        board: the leaderboard.
        views: of its sections.
    """
    by_dataset = {view.dataset: view for view in views}
    chapters = take_apart(render_markdown(board))
    return [
        _chapter(chapter, by_dataset.get(chapter.heading)) for chapter in chapters if chapter.blocks
    ]


def _chapter(chapter: Chapter, view: SectionView | None) -> ChapterView:
    if view is None:
        plain = tuple(_part(block, {}, chapter.heading) for block in chapter.blocks)
        return ChapterView(chapter.heading, "", "", plain)
    names = _row_names(view)
    parts: list[Part] = []
    for block in chapter.blocks:
        if block.kind == "table" and not parts:
            parts.append(Part("table", table=_main_table(block.columns, view, names)))
        else:
            parts.append(_part(block, names, MAIN))
    compare = compare_page(view.board.name, view.dataset) if view.comparable else ""
    return ChapterView(chapter.heading, view.dataset, compare, tuple(parts))


def _part(block: Block, names: Mapping[str, Cell], heading: str) -> Part:
    if block.kind == "table":
        return Part("table", table=from_columns(block.text or heading, block.columns, names))
    if block.kind == "list":
        return Part("list", items=tuple(map(inline, block.items)))
    if block.kind == "line":
        return Part("line", inline(block.text))
    return Part(block.kind, block.text, file=block.file)


def _row_names(view: SectionView) -> dict[str, Cell]:
    """First cell of a row as the Markdown page has it to the same as a link to the method."""
    tried = view.section.tried
    texts = row_name(tried)[1]
    return {text: row_link(row, ROOT) for text, row in zip(texts, tried.rows, strict=True)}


def _main_table(
    columns: Sequence[Column], view: SectionView, names: Mapping[str, Cell]
) -> HtmlTable:
    """The first table: rows with a place of their own, metrics sorted by all their digits."""
    table = from_columns(MAIN, columns, names)
    rows = view.section.tried.rows
    exact = {short_name(metric): metric for metric in view.section.table.metrics}
    metrics = [exact.get(heading) for heading, _ in columns]
    heading = view.difference_heading
    lines = []
    for row, cells in zip(rows, table.rows, strict=True):
        line = [
            replace(cell, key=row.means.get(metric)) if metric else cell
            for cell, metric in zip(cells, metrics, strict=True)
        ]
        line[0] = row_link(row, ROOT)
        if page := view.comparison(row):
            place = [title for title, _ in columns].index(heading)
            shown = Markup('<a href="{}">{}</a>').format(ROOT + page, line[place].html)
            own = 0.0 if row.label == view.section.reference else line[place].key
            line[place] = Cell(shown, own)
        lines.append(tuple(line))
    anchors = tuple(row_anchor(view.dataset, row.label) for row in rows)
    return replace(table, rows=tuple(lines), anchors=anchors)
