"""A Markdown page of a leaderboard taken apart, so that its HTML page says the same."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from intentbench.reports.columns import Column

_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")


@dataclass(frozen=True)
class Block:
    """A part of a page.

    Attributes:
        kind: what it is.
        text: Markdown of a line, caption of a table, description of a picture, or the code.
        file: name of a picture.
        columns: of a table, in Markdown.
        items: of a list, in Markdown.
    """

    kind: Literal["line", "table", "picture", "list", "code"]
    text: str = ""
    file: str = ""
    columns: tuple[Column, ...] = ()
    items: tuple[str, ...] = ()


@dataclass
class Chapter:
    """What stands below a heading of second order.

    Attributes:
        heading: its text; "" for what stands above the first.
        blocks: in their order.
    """

    heading: str
    blocks: list[Block] = field(default_factory=list)


def take_apart(page: str) -> list[Chapter]:
    """The chapters of a page that `render_markdown` made; the first holds what precedes them."""
    root = SyntaxTreeNode(MarkdownIt("commonmark", {"html": False}).enable("table").parse(page))
    chapters = [Chapter("")]
    caption = ""
    for node in root.children:
        if node.type == "heading":
            if node.tag == "h2":
                chapters.append(Chapter(_content(node)))
            continue
        text = _content(node) if node.type == "paragraph" else ""
        if text.endswith(":"):
            caption = text.removesuffix(":")  # of the table that follows
            continue
        chapters[-1].blocks += _block(node, text, caption)
        caption = ""
    return chapters


def _block(node: SyntaxTreeNode, text: str, caption: str) -> Iterator[Block]:
    if caption and node.type != "table":
        yield Block("line", f"{caption}:")
    if node.type == "table":
        yield Block("table", caption, columns=tuple(_columns(node)))
    elif node.type == "bullet_list":
        yield Block("list", items=tuple(_content(item.children[0]) for item in node.children))
    elif node.type == "fence":
        yield Block("code", node.content)
    elif picture := _PICTURE.fullmatch(text):
        yield Block("picture", picture[1], file=picture[2])
    elif text:
        yield Block("line", text)


def _columns(table: SyntaxTreeNode) -> Iterable[Column]:
    lines = [
        [_content(cell) for cell in row.children]
        for part in table.children
        for row in part.children
    ]
    return ((heading, cells) for heading, *cells in zip(*lines, strict=True))


def _content(node: SyntaxTreeNode) -> str:
    """The Markdown inside a heading, paragraph or cell."""
    return node.children[0].content if node.children else ""
