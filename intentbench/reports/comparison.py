"""Two models, or two folders of runs, against each other on every dataset that they share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.errors import RequestError
from intentbench.reports.archive import is_archive, read_archive
from intentbench.reports.cells import Cell, Ranks, Result, Table, build_tables, read_results
from intentbench.reports.leaderboard import ALPHA
from intentbench.results.record import TrialRecord
from intentbench.stats.contrast import Contrast, contrast
from intentbench.stats.correction import adjust
from intentbench.stats.effects import Effect, measure_effect


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


def read_folder(folder: Path) -> list[Result]:
    """Trials of a folder of runs, or of published ranks.

    Raises:
        RequestError: it is neither, or cannot be read.
    """
    return read_archive(folder)[2] if is_archive(folder) else read_results(folder)


def compare_labels(folder: Path, a: str, b: str, metric: str | None = None) -> list[Comparison]:
    """Two rows of one leaderboard, on every dataset that has both.

    Args:
        folder: of runs or of published ranks.
        a: label.
        b: label.
        metric: as in `intentbench.metrics.users`; None for that which a page tests.

    Raises:
        RequestError: no dataset has both, or no such metric.
    """
    results = read_folder(folder)
    labels = sorted({record.label for record, _ in results})
    for label in (a, b):
        if label not in labels:
            raise RequestError(f"{folder}: no row {label!r}; there are {', '.join(labels)}")
    tables = build_tables(result for result in results if result[0].label in (a, b))
    found = _compare(tables, [(a, b)], metric)
    if not found:
        raise RequestError(f"{folder}: no dataset has finished trials of both {a} and {b}")
    return found


def compare_folders(a: Path, b: Path, metric: str | None = None) -> list[Comparison]:
    """The same rows in two folders, on every dataset that both have.

    Where each folder has a single row, these two are compared whatever their names.

    Args:
        a: of runs or of published ranks.
        b: likewise.
        metric: as in `intentbench.metrics.users`; None for that which a page tests.

    Raises:
        RequestError: they share no row, or differ in data, protocol or targets.
    """
    sides = [_prefixed(folder) for folder in (a, b)]
    labels_a, labels_b = ({record.label: name for record, name, _ in side} for side in sides)
    pairs = [(x, y) for x, p in labels_a.items() for y, q in labels_b.items() if p == q]
    if not pairs and len(labels_a) == len(labels_b) == 1:
        pairs = list(zip(labels_a, labels_b, strict=True))
    wanted = {label for pair in pairs for label in pair}
    both = [(record, ranks) for side in sides for record, _, ranks in side]
    found = _compare(build_tables(r for r in both if r[0].label in wanted), pairs, metric)
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
    lines = [f"{what}, A against B; users and seeds are random, Holm over {len(found)}", ""]
    for one in found:
        test, effect = one.contrast, one.effect
        relative = "not defined"
        if test.relative is not None:
            relative = f"{test.relative:+.2%}"
            if test.relative_low is not None and test.relative_high is not None:
                relative += f"  [{test.relative_low:+.2%}, {test.relative_high:+.2%}]"
        p = "-" if one.p_adjusted is None else f"{one.p_adjusted:.3g}"
        total = effect.won + effect.tied + effect.lost
        lines += [
            one.dataset if metric else f"{one.dataset}, {one.metric}",
            f"  A {test.mean_a:.4f}  {one.label_a} ({_count(one.seeds_a)})",
            f"  B {test.mean_b:.4f}  {one.label_b} ({_count(one.seeds_b)})",
            f"  difference {test.est:+.5f}  [{test.low:+.5f}, {test.high:+.5f}]",
            f"  relative   {relative}",
            f"  t {test.t:.3f}, df {test.df:.1f}, p {test.p:.3g}, corrected {p}: {_verdict(one)}",
            f"  users won {effect.won:,}, tied {effect.tied:,}, lost {effect.lost:,} of {total:,}",
            *(f"  note: {note}" for note in test.notes),
            "",
        ]
    return "\n".join(lines)


def _compare(
    tables: Sequence[Table], pairs: Sequence[tuple[str, str]], metric: str | None
) -> list[Comparison]:
    made: list[tuple[Table, str, Cell, Cell, Contrast, Effect]] = []
    for table in tables:
        cells = {cell.label: cell for cell in table.cells if cell.records}
        for a, b in pairs:
            if a in cells and b in cells:
                name = metric or table.primary
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
        )
        for (table, name, a, b, test, effect), p in zip(made, adjusted, strict=True)
    ]


def _prefixed(folder: Path) -> list[tuple[TrialRecord, str, Ranks | None]]:
    """Trials labelled by their folder, so that both sides fit into one table."""
    return [
        (replace(record, label=f"{folder}: {record.label}"), record.label, ranks)
        for record, ranks in read_folder(folder)
    ]


def _verdict(one: Comparison) -> str:
    if one.p_adjusted is None:
        return "no verdict"
    if one.p_adjusted >= ALPHA:
        return "not separated"
    return "A is better" if one.contrast.est > 0 else "B is better"


def _count(seeds: int) -> str:
    return f"{seeds} seed{'s' if seeds > 1 else ''}"
