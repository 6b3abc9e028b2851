"""Tables of a page: cells with what they are sorted by."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from intentbench.reports.columns import EMPTY, Column
from intentbench.reports.site.text import inline

_LEADING = re.compile(r"\W*?([-+]?\d[\d,]*(?:\.\d+)?)")


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        html: what it shows.
        key: the number it is sorted by; None where it has none.
    """

    html: Markup
    key: float | None = None

    @property
    def sort(self) -> str:
        """The key as an attribute: all digits, "" where there is none."""
        return "" if self.key is None else repr(self.key)


@dataclass(frozen=True)
class HtmlTable:
    """A table that can be sorted.

    Attributes:
        caption: what it shows.
        headings: of the columns.
        numeric: whether each column is sorted by number, highest first.
        rows: cells by row; the first of each is the row's heading.
        anchors: id of each row, "" for none.
        fixed: whether each row stays in its place when the others are sorted.
    """

    caption: str
    headings: tuple[Markup, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    anchors: tuple[str, ...]
    fixed: tuple[bool, ...]


def make_table(
    caption: str, columns: Sequence[tuple[str, Sequence[Cell]]], anchors: Sequence[str] = ()
) -> HtmlTable:
    """A table from columns, of which the first names the rows.

    Args:
        caption: of the table.
        columns: heading, in Markdown, and cells of each. A column is numeric where some cell has a
            key.
        anchors: id of each row.
    """
    rows = tuple(zip(*(cells for _, cells in columns), strict=True))
    return HtmlTable(
        caption,
        tuple(inline(heading) for heading, _ in columns),
        tuple(any(cell.key is not None for cell in cells) for _, cells in columns),
        rows,
        tuple(anchors) or ("",) * len(rows),
        (False,) * len(rows),
    )


def from_columns(
    caption: str,
    columns: Sequence[Column],
    names: Mapping[str, Cell] | None = None,
) -> HtmlTable:
    """A table of a Markdown page; a cell is sorted by the number that it begins with.

    Rows whose name is no label, such as the number of users, stay in their places.

    Args:
        caption: of the table.
        columns: as `intentbench.reports.columns` and its like make them.
        names: text of a cell of the first column to what stands there instead.
    """
    first, *others = columns
    named = names or {}
    heading = [named.get(text) or Cell(inline(text)) for text in first[1]]
    cells = [(title, [text_cell(text) for text in texts]) for title, texts in others]
    table = make_table(caption, [(first[0], heading), *cells])
    return replace(
        table, fixed=tuple(text.startswith("*") and "`" not in text for text in first[1])
    )


def text_cell(text: str) -> Cell:
    """A cell of Markdown, sorted by the number that it begins with.

    >>> text_cell("<ins>0.0558</ins> ± 0.0006").key, text_cell("-18.3 [-21.2, -15.3] v").key
    (0.0558, -18.3)
    >>> text_cell("1,045.0").key, text_cell("reference").key
    (1045.0, None)
    """
    match = _LEADING.match(text.removeprefix("<ins>"))
    return Cell(inline(text), float(match[1].replace(",", "")) if match else None)


def plain_cell(text: object, key: float | None = None) -> Cell:
    """A cell of plain text; nothing is printed as such."""
    return Cell(escape(str(text) or EMPTY), key)


def link(href: str, text: str, kind: str = "") -> Markup:
    """A link to a page; its text as code where `kind` is "code"."""
    shown = Markup("<code>{}</code>").format(text) if kind == "code" else escape(text)
    return Markup('<a href="{}">{}</a>').format(href, shown)
