"""Two models, or two folders of runs, against each other on every dataset that they share."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from datamodules.errors import RequestError
from intentbench.reports.archive import is_archive, read_archive, read_trials
from intentbench.reports.cells import Cell, Ranks, Result, Table, build_tables, read_results
from intentbench.reports.groups import activity_groups, measure_groups
from intentbench.reports.leaderboard import ALPHA
from intentbench.results.external import require_metric
from intentbench.results.grouping import Grouping, shows_groups
from intentbench.results.record import TrialRecord
from intentbench.results.store import RESULT
from intentbench.stats.contrast import Contrast, contrast
from intentbench.stats.correction import adjust
from intentbench.stats.effects import Effect, measure_effect


@dataclass(frozen=True)
class GroupDifference:
    """A against B in users of like activity.

    Attributes:
        heading: interactions of such a user, as on a page.
        users: how many there are.
        contrast: the test; its interval and p are not corrected.
    """

    heading: str
    users: int
    contrast: Contrast


@dataclass(frozen=True)
class Comparison:
    """A against B on one dataset.

    Attributes:
        dataset: where.
        metric: of users.
        label_a: row that stands for A.
        label_b: row that stands for B.
        seeds_a: number of A's seeds.
        seeds_b: number of B's seeds.
        contrast: the test.
        effect: its size.
        p_adjusted: corrected over all comparisons made together; None where seeds are unknown.
        groups: users by activity; empty where none were asked for.
    """

    dataset: str
    metric: str
    label_a: str
    label_b: str
    seeds_a: int
    seeds_b: int
    contrast: Contrast
    effect: Effect
    p_adjusted: float | None
    groups: tuple[GroupDifference, ...] = ()

    @property
    def verdict(self) -> str:
        """What the corrected test says."""
        if self.p_adjusted is None:
            return "no verdict"
        if self.p_adjusted >= ALPHA:
            return "not separated"
        return "A is better" if self.contrast.est > 0 else "B is better"


def read_folder(path: Path) -> list[Result]:
    """Trials of one side.

    Args:
        path: a folder of runs or of one trial; a trial's `result.json`; published ranks, or the
            file of one row in them, `ranks/<name>/<dataset>/<label>.json`.

    Raises:
        RequestError: it is none of these, or cannot be read.
    """
    if path.is_dir():
        return read_trials(path)
    if path.name == RESULT and path.is_file():
        return read_results(path.parent)
    board = path.parent.parent
    if path.suffix == ".json" and path.is_file() and is_archive(board):
        place = path.parent.name, path.stem
        return [found for found in read_archive(board)[2] if _place(found[0]) == place]
    raise RequestError(
        f"{path}: no folder of trials, no {RESULT} and no row of published ranks; give one of these"
    )


def compare_labels(
    folder: Path, a: str, b: str, metric: str | None = None, groups: Grouping = 0
) -> list[Comparison]:
    """Two rows of one leaderboard, on every dataset that has both.

    Args:
        folder: of runs or of published ranks.
        a: label.
        b: label.
        metric: as in `intentbench.metrics.users`; None for that which a page tests.
        groups: of users by activity: how many (0 or 1 for none), or where they are cut.

    Raises:
        RequestError: no dataset has both, or no such metric.
    """
    if a == b:
        raise RequestError(f"{a} and {b} are the same row; give two")
    results = read_folder(folder)
    labels = sorted({record.label for record, _ in results})
    if not labels:
        raise RequestError(f"{folder}: no finished trials in it; name another with --runs")
    for label in (a, b):
        if label not in labels:
            raise RequestError(f"{folder}: no row {label!r}; there are {', '.join(labels)}")
    tables = build_tables(result for result in results if result[0].label in (a, b))
    found = _compare(tables, [(a, b)], metric, groups)
    if not found:
        raise RequestError(f"{folder}: no dataset has finished trials of both {a} and {b}")
    return found


def compare_folders(
    a: Path, b: Path, metric: str | None = None, groups: Grouping = 0
) -> list[Comparison]:
    """The same rows on two sides, on every dataset that both have.

    Where each side has a single row, these two are compared whatever their names.

    Args:
        a: as of `read_folder`.
        b: likewise.
        metric: as in `intentbench.metrics.users`; None for that which a page tests.
        groups: of users by activity: how many (0 or 1 for none), or where they are cut.

    Raises:
        RequestError: they share no row, or differ in data, protocol or targets.
    """
    if a.resolve() == b.resolve():
        raise RequestError(f"{a} and {b} are the same; give two")
    sides = [_prefixed(folder) for folder in (a, b)]
    labels_a, labels_b = ({record.label: name for record, name, _ in side} for side in sides)
    pairs = [(x, y) for x, p in labels_a.items() for y, q in labels_b.items() if p == q]
    if not pairs and len(labels_a) == len(labels_b) == 1:
        pairs = list(zip(labels_a, labels_b, strict=True))
    wanted = {label for pair in pairs for label in pair}
    both = [(record, ranks) for side in sides for record, _, ranks in side]
    tables = build_tables(result for result in both if result[0].label in wanted)
    found = _compare(tables, pairs, metric, groups)
    if not found:
        raise RequestError(f"{a} and {b} share no row with finished trials")
    return found


def render_comparisons(found: Sequence[Comparison], metric: str | None = None) -> str:
    """Comparisons as a text for the terminal.

    Args:
        found: made together.
        metric: that they were made in; None: each was made in its own, which is said with it.
    """
    what = metric or "Primary metrics"
    tested = sum(one.p_adjusted is not None for one in found)
    corrected = f"Holm over {tested}" if tested else "nothing could be tested"
    lines = [f"{what}, A against B; users and seeds are random, {corrected}", ""]
    for one in found:
        test, effect = one.contrast, one.effect
        p = "-" if one.p_adjusted is None else f"{one.p_adjusted:.3g}"
        total = effect.won + effect.tied + effect.lost
        lines += [
            one.dataset if metric else f"{one.dataset}, {one.metric}",
            f"  A {test.mean_a:.4f}  {one.label_a} ({_count(one.seeds_a)})",
            f"  B {test.mean_b:.4f}  {one.label_b} ({_count(one.seeds_b)})",
            f"  difference {test.est:+.5f}  [{test.low:+.5f}, {test.high:+.5f}]",
            f"  relative   {_relative(test)}",
            f"  t {test.t:.3f}, df {test.df:.1f}, p {test.p:.3g}, corrected {p}: {one.verdict}",
            f"  users won {effect.won:,}, tied {effect.tied:,}, lost {effect.lost:,} of {total:,}",
            *(f"  note: {note}" for note in test.notes),
            *_group_lines(one.groups),
            "",
        ]
    return "\n".join(lines)


def render_json(found: Sequence[Comparison]) -> bytes:
    """Comparisons with everything that was computed; a number that JSON cannot say is null."""
    content = [
        {
            **vars(one),
            "contrast": one.contrast.figures(),
            "effect": vars(one.effect),
            "groups": [
                {**vars(group), "contrast": group.contrast.figures()} for group in one.groups
            ],
            "verdict": one.verdict,
            "alpha": ALPHA,
        }
        for one in found
    ]
    return (json.dumps(_plain(content), indent=1, allow_nan=False) + "\n").encode()


def _compare(
    tables: Sequence[Table],
    pairs: Sequence[tuple[str, str]],
    metric: str | None,
    groups: Grouping,
) -> list[Comparison]:
    made: list[tuple[Table, str, Cell, Cell, Contrast, Effect]] = []
    for table in tables:
        cells = {cell.label: cell for cell in table.cells if cell.records}
        for a, b in pairs:
            if a in cells and b in cells:
                name = metric or table.primary
                require_metric(cells[a].records + cells[b].records, name)
                x, y = (table.values(cells[label].ranks, name) for label in (a, b))
                test = contrast(
                    x,
                    y,
                    deterministic_a=cells[a].deterministic,
                    deterministic_b=cells[b].deterministic,
                    alpha=ALPHA,
                )
                made.append((table, name, cells[a], cells[b], test, measure_effect(x, y, test)))
    adjusted = adjust([test.p if test.judged else None for *_, test, _ in made])
    return [
        Comparison(
            dataset=table.dataset,
            metric=name,
            label_a=a.label,
            label_b=b.label,
            seeds_a=len(a.records),
            seeds_b=len(b.records),
            contrast=test,
            effect=effect,
            p_adjusted=p,
            groups=_in_groups(table, a, b, name, groups),
        )
        for (table, name, a, b, test, effect), p in zip(made, adjusted, strict=True)
    ]


def _in_groups(
    table: Table, a: Cell, b: Cell, metric: str, grouping: Grouping
) -> tuple[GroupDifference, ...]:
    """A against B in each group of users, as a page has it."""
    if not shows_groups(grouping):
        return ()
    groups = activity_groups(table.user, table.key, grouping)
    row, _ = measure_groups(table, groups, [a, b], b.label, metric, ALPHA)
    parts = zip(groups.headings, groups.sizes, row.differences or (), strict=True)
    return tuple(GroupDifference(*part) for part in parts)


def _group_lines(groups: Sequence[GroupDifference]) -> list[str]:
    if not groups:
        return []
    width = max(len(group.heading) for group in groups)
    return [
        "  users by their interactions, not corrected:",
        *(
            f"    {group.heading:{width}}  {group.users:>7,} users  {_relative(group.contrast)}"
            for group in groups
        ),
    ]


def _relative(test: Contrast) -> str:
    if test.relative is None:
        return "not defined"
    if test.relative_low is None or test.relative_high is None:
        return f"{test.relative:+.2%}"
    return f"{test.relative:+.2%}  [{test.relative_low:+.2%}, {test.relative_high:+.2%}]"


def _prefixed(path: Path) -> list[tuple[TrialRecord, str, Ranks | None]]:
    """Trials labelled by their side, so that both fit into one table."""
    return [
        (replace(record, label=f"{path}: {record.label}"), record.label, ranks)
        for record, ranks in read_folder(path)
    ]


def _place(record: TrialRecord) -> tuple[str, str]:
    return record.dataset, record.label


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _count(seeds: int) -> str:
    return f"{seeds} seed{'s' if seeds > 1 else ''}"
