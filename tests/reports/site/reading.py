"""Pages read back with the standard library's parser, and what they hold."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "input", "img", "br", "wbr"}


@dataclass
class ReadTable:
    """Caption, headings and rows; a cell is its text and what it is sorted by."""

    caption: str = ""
    headings: list[str] = field(default_factory=list)
    rows: list[list[tuple[str, str | None]]] = field(default_factory=list)
    scopes: list[str | None] = field(default_factory=list)

    def column(self, heading: str) -> list[tuple[str, str | None]]:
        """The cells below a heading."""
        return [row[self.headings.index(heading)] for row in self.rows]


class Page(HTMLParser):
    """A page: its elements, texts and tables; a tag that is not closed in order is an error."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[ReadTable] = []
        self.scripts: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._pieces: list[list[str]] = []
        self._sort: str | None = None
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "table":
            self.tables.append(ReadTable())
        if tag == "tr" and "tbody" in self._open:
            self.tables[-1].rows.append([])
        if tag in ("td", "th"):
            self._sort = attributes.get("data-sort")
        if tag == "th":
            self.tables[-1].scopes.append(attributes.get("scope"))
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self._open.append(tag)
            self._pieces.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        text = "".join(self._pieces.pop())
        self.texts.setdefault(tag, []).append(" ".join(text.split()))
        if self._pieces and tag != "script":
            self._pieces[-1].append(text)
        if tag == "script":
            self.scripts.append(text)
        if tag == "caption":
            self.tables[-1].caption = text
        if tag in ("td", "th"):
            cell = " ".join(text.split())
            if "tbody" in self._open:
                self.tables[-1].rows[-1].append((cell, self._sort))
            else:
                self.tables[-1].headings.append(cell)

    def handle_data(self, data: str) -> None:
        if self._pieces:
            self._pieces[-1].append(data)

    def attributes(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [str(found[name]) for _, found in self.elements if found.get(name) is not None]


def read_pages(site: Path) -> dict[str, Page]:
    """Every page of a site by its path from the root."""
    return {
        str(path.relative_to(site)): Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }
