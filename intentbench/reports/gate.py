"""The regression gate: are runs no worse than the baseline that was accepted?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import RequestError
from intentbench.reports.cells import Cell, Table, shared_protocol
from intentbench.reports.columns import code, percent
from intentbench.reports.gate_baseline import judged_cells, read_baseline, read_tables
from intentbench.results.external import require_metric
from intentbench.stats.contrast import USERS_ONLY
from intentbench.stats.gate import (
    MARGIN,
    MOST_SEEDS,
    GateTest,
    Verdict,
    check_margin,
    give_verdicts,
    judge_margin,
    sum_up,
)


@dataclass(frozen=True)
class GateCell:
    """One row on one dataset.

    Attributes:
        dataset: where.
        label: of the row.
        metric: that was tested.
        verdict: corrected for the number of cells.
        reason: why the gate cannot tell; "" where it can.
        test: what it follows from.
        seeds_new: finished seeds of the new side.
        seeds_base: seeds of the baseline.
        failed: seed to reason of the new side's failed trials.
    """

    dataset: str
    label: str
    metric: str
    verdict: Verdict
    reason: str
    test: GateTest
    seeds_new: int
    seeds_base: int
    failed: dict[int, str]


@dataclass(frozen=True)
class GateReport:
    """What the gate says of a folder of runs.

    Attributes:
        runs: the folder.
        baseline: what it was held against.
        margin: share of the baseline's mean that may be lost.
        cells: every row of the baseline.
        unjudged: dataset and label of rows that the baseline does not have.
    """

    runs: Path
    baseline: Path
    margin: float
    cells: tuple[GateCell, ...]
    unjudged: tuple[tuple[str, str], ...]

    @property
    def verdict(self) -> Verdict:
        """Of all cells together."""
        return sum_up([cell.verdict for cell in self.cells])

    @property
    def n_tests(self) -> int:
        """Size of the family that "worse" is corrected over."""
        return sum(cell.test.p_worse is not None for cell in self.cells)


def check_runs(
    runs: Path, baseline: Path, margin: float = MARGIN, metric: str | None = None
) -> GateReport:
    """Hold runs against a baseline.

    Args:
        runs: folder of runs, or of published ranks.
        baseline: file of `--update`, or folder of published ranks.
        margin: share of the baseline's mean that may be lost.
        metric: as in `intentbench.metrics.users`; None for that which a page tests.

    Raises:
        RequestError: a row of the baseline has no result in the runs; the two differ in data,
            protocol or targets; a file is damaged; there is no such metric or margin; or lists
            that were imported are too short to give the metric.
    """
    check_margin(margin)
    old = {table.dataset: table for table in read_baseline(baseline)}
    new = {table.dataset: table for table in read_tables(runs)}
    _require_all(runs, baseline, old, new)
    judged: list[tuple[Table, str, Cell, Cell, GateTest]] = []
    for dataset, table in old.items():
        _require_same(runs, baseline, table, new[dataset])
        fresh = {cell.label: cell for cell in new[dataset].cells}
        name = metric or table.primary
        for cell in judged_cells(table):
            test = _judge(table, name, fresh[cell.label], cell, margin)
            judged.append((table, name, fresh[cell.label], cell, test))
    verdicts = give_verdicts([test for *_, test in judged])
    cells = []
    for (table, name, now, cell, test), found in zip(judged, verdicts, strict=True):
        failed = {record.seed: record.reason for record in now.failed}
        # A seed that fails may be the very regression: the others cannot pass without it.
        verdict = Verdict.CANNOT_TELL if failed and found is Verdict.PASS else found
        reason = _reason(test, failed, margin) if verdict is Verdict.CANNOT_TELL else ""
        seeds = len(now.records), len(cell.records)
        cells.append(
            GateCell(table.dataset, cell.label, name, verdict, reason, test, *seeds, failed)
        )
    known = {(cell.dataset, cell.label) for cell in cells}
    places = {(d, cell.label) for d, t in new.items() for cell in t.cells if not cell.is_oracle}
    return GateReport(runs, baseline, margin, tuple(cells), tuple(sorted(places - known)))


def _judge(table: Table, metric: str, new: Cell, base: Cell, margin: float) -> GateTest:
    require_metric(new.records + base.records, metric)
    return judge_margin(
        table.values(new.ranks, metric),
        table.values(base.ranks, metric),
        margin,
        unchanged=np.array_equal(new.ranks, base.ranks),
        deterministic_new=new.deterministic,
        deterministic_base=base.deterministic,
    )


def _reason(test: GateTest, failed: dict[int, str], margin: float) -> str:
    """Why a cell is left open."""
    if failed:
        return "; ".join(
            f"seed {seed} failed: {code(' '.join(why.split()))}" for seed, why in failed.items()
        )
    if USERS_ONLY in test.contrast.notes:
        return "a single seed and no seed variance to borrow: nothing is known of seeds"
    if test.contrast.mean_b == 0:
        return "the baseline's mean is 0: there is no share of it to lose"
    if test.contrast.high < 0:
        return "worse by itself, but not after correction for the number of cells"
    where = f"the change may lie on either side of -{percent(margin, 1)}"
    if test.certifiable is None or test.certifiable <= margin:
        return f"{where}, near to which it was measured"
    if test.seeds_needed is None:
        return f"{where}, and {MOST_SEEDS} seeds on each side would not settle it"
    return f"{where}; to settle it takes about {test.seeds_needed} seeds on each side"


def _require_all(runs: Path, baseline: Path, old: dict[str, Table], new: dict[str, Table]) -> None:
    """Refuse runs that lack a row: what has vanished must not pass."""
    missing = []
    for dataset, table in old.items():
        found = {cell.label: cell for cell in new[dataset].cells} if dataset in new else {}
        for cell in judged_cells(table):
            now = found.get(cell.label)
            if now is None:
                missing.append(f"{dataset}/{cell.label}")
            elif not now.records:
                missing.append(f"{dataset}/{cell.label} (failed: {now.failed[0].reason})")
    if missing:
        raise RequestError(
            f"{runs}: no result of {', '.join(missing)}, which {baseline} has; run them, or accept "
            "with --update that they are gone"
        )


def _require_same(runs: Path, baseline: Path, old: Table, new: Table) -> None:
    """Refuse runs that answer another question."""
    where = f"{runs} and {baseline} differ on {new.dataset} in"
    advice = "make both alike, or accept the new state with --update"
    before, now = (table.cells[0].any_record for table in (old, new))
    if before.data_fingerprint[:16] != now.data_fingerprint[:16]:
        raise RequestError(
            f"{where} prepared data: {now.data_fingerprint[:16]} and "
            f"{before.data_fingerprint[:16]}; {advice}"
        )
    if differences := _differences(shared_protocol(now), shared_protocol(before)):
        raise RequestError(f"{where} protocol: {', '.join(differences)}; {advice}")
    if not (np.array_equal(old.user, new.user) and np.array_equal(old.key, new.key)):
        raise RequestError(f"{where} test targets; {advice}")


def _differences(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    return [
        f"{name} {new.get(name)} and {old.get(name)}"
        for name in sorted(new | old)
        if new.get(name, ...) != old.get(name, ...)
    ]
