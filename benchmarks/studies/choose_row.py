"""Which row of a sweep validation chooses, where the gains level off, and what the test then says.

    python benchmarks/studies/choose_row.py leaderboards/ranks/igr-sr-tokens synthetic
        --along num_intents [--reference sasrec_ce_prefix] [--seeds 3]

Reads published ranks, or a folder of runs. Rows are sorted by the mean, over the seeds that all of
them have, of the monitored validation metric of their best epochs, ± its standard error. The first
is chosen; it alone is set against the reference on the test, all seeds of both counted, by the
procedure of all pages; and it is said how many rows validation puts above the reference. With
`--along ARGUMENT` the best row of each of the argument's values is shown, and the knee: the
smallest value whose best row is within one standard error of the chosen one (Breiman et al. 1984,
section 3.4.3); where rows share one seed it is not known.
`--seeds N` leaves rows with fewer seeds out, and names them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.errors import RequestError
from intentbench.reports.archive import is_archive, read_archive
from intentbench.reports.cells import Cell, Table, build_tables, read_results
from intentbench.stats.contrast import Contrast, contrast


class Choice(NamedTuple):
    """A row as validation sees it.

    Attributes:
        label: of the row.
        value: of the argument that is looked along; None where none is.
        mean: of the monitored metric over seeds.
        error: standard error over seeds; nan of one seed.
        seeds: their number.
    """

    label: str
    value: Any
    mean: float
    error: float
    seeds: int


def rank_rows(cells: Sequence[Cell], along: str = "") -> list[Choice]:
    """Rows by falling validation metric.

    Args:
        cells: rows with finished trials.
        along: an argument that all of them have, "" for none.

    Raises:
        RequestError: they monitored different metrics, or have no seed in common.
    """
    monitored = {cell.any_record.training["monitor"] for cell in cells}
    if len(monitored) > 1:
        raise RequestError(f"rows were chosen by different metrics: {', '.join(sorted(monitored))}")
    shared = set.intersection(*({record.seed for record in cell.records} for cell in cells))
    if not shared:
        raise RequestError("rows have no seed in common")
    choices = []
    for cell in cells:
        found = [r.validation[r.training["monitor"]] for r in cell.records if r.seed in shared]
        values = np.array(found)
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        value = cell.any_record.arguments[along] if along else None
        choices.append(Choice(cell.label, value, float(values.mean()), float(error), len(values)))
    return sorted(choices, key=lambda one: -one.mean)


def find_knee(choices: Sequence[Choice]) -> tuple[list[Choice], Choice | None]:
    """The best row of each value, by rising value, and the knee; None where all have one seed.

    Args:
        choices: by falling validation metric.
    """
    first = choices[0]
    best: dict[Any, Choice] = {}
    for one in choices:
        best.setdefault(one.value, one)
    rising = [best[value] for value in sorted(best)]
    if np.isnan(first.error):
        return rising, None
    return rising, next(one for one in rising if one.mean >= first.mean - first.error)


def compare_chosen(table: Table, chosen: str, reference: str) -> Contrast:
    """The chosen row against the reference under the table's primary metric."""
    cells = {cell.label: cell for cell in table.cells}
    ours, theirs = (table.values(cells[n].ranks, table.primary) for n in (chosen, reference))
    fixed = (cells[n].deterministic for n in (chosen, reference))
    return contrast(ours, theirs, 1.0, *fixed)


def study(folder: Path, dataset: str, along: str, reference: str, seeds: int) -> None:
    """Print everything of the module's docstring.

    Raises:
        RequestError: no such dataset, row or argument, or nothing to choose from.
    """
    if is_archive(folder):
        _, plan, results = read_archive(folder)
        reference = reference or plan.reference
    else:
        results = read_results(folder)
    tables = {table.dataset: table for table in build_tables(results)}
    if dataset not in tables:
        raise RequestError(f"no trials of {dataset}; there are: {', '.join(sorted(tables))}")
    table = tables[dataset]
    cells = [c for c in table.cells if c.records and not c.is_oracle and c.label != reference]
    if along:
        cells = [cell for cell in cells if along in cell.any_record.arguments]
    if short := [cell.label for cell in cells if len(cell.records) < seeds]:
        print(f"left out, under {seeds} seeds: {', '.join(short)}\n")
        cells = [cell for cell in cells if cell.label not in short]
    if not cells:
        raise RequestError(f"no row to choose{f' with an argument {along!r}' if along else ''}")
    choices = rank_rows(cells, along)
    print(f"{cells[0].any_record.training['monitor']} of validation, mean ± standard error")
    for one in choices:
        print(f"  {one.label:28}{one.mean:8.4f} ± {one.error:.4f}  ({one.seeds} seeds)")
    if along:
        rising, knee = find_knee(choices)
        print(f"\nbest row by {along}")
        for one in rising:
            print(f"  {one.value!s:>8}  {one.label:28}{one.mean:8.4f} ± {one.error:.4f}")
        found_knee = f"{along} {knee.value} ({knee.label})" if knee else "not known from one seed"
        print(f"knee: {found_knee}")
    own = [cell for cell in table.cells if cell.records and cell.label == reference]
    if not own:
        raise RequestError(f"no reference {reference!r} to test against; name one by --reference")
    above = [one.label for one in rank_rows([*cells, *own])].index(reference)
    print(f"\n{above} of {len(cells)} rows are above {reference} on validation")
    found = compare_chosen(table, choices[0].label, reference)
    low, high = found.relative_ends
    ends = "no finite interval" if low is None or high is None else f"{low:+.1%}, {high:+.1%}"
    print(f"chosen: {choices[0].label}; test {table.primary} {found.mean_a:.4f} against ", end="")
    print(f"{found.mean_b:.4f} of {reference}: {found.relative or 0:+.1%} [{ends}]")


def main() -> None:
    """Read, choose, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="leaderboards/ranks/NAME, or a folder of runs")
    parser.add_argument("dataset")
    parser.add_argument("--along", default="", help="an argument that rows differ in")
    parser.add_argument("--reference", default="", help="a row; the board's own if left out")
    parser.add_argument("--seeds", type=int, default=1, help="leave out rows with fewer seeds")
    options = parser.parse_args()
    try:
        study(options.folder, options.dataset, options.along, options.reference, options.seeds)
    except RequestError as error:
        raise SystemExit(f"{options.folder}: {error}") from None


if __name__ == "__main__":
    main()
