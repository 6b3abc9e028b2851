"""Text to HTML: Markdown of cells and facts, addresses in citations; all else is escaped."""

import re
from functools import cache

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

_SPECIAL = re.compile(r"[`*_\\<>&\"']")
_INSERTED = re.compile(r"&lt;ins&gt;([\w.]+)&lt;/ins&gt;")
_ADDRESS = re.compile(
    r"doi:(?P<doi>10\.\d{4,9}/[^\s,;()<>\"']*[^\s,;()<>\"'.])"
    r"|arXiv:(?P<arxiv>\d{4}\.\d{4,5})"
    r"|(?:https://)?github\.com/(?P<github>[\w-]+/[\w.-]*[\w-])",
    re.IGNORECASE,
)
_HOSTS = {
    "doi": "https://doi.org/",
    "arxiv": "https://arxiv.org/abs/",
    "github": "https://github.com/",
}


def inline(text: str) -> Markup:
    """A cell or line of Markdown: code, emphasis, escapes and `<ins>` alone; no links, no HTML.

    >>> inline("**0.5** of `<b>`")
    Markup('<strong>0.5</strong> of <code>&lt;b&gt;</code>')
    """
    if not _SPECIAL.search(text):
        return escape(text)
    html = _INSERTED.sub(r"<ins>\1</ins>", _parser().renderInline(text))
    return Markup(html)  # noqa: S704 (the parser escapes all HTML, and knows no links)


def citation(text: str) -> Markup:
    """A citation, with its DOI, arXiv number and repository as links.

    >>> citation("A & B, arXiv:2504.16077")
    Markup('A &amp; B, <a href="https://arxiv.org/abs/2504.16077">arXiv:2504.16077</a>')
    """
    parts, end = [], 0
    for match in _ADDRESS.finditer(text):
        kind, name = str(match.lastgroup), str(match[str(match.lastgroup)])
        parts.append(escape(text[end : match.start()]))
        parts.append(Markup('<a href="{}">{}</a>').format(_HOSTS[kind] + name, match[0]))
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("zero", {"html": False}).enable(["backticks", "emphasis", "escape"])
