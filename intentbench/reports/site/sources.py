"""Which leaderboards a site shows: published ranks, or a folder of runs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from datamodules.errors import RequestError
from intentbench.reports.archive import BOARD, is_archive, read_archive
from intentbench.reports.cells import read_results
from intentbench.reports.leaderboard import Leaderboard, build_leaderboard
from intentbench.reports.plan import Plan


def load_boards(sources: Sequence[Path]) -> list[Leaderboard]:
    """Every leaderboard of some folders, each computed once, by name.

    Args:
        sources: folders of published ranks, of several of these at any depth, or of runs. A folder
            of runs makes one leaderboard, named after it.

    Raises:
        RequestError: a source holds neither, two leaderboards have one name, or their files cannot
            be read or do not belong together.
    """
    boards: dict[str, tuple[Leaderboard, Path]] = {}
    for folder in _folders(sources):
        board = _load(folder)
        if board.name in boards:
            raise RequestError(
                f"two leaderboards are named {board.name!r}: {boards[board.name][1]} and {folder}; "
                "make a site of one of them"
            )
        boards[board.name] = board, folder
    return [boards[name][0] for name in sorted(boards)]


def _folders(sources: Sequence[Path]) -> Iterable[Path]:
    """Each folder that makes a leaderboard, once, in the order given."""
    found: dict[Path, Path] = {}
    for source in sources:
        if not source.is_dir():
            raise RequestError(f"{source}: no such folder of runs or of published ranks")
        archives = sorted(path.parent for path in source.rglob(BOARD))
        for folder in archives or [source]:
            found.setdefault(folder.resolve(), folder)
    return found.values()


def _load(folder: Path) -> Leaderboard:
    if is_archive(folder):
        return build_leaderboard(*read_archive(folder))
    results = read_results(folder)
    if not results:
        raise RequestError(f"{folder}: no finished trial and no published ranks below it")
    return build_leaderboard(folder.resolve().name, Plan(), results)
