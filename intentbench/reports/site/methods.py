"""What the page of a method shows: its Card, its rows on all leaderboards, and its trials."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from intentbench.reports.columns import EMPTY, short_name
from intentbench.reports.leaderboard import Row
from intentbench.reports.site.curves import Curves, find_curves
from intentbench.reports.site.names import board_page, dataset_page, row_anchor
from intentbench.reports.site.sections import SectionView, method_of
from intentbench.reports.site.tables import Cell, HtmlTable, link, make_table, plain_cell, text_cell
from intentbench.reports.site.text import citation
from intentbench.results.printable import printable
from intentbench.results.record import TrialRecord

ROOT = "../"
"""From a method's page to the root of the site."""


@dataclass(eq=False)
class MethodPage:
    """A method.

    Attributes:
        key: in METHODS.
        places: its rows, with the sections that they stand in.
        trials: all of it, done or failed, by name.
    """

    key: str
    places: list[tuple[SectionView, int, Row]] = field(default_factory=list)
    trials: dict[tuple[str, str, str], TrialRecord] = field(default_factory=dict)

    @property
    def card(self) -> dict[str, Any]:
        """The Card as its latest trial had it."""
        return max(self.trials.values(), key=lambda r: (r.finished, r.trial, r.label)).card

    @property
    def title(self) -> str:
        """As printed."""
        return str(self.card.get("title") or self.key)

    @property
    def paper(self) -> Markup:
        """Citation with links."""
        return citation(str(self.card.get("paper") or ""))

    @property
    def code(self) -> Markup:
        """Reference code with links."""
        return citation(str(self.card.get("code") or ""))

    @property
    def deviations(self) -> list[Markup]:
        """Where it departs from paper or reference code."""
        return [citation(text) for text in self.card.get("deviations", ())]

    @property
    def properties(self) -> list[str]:
        """What the Card declares beside."""
        card = self.card
        found = ["trained by gradient descent" if card.get("gradient", True) else "closed form"]
        found += ["deterministic: one run says all"] if card.get("deterministic") else []
        found += ["scores depend on who the user is"] if card.get("personal") else []
        if needs := card.get("needs"):
            found.append(f"needs {', '.join(needs)}")
        return found

    @property
    def arguments(self) -> list[tuple[str, str]]:
        """Label and arguments of each configuration, without sizes of the data."""
        found: dict[tuple[str, str], None] = {}
        for record in self.trials.values():
            own = {k: v for k, v in record.arguments.items() if k not in ("n_items", "n_users")}
            found[record.label, json.dumps(own, sort_keys=True, ensure_ascii=False)] = None
        return list(found)

    @property
    def signs(self) -> list[tuple[str, str, int, str]]:
        """Dataset, row, seed and text of every sign of trouble in training."""
        return [
            (record.dataset, record.label, record.seed, sign)
            for record in self.trials.values()
            for sign in record.signs
        ]

    @property
    def curves(self) -> list[Curves]:
        """Learning curves of the rows whose trials have them."""
        return find_curves(self.trials.values())


def method_pages(views: Sequence[SectionView]) -> list[MethodPage]:
    """A page a method that has trials, by title; the ceiling is no method.

    Args:
        views: sections of all leaderboards.
    """
    pages: dict[str, MethodPage] = {}
    for view in views:
        for number, row in enumerate(view.section.rows):
            if row.cell is None or row.ceiling:
                continue
            page = pages.setdefault(method_of(row), MethodPage(method_of(row)))
            page.places.append((view, number, row))
            for record in row.cell.records + row.cell.failed:
                page.trials[record.dataset, record.label, record.trial] = record
    return sorted(pages.values(), key=lambda page: (page.title.lower(), page.key))


def rows_table(page: MethodPage) -> HtmlTable:
    """Its rows on all leaderboards, under the metric that each is tested by."""
    lines = [_row(*place) for place in page.places]
    headings = (
        *("model", "leaderboard", "dataset", "metric", "mean ± deviation"),
        *("seeds", "tier", "against the reference, % [95 %]", "reference"),
    )
    return make_table("Rows on all leaderboards", _columns(headings, lines))


def _row(view: SectionView, number: int, row: Row) -> list[Cell]:
    primary = view.section.table.primary
    board = ROOT + board_page(view.board.name)
    anchor = f"{board}#{row_anchor(view.dataset, row.label)}"
    difference = view.section.difference(row)
    shown = [cells[number] for _, cells in view.standing]
    if page := view.comparison(row):
        html = Markup('<a href="{}">{}</a>').format(ROOT + page, shown[2].html)
        own = 0.0 if row.label == view.section.reference else None
        shown[2] = Cell(html, difference.relative if difference else own)
    return [
        Cell(link(anchor, row.label, "code")),
        Cell(link(board, view.board.name)),
        _dataset(view.dataset),
        plain_cell(short_name(primary)),
        view.accuracy[primary][number],
        *shown,
        Cell(Markup("<code>{}</code>").format(view.section.reference or EMPTY)),
    ]


def published_table(page: MethodPage) -> HtmlTable | None:
    """Figures of others, as the Card has them; None without any."""
    lines = [
        [
            plain_cell(figure["dataset"]),
            plain_cell(short_name(figure["metric"])),
            plain_cell(f"{figure['value']:.4f}", float(figure["value"])),
            Cell(citation(str(figure["source"]))),
            plain_cell(", ".join(f"{k} = {v}" for k, v in sorted(figure["when"].items()))),
        ]
        for figure in page.card.get("published", ())
    ]
    headings = ("dataset", "metric", "value", "source", "for arguments")
    return make_table("Figures of others", _columns(headings, lines)) if lines else None


def trials_table(page: MethodPage) -> HtmlTable:
    """All its trials, failed ones with their reason."""
    order = sorted(page.trials.values(), key=lambda r: (r.dataset, r.label, r.seed, r.trial))
    headings = (
        *("model", "dataset", "seed", "status", "NDCG@10", "NDCG@20", "best epoch", "epochs"),
        *("total s", "peak MiB", "device", "finished (UTC)", "commit", "trial"),
    )
    return make_table("Trials", _columns(headings, [_trial(record) for record in order]))


def _trial(record: TrialRecord) -> list[Cell]:
    cost, where = record.cost, record.environment
    status = record.status + (f": {printable(record.reason)}" if record.reason else "")
    scores = [record.metrics.get(name) for name in ("ndcg@10", "ndcg@20")]
    epoch = str(record.best_epoch + 1) if record.best_epoch >= 0 else EMPTY
    return [
        Cell(Markup("<code>{}</code>").format(record.label)),
        _dataset(record.dataset),
        plain_cell(record.seed, float(record.seed)),
        plain_cell(status),
        *(plain_cell("" if s is None else f"{s:.4f}", s) for s in scores),
        text_cell(epoch),
        text_cell(str(cost.epochs or EMPTY)),
        text_cell(f"{cost.seconds:,.1f}" if cost.seconds else EMPTY),
        text_cell(f"{cost.peak_memory_mb:,.0f}" if cost.peak_memory_mb else EMPTY),
        plain_cell(where.get("device") or ""),
        Cell(Markup("<time>{}</time>").format(record.finished[:16].replace("T", " ") or EMPTY)),
        plain_cell(str(where.get("commit") or "")[:12]),
        plain_cell(record.trial),
    ]


def _dataset(name: str) -> Cell:
    return Cell(link(ROOT + dataset_page(name), name))


def _columns(
    headings: Sequence[str], lines: Sequence[Sequence[Cell]]
) -> list[tuple[str, list[Cell]]]:
    return [(heading, [line[n] for line in lines]) for n, heading in enumerate(headings)]
