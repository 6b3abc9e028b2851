"""Runs to published pages: ranks are copied first, and pages are made from the copy alone.

So whoever has the copy makes the same pages, byte for byte.
"""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from datamodules.errors import RequestError
from intentbench.reports.archive import read_archive, write_archive
from intentbench.reports.aside import start_aside
from intentbench.reports.cells import Result, build_tables, read_results
from intentbench.reports.cost_pictures import cost_points, draw_costs
from intentbench.reports.critical_difference import (
    critical_difference_picture_name,
    draw_critical_difference,
    has_critical_difference,
)
from intentbench.reports.curves import draw_curves, has_curves
from intentbench.reports.exports import render_csv, render_json
from intentbench.reports.figures import picture_name
from intentbench.reports.group_tables import (
    draw_groups,
    draw_popularity,
)
from intentbench.reports.history import history_line, read_history
from intentbench.reports.interval_pictures import draw_intervals
from intentbench.reports.leaderboard import Leaderboard, build_leaderboard
from intentbench.reports.markdown import render_markdown
from intentbench.reports.noise_tables import draw_noise
from intentbench.reports.plan import Plan
from intentbench.reports.sweeps import draw_sweeps, find_sweeps
from intentbench.results.store import write_atomic

RANKS = "ranks"
"""Folder beside the pages that holds what they were computed from."""

_PICTURE_LINK = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


def publish(runs: Path, name: str, out: Path, plan: Plan | None = None) -> list[Path]:
    """Publish everything below a folder of runs.

    Args:
        runs: root of runs, or a folder in it.
        name: of the leaderboard; its files are `<out>/<name>.md`, `.csv`, `.json`, the pictures
            that `make_pictures` tells of, and `<out>/ranks/<name>/`.
        out: folder of all leaderboards.
        plan: what the benchmark asked for; None takes everything from the trials.

    Returns:
        The pages written.

    Raises:
        RequestError: no trials, trials that do not belong together, or files that cannot be read.
        OSError: the disk is full or may not be written.
    """
    return publish_results(read_results(runs), name, out, plan or Plan())


def publish_results(results: Iterable[Result], name: str, out: Path, plan: Plan) -> list[Path]:
    """Publish chosen trials, as `publish` does for all below a folder."""
    folder = out / RANKS / name
    tables = build_tables(results)
    if not tables:
        raise RequestError(f"{name}: no finished trial to publish; run the benchmark first")
    write_archive(folder, name, plan, tables)
    return render(folder, out)


def render(folder: Path, out: Path) -> list[Path]:
    """Write the pages of published ranks, and remove pictures that the page shows no more.

    Args:
        folder: `leaderboards/ranks/<name>`.
        out: folder of all leaderboards.

    Returns:
        The pages written.

    Raises:
        RequestError: see `make_pages`.
        OSError: the disk is full or may not be written.
    """
    pages = make_pages(folder)
    page = out / f"{folder.name}.md"
    stale = [name for name in shown_pictures(page) if name not in pages]
    for name, content in pages.items():
        write_atomic(out / name, content)
    for name in stale:
        if name.startswith(f"{folder.name}.") and "/" not in name:
            (out / name).unlink(missing_ok=True)
    return [out / name for name in pages]


def shown_pictures(page: Path) -> list[str]:
    """The pictures that a page links to, each once; none where there is no page."""
    if not page.is_file():
        return []
    links = _PICTURE_LINK.findall(page.read_text(encoding="utf-8", errors="replace"))
    return list(dict.fromkeys(links))


def make_pages(folder: Path) -> dict[str, bytes]:
    """Name and content of every page of published ranks.

    Raises:
        RequestError: the ranks cannot be read, or do not belong together.
    """
    name, plan, results = read_archive(folder)
    board = build_leaderboard(name, plan, results)
    replaced = history_line(read_history(folder))
    pictures = start_aside(partial(make_pictures, board))  # with many rows, 40 % of the time
    pages = {
        f"{name}.md": render_markdown(board, replaced).encode(),
        f"{name}.csv": render_csv(board).encode(),
        f"{name}.json": render_json(board).encode(),
    }
    return pages | pictures()


def make_pictures(board: Leaderboard) -> dict[str, bytes]:
    """Name and content of every picture of a leaderboard.

    `<name>.<dataset>.intervals.svg` where rows are compared, `.costs.svg` where `FEWEST` and more
    have a cost, `.curves.svg` where a trial kept its validations, `.noise.svg` where rows were
    measured under noise, `.groups.svg` where groups of users are shown, `.popularity.svg` where
    groups of targets are, `.sweeps.svg` where rows differ in one number alone;
    `<name>.critical-difference.svg` where all pairs were tested over datasets.
    """
    pictures = {}
    name = board.name
    if has_critical_difference(board.across):
        pictures[critical_difference_picture_name(name)] = draw_critical_difference(board.across)
    for section in board.sections:
        dataset = section.table.dataset
        if section.family:
            pictures[picture_name(name, dataset, "intervals")] = draw_intervals(section)
        if cost_points(section):
            pictures[picture_name(name, dataset, "costs")] = draw_costs(section)
        if has_curves(section):
            pictures[picture_name(name, dataset, "curves")] = draw_curves(section)
        if section.noise:
            pictures[picture_name(name, dataset, "noise")] = draw_noise(section)
        if section.groups:
            pictures[picture_name(name, dataset, "groups")] = draw_groups(section)
        if section.target_groups:
            pictures[picture_name(name, dataset, "popularity")] = draw_popularity(section)
        if find_sweeps(section):
            pictures[picture_name(name, dataset, "sweeps")] = draw_sweeps(section)
    return pictures
