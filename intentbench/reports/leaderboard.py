"""Tables of ranks to a leaderboard: rows in order, tested, beside what others published."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from intentbench.metrics.users import primary_metric
from intentbench.reports.cells import Cell, Result, Table, build_tables
from intentbench.reports.groups import (
    GroupedRow,
    Groups,
    activity_groups,
    measure_groups,
    measure_target_groups,
    popularity_groups,
)
from intentbench.reports.noise import Study, measure_noise
from intentbench.reports.other_settings import Changes, changed_settings
from intentbench.reports.plan import REFERENCE, Plan
from intentbench.results.grouping import Grouping, shows_groups
from intentbench.results.record import TrialRecord
from intentbench.stats.across import Across, compare_across
from intentbench.stats.contrast import Contrast, find_relative_ends
from intentbench.stats.family import Family, compare_all

ALPHA = 0.05
"""Chance of any false mark in a table."""

CONTROL = re.compile(r"gaussian|ids|shuffled(@\S+)? .+")
"""Texts, as a record has them, that are none: what comes of them is nobody's published method."""

FULL_SEEDS = 5
"""Seeds below which a page is called preliminary."""


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a table.

    Attributes:
        label: its name.
        cell: its trials; None where there are none.
        seeds: those that were asked for.
        means: metric to mean over seeds and users; empty where no trial is done.
        deviations: metric to standard deviation over seeds; None with one seed.
        published: metric to the figure to compare with, as in `Published.snapshot`.
        stale: whether its code has changed since.
        tuning: how its arguments were chosen, as in `Plan`; {} where the page does not say.
        changed: its settings that the benchmark has otherwise by now.
    """

    label: str
    cell: Cell | None
    seeds: tuple[int, ...]
    means: dict[str, float]
    deviations: dict[str, float | None]
    published: dict[str, dict[str, Any]]
    stale: bool
    tuning: dict[str, Any] = field(default_factory=dict)
    changed: Changes = field(default_factory=dict)

    @property
    def ceiling(self) -> bool:
        """Whether it is the oracle: shown, but not ranked and not tested."""
        return self.cell is not None and self.cell.is_oracle

    @property
    def ranked(self) -> bool:
        """Whether it takes part in the comparison."""
        return bool(self.means) and not self.ceiling

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Of the trials that are done."""
        return self.cell.records if self.cell else ()

    @property
    def own_texts(self) -> bool:
        """Whether it stands beside a published figure and has read texts, which others made."""
        return bool(self.published and self.records[0].protocol.get("texts"))

    @property
    def complete(self) -> bool:
        """Whether every seed that was asked for is done, and none that was tried has failed."""
        if self.cell is None or self.cell.failed or not self.records:
            return False
        return self.cell.deterministic or {*self.seeds} <= {r.seed for r in self.records}

    @property
    def wanted(self) -> int:
        """Number of seeds asked for or tried."""
        if self.cell is None:
            return len(self.seeds)
        return len({*self.seeds, *(r.seed for r in self.cell.records + self.cell.failed)})


@dataclass(frozen=True, eq=False)
class Section:
    """The leaderboard of one dataset.

    Attributes:
        table: its ranks.
        rows: ranked ones by falling primary metric, then the ceiling, then those without a result.
        family: the comparison of all ranked rows; None where fewer than two.
        reference: label that differences are taken against; "" where nothing is ranked.
        noise: what noise costs the ranked rows that were measured under it.
        groups: users by activity; None where the page shows none.
        grouped: the ranked rows in each group.
        target_groups: targets by popularity of their item; None where the page shows none, or the
            popularity is not known.
        target_grouped: the ranked rows in each group of targets.
    """

    table: Table
    rows: tuple[Row, ...]
    family: Family | None
    reference: str
    noise: tuple[Study, ...] = ()
    groups: Groups | None = None
    grouped: tuple[GroupedRow, ...] = ()
    target_groups: Groups | None = None
    target_grouped: tuple[GroupedRow, ...] = ()

    @property
    def records(self) -> list[TrialRecord]:
        """Of all trials that are done."""
        return [record for row in self.rows for record in row.records]

    @property
    def tried(self) -> "Section":
        """Without the rows that nothing is known of, not even a failure."""
        return replace(self, rows=tuple(row for row in self.rows if row.cell is not None))

    def difference(self, row: Row) -> Contrast | None:
        """A ranked row against the reference; None for the reference itself."""
        if self.family is None or not row.ranked or row.label == self.reference:
            return None
        return self.family.contrasts[row.label, self.reference]


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """All that a page shows.

    Attributes:
        name: of the benchmark, and of its files.
        plan: what was asked for.
        sections: one a dataset.
        absent: datasets of which there is no trial.
        across: its ranked rows over all sections that have any; None with fewer than two of those.
    """

    name: str
    plan: Plan
    sections: tuple[Section, ...]
    absent: tuple[str, ...]
    across: Across | None = None

    @property
    def primaries(self) -> tuple[str, ...]:
        """The metrics that its sections are sorted and tested by, each once."""
        found = dict.fromkeys(section.table.primary for section in self.sections)
        return tuple(found) or (primary_metric(""),)

    @property
    def preliminary(self) -> bool:
        """Whether a stochastic row has fewer than `FULL_SEEDS` seeds."""
        return any(
            len(row.records) < FULL_SEEDS
            for section in self.sections
            for row in section.rows
            if row.ranked and row.cell is not None and not row.cell.deterministic
        )


def build_leaderboard(name: str, plan: Plan, results: Iterable[Result]) -> Leaderboard:
    """Everything that a page shows, computed from ranks.

    Raises:
        RequestError: the trials do not belong together; see `build_tables`.
    """
    tables = {table.dataset: table for table in build_tables(results)}
    cells = [cell for table in tables.values() for cell in table.cells]
    # The ceiling exists on synthetic data only: elsewhere it is not missing.
    competitors = sorted(cell.label for cell in cells if not cell.is_oracle)
    labels = tuple(dict.fromkeys([*plan.labels, *competitors]))
    stochastic = [cell for cell in cells if not cell.deterministic]
    found = sorted({r.seed for cell in stochastic for r in cell.records + cell.failed})
    seeds = plan.seeds or tuple(found)
    order = dict.fromkeys([*plan.datasets, *sorted(tables)])
    sections = tuple(
        _section(tables[dataset], labels, seeds, plan) for dataset in order if dataset in tables
    )
    absent = tuple(dataset for dataset in order if dataset not in tables)
    return Leaderboard(name, plan, sections, absent, _across(sections, plan))


def _across(sections: tuple[Section, ...], plan: Plan) -> Across | None:
    means = {
        section.table.dataset: {
            row.label: row.means[section.table.primary] for row in section.rows if row.ranked
        }
        for section in sections
        if any(row.ranked for row in section.rows)
    }
    if len(means) < 2:
        return None
    families = {
        section.table.dataset: section.family for section in sections if section.family is not None
    }
    # A reference that lacks a dataset gives way to all pairs, as it does on that dataset.
    everywhere = all(plan.reference in found for found in means.values())
    reference = plan.reference if plan.family == REFERENCE and everywhere else None
    return compare_across(means, families, ALPHA, plan.correction, reference)


def _section(table: Table, labels: tuple[str, ...], seeds: tuple[int, ...], plan: Plan) -> Section:
    cells = {cell.label: cell for cell in table.cells}
    names = dict.fromkeys([*labels, *cells])
    rows = [_row(table, label, cells.get(label), seeds, plan) for label in names]
    ranked = {row.label: row for row in rows if row.ranked}
    family = None
    if len(ranked) > 1:
        values = {label: table.values(cells[label].ranks, table.primary) for label in ranked}
        fixed = {label for label in ranked if cells[label].deterministic}
        # Another reference than the one that was named would be chosen by the results.
        alone = plan.family == REFERENCE and plan.reference in ranked
        family = compare_all(
            values, fixed, ALPHA, plan.correction, plan.reference if alone else None
        )
    rows.sort(key=lambda row: (_group(row), -row.means.get(table.primary, 0.0), row.label))
    best = next((row.label for row in rows if row.ranked), "")
    reference = plan.reference if plan.reference in ranked else best
    measured = [row.cell for row in rows if row.ranked and row.cell]
    noise = measure_noise(table, measured, table.primary, ALPHA)
    section = Section(table, tuple(rows), family, reference, noise)
    find_relative_ends(found for row in rows if (found := section.difference(row)))
    return _grouped(section, measured, plan.groups) if measured else section


def _grouped(section: Section, cells: list[Cell], grouping: Grouping) -> Section:
    """A section with its rows by activity of users and, where known, by popularity of items.

    Cuts that were named are of users: targets have no groups then.
    """
    if not shows_groups(grouping):
        return section
    table = section.table
    rule = (section.reference, table.primary, ALPHA)
    users = activity_groups(table.user, table.key, grouping)
    rows = tuple(measure_groups(table, users, cells, *rule))
    section = replace(section, groups=users, grouped=rows)
    if table.popularity is None or isinstance(grouping, tuple):
        return section
    targets = popularity_groups(table.popularity, table.user, grouping)
    rows = tuple(measure_target_groups(table, targets, cells, *rule))
    return replace(section, target_groups=targets, target_grouped=rows)


def _group(row: Row) -> int:
    return 0 if row.ranked else 1 if row.ceiling else 2


def _row(table: Table, label: str, cell: Cell | None, seeds: tuple[int, ...], plan: Plan) -> Row:
    means: dict[str, float] = {}
    deviations: dict[str, float | None] = {}
    published: dict[str, dict[str, Any]] = {}
    if cell is not None and cell.records:
        for metric, by_seed in cell.means.items():
            means[metric] = float(by_seed.mean())
            deviations[metric] = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None
            if (figure := find_published(cell.records[0], metric)) is not None:
                published[metric] = figure
    if cell is not None and cell.deterministic:
        seeds = (0,)
    code = plan.code.get(label)
    stale = cell is not None and code is not None and any(r.code != code for r in cell.records)
    tuning = plan.tuning.get(table.dataset, {}).get(label, {})
    found = tuning.get("arguments", {})
    # a row may have been run before its values were tuned
    if cell is not None and any(
        r.arguments.get(name) != value for r in cell.records for name, value in found.items()
    ):
        tuning = {}
    now = plan.settings.get(table.dataset, {}).get(label)
    changed = changed_settings(cell.any_record, now) if cell is not None and now else {}
    return Row(label, cell, seeds, means, deviations, published, stale, tuning, changed)


def find_published(record: TrialRecord, metric: str) -> dict[str, Any] | None:
    """The published figure that a trial is to be compared with.

    Of those that fit, the one with the most conditions, and among equals the first on the Card;
    None where there is none.
    """
    fitting = all_published(record, metric)
    return max(fitting, key=lambda figure: len(figure["when"]), default=None)


def all_published(record: TrialRecord, metric: str) -> list[dict[str, Any]]:
    """The published figures for a trial's dataset and a metric whose conditions it meets.

    None for a trial on a control in place of texts.
    """
    if CONTROL.fullmatch(str(record.protocol.get("texts", ""))):
        return []
    return [
        figure
        for figure in record.card.get("published", ())
        if figure["dataset"] == record.dataset
        and figure["metric"] == metric
        and all(record.arguments.get(name) == value for name, value in figure["when"].items())
    ]
