"""What the first page shows: leaderboards, methods and datasets."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from intentbench.reports.leaderboard import FULL_SEEDS, Leaderboard, Row
from intentbench.reports.site.datasets import DatasetPage
from intentbench.reports.site.methods import MethodPage
from intentbench.reports.site.names import board_page, dataset_page, method_page
from intentbench.reports.site.tables import Cell, HtmlTable, link, make_table, plain_cell
from intentbench.results.record import TrialRecord


def index_tables(
    boards: Sequence[Leaderboard], methods: Sequence[MethodPage], datasets: Sequence[DatasetPage]
) -> dict[str, Any]:
    """The tables of the first page, by the names that its template gives them."""
    return {
        "boards": _boards(boards),
        "methods": _methods(methods),
        "datasets": _datasets(datasets),
    }


def _boards(boards: Sequence[Leaderboard]) -> HtmlTable:
    columns: list[tuple[str, list[Cell]]] = [
        ("leaderboard", [Cell(link(board_page(b.name), b.plan.title or b.name)) for b in boards]),
        ("datasets", [_dataset_links(board) for board in boards]),
        ("rows with a result", [_rows(board) for board in boards]),
        ("trials", [_count(len(_records(board))) for board in boards]),
        ("trials finished (UTC)", [plain_cell(_days(board)) for board in boards]),
        ("state", [plain_cell(_state(board)) for board in boards]),
    ]
    return make_table("Leaderboards", columns)


def _competitors(board: Leaderboard) -> list[Row]:
    """Rows without the ceilings, which are no trials of anything."""
    return [row for section in board.sections for row in section.rows if not row.ceiling]


def _records(board: Leaderboard) -> list[TrialRecord]:
    return [record for row in _competitors(board) for record in row.records]


def _dataset_links(board: Leaderboard) -> Cell:
    found = [
        link(dataset_page(section.table.dataset), section.table.dataset)
        for section in board.sections
    ]
    return Cell(Markup(", ").join(found))


def _rows(board: Leaderboard) -> Cell:
    rows = _competitors(board)
    done = sum(bool(row.means) for row in rows)
    return plain_cell(f"{done} of {len(rows)}", float(done))


def _days(board: Leaderboard) -> str:
    days = sorted(record.finished[:10] for record in _records(board) if record.finished)
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""


def _state(board: Leaderboard) -> str:
    return f"preliminary: under {FULL_SEEDS} seeds" if board.preliminary else ""


def _count(number: int) -> Cell:
    return plain_cell(f"{number:,}", float(number))


def _methods(methods: Sequence[MethodPage]) -> HtmlTable:
    columns: list[tuple[str, list[Cell]]] = [
        ("method", [Cell(link(method_page(method.key), method.title)) for method in methods]),
        ("key", [Cell(Markup("<code>{}</code>").format(method.key)) for method in methods]),
        ("paper", [Cell(method.paper) for method in methods]),
        ("rows", [_count(len(method.places)) for method in methods]),
        ("trials", [_count(len(method.trials)) for method in methods]),
    ]
    return make_table("Methods with results", columns)


def _datasets(datasets: Sequence[DatasetPage]) -> HtmlTable:
    columns: list[tuple[str, list[Cell]]] = [
        ("dataset", [Cell(link(dataset_page(dataset.name), dataset.name)) for dataset in datasets]),
        ("what it is", [plain_cell(d.entry.title if d.entry else "") for d in datasets]),
        ("rows", [_count(len(dataset.table.rows)) for dataset in datasets]),
    ]
    return make_table("Datasets with results", columns)
