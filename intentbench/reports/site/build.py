"""The site: every page from leaderboards, each computed once."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datamodules.errors import RequestError
from intentbench.reports.exports import render_csv, render_json
from intentbench.reports.leaderboard import Leaderboard
from intentbench.reports.publish import make_pictures
from intentbench.reports.site import names
from intentbench.reports.site.boards import board_chapters
from intentbench.reports.site.compare import matrix, pairs_data
from intentbench.reports.site.datasets import dataset_pages
from intentbench.reports.site.index import index_tables
from intentbench.reports.site.methods import method_pages, published_table, rows_table, trials_table
from intentbench.reports.site.sections import SectionView
from intentbench.reports.site.sources import load_boards
from intentbench.reports.site.text import inline
from intentbench.results.store import write_atomic

HERE = Path(__file__).parent
STATIC = ("style.css", "tables.js", "compare.js", "tablesort/tablesort.min.js", "tablesort/LICENCE")
"""Files that every site has, below `static/`."""

LIST = ".intentbench-site"
"""File in a site's folder that names every other file of it."""


def write_site(sources: Sequence[Path], out: Path) -> list[Path]:
    """Write a static site; the same sources give the same bytes.

    Args:
        sources: see `load_boards`.
        out: folder of the site: a new or empty one, or that of an earlier site, whose other files
            are removed.

    Returns:
        The files written.

    Raises:
        RequestError: see `load_boards`, or the folder holds something else.
        OSError: the disk is full or may not be written.
    """
    earlier = _earlier(out)
    files = make_site(load_boards(sources))
    for name, content in files.items():
        write_atomic(out / name, content)
    write_atomic(out / LIST, "".join(f"{name}\n" for name in sorted(files)).encode())
    for name in earlier - files.keys():
        (out / name).unlink(missing_ok=True)
    return [out / name for name in files]


def make_site(boards: Sequence[Leaderboard]) -> dict[str, bytes]:
    """Name and content of every file of a site.

    Args:
        boards: leaderboards of different names.
    """
    views = [SectionView(board, section) for board in boards for section in board.sections]
    methods, datasets = method_pages(views), dataset_pages(views)
    files = {f"static/{name}": (HERE / "static" / name).read_bytes() for name in STATIC}
    files["index.html"] = _page("index", "index.html", **index_tables(boards, methods, datasets))
    for board in boards:
        files |= _board(board, [view for view in views if view.board is board])
    for method in methods:
        files[names.method_page(method.key)] = _page(
            "method",
            names.method_page(method.key),
            method=method,
            rows=rows_table(method),
            published=published_table(method),
            trials=trials_table(method),
        )
    for dataset in datasets:
        page = names.dataset_page(dataset.name)
        files[page] = _page("dataset", page, dataset=dataset)
    return files


def _board(board: Leaderboard, views: Sequence[SectionView]) -> dict[str, bytes]:
    """The page of a leaderboard, what it shows and links to, and its comparisons."""
    page = names.board_page(board.name)
    stem = page.removesuffix(".html")
    files = {
        f"{stem}.json": render_json(board).encode(),
        f"{stem}.csv": render_csv(board).encode(),
    }
    chapters = board_chapters(board, views)
    shown = {part.file for chapter in chapters for part in chapter.parts if part.file}
    pictures = {}
    for name, content in make_pictures(board).items():
        if name in shown:
            pictures[name] = f"boards/{names.slug(name.removesuffix('.svg'))}.svg"
            files[pictures[name]] = content
    files[page] = _page(
        "board",
        page,
        board=board,
        chapters=chapters,
        pictures=pictures,
    )
    for view in views:
        if view.comparable:
            own = names.compare_page(board.name, view.dataset)
            files[own] = _page(
                "compare", own, view=view, pairs=pairs_data(view), matrix=matrix(view)
            )
    return files


def _page(template: str, name: str, **content: Any) -> bytes:
    """Render a page; `root` leads from it to the root of the site."""
    root = "../" * name.count("/")
    return _templates().get_template(f"{template}.html").render(root=root, **content).encode()


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "board_page": names.board_page,
        "dataset_page": names.dataset_page,
        "slug": names.slug,
    }
    environment.filters["inline"] = inline
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def _earlier(out: Path) -> set[str]:
    """Files of the site that stands in a folder; nothing where it is new or empty.

    Raises:
        RequestError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out}: is a file; name a folder for the site")
    if not out.is_dir() or not any(out.iterdir()):
        return set()
    try:
        found = set((out / LIST).read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        raise RequestError(
            f"{out}: holds files that are no site; name a new or empty folder"
        ) from None
    return {name for name in found if ".." not in Path(name).parts and not Path(name).is_absolute()}
