"""How often does the procedure of docs/statistics.md err? Ranks are drawn, so the truth is known.

    python benchmarks/studies/statistics_validation.py --runs 1000 --out validation.json

A user has a difficulty, a model a taste for some users, a trial a shift of all log ranks (its seed)
and noise; NDCG@10 follows from the rank. The true mean of a model is known exactly, and the shift
is set so that the standard deviation over seeds is a stated share of it. Prints the tables of
docs/statistics.md; some four minutes on one core.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import log, sqrt
from pathlib import Path
from statistics import median

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from intentbench.metrics.formulas import ndcg
from intentbench.stats.components import Values
from intentbench.stats.contrast import contrast
from intentbench.stats.correction import adjust

ALPHA = 0.05
CENTRE, DIFFICULTY, TASTE, NOISE = 4.0, 2.0, 0.5, 0.7
"""Mean of the log ranks, and standard deviations of their parts."""

DEPTH = 10
GAIN = np.concatenate([[0.0], ndcg(np.arange(1, DEPTH + 2), DEPTH)])
"""NDCG@10 of rank 0 (there is none), 1, …, 10, and of all beyond."""

Verdict = Callable[[Values, Values], float]


@dataclass(frozen=True)
class Cell:
    """A setting: U users, seeds of A and of B, and their standard deviation as a share of the mean.

    A model that is deterministic has one seed, no shift and no noise.
    """

    users: int
    seeds_a: int
    seeds_b: int
    relative: float
    deterministic_a: bool = False


EQUAL = (
    Cell(3_000, 5, 5, 0.0),
    Cell(3_000, 10, 10, 0.0),
    Cell(20_000, 3, 3, 0.017),
    Cell(20_000, 5, 5, 0.026),
    Cell(20_000, 10, 10, 0.026),
    Cell(20_000, 10, 10, 0.05),
)
BESIDE = (
    Cell(20_000, 1, 5, 0.026),
    Cell(20_000, 3, 10, 0.026),
    Cell(20_000, 1, 5, 0.026, deterministic_a=True),
)
APART = tuple(Cell(20_000, seeds, seeds, 0.017) for seeds in (3, 5, 10))
FAMILIES = (Cell(3_000, 5, 5, 0.0), Cell(20_000, 5, 5, 0.026))
N_MODELS = 6


def true_mean(shift: float, spread: float = 0.0) -> float:
    """NDCG@10 of a model over all users and seeds, exactly.

    Args:
        shift: of its log ranks.
        spread: standard deviation of what a seed adds.
    """
    scale = sqrt(DIFFICULTY**2 + TASTE**2 + NOISE**2 + spread**2)
    ends = stats.norm.cdf([(log(rank) - CENTRE - shift) / scale for rank in range(2, DEPTH + 2)])
    return float(np.diff(ends, prepend=0.0) @ GAIN[1 : DEPTH + 1])


def relative_deviation(spread: float) -> float:
    """Standard deviation of a trial's true mean over seeds, as a share of the mean."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    means = np.array([true_mean(spread * node) for node in nodes])
    weights = weights / weights.sum()
    mean = weights @ means
    return float(sqrt(max(weights @ means**2 - mean**2, 0.0)) / mean)


def spread_for(relative: float) -> float:
    """The spread of seeds' shifts that gives a relative standard deviation."""
    return float(brentq(lambda s: relative_deviation(s) - relative, 0, 1)) if relative else 0.0


def shift_for(gain: float, spread: float) -> float:
    """The shift with which (mean of A - mean of B) / mean of A is `gain`, B being unshifted."""
    other = true_mean(0.0, spread)
    return float(brentq(lambda s: 1 - other / true_mean(s, spread) - gain, -2, 0))


def draw(
    generator: np.random.Generator,
    users: int,
    seeds: Sequence[int],
    spread: float,
    shifts: Sequence[float] = (),
    deterministic: Sequence[bool] = (),
) -> list[Values]:
    """NDCG@10 of models on the same users.

    Args:
        generator: of all chance.
        users: U.
        seeds: S of each model.
        spread: standard deviation of the seeds' shifts.
        shifts: of each model's log ranks; none: all models are equal.
        deterministic: whether each is; such a model's noise is a taste that every trial shares.

    Returns:
        (S, U) each.
    """
    common = CENTRE + DIFFICULTY * generator.standard_normal(users, dtype=np.float32)
    found = []
    for number, n_seeds in enumerate(seeds):
        fixed = number < len(deterministic) and deterministic[number]
        scale = NOISE * generator.standard_normal((n_seeds, users), dtype=np.float32)
        scale += common + np.float32(TASTE) * generator.standard_normal(users, dtype=np.float32)
        # No seed moves a deterministic model; it stands where its mean equals the others'.
        moved = _deterministic_shift(spread) if fixed else spread * generator.normal(size=n_seeds)
        moved = moved + (shifts[number] if shifts else 0.0)
        scale += np.reshape(moved, (-1, 1)).astype(np.float32)
        ranks = np.exp(np.minimum(scale, log(DEPTH + 1.5))).astype(np.int8)
        found.append(GAIN[np.maximum(ranks, 1)])
    return found


def _deterministic_shift(spread: float) -> float:
    """Where a model without spread has the same true mean as one with it."""
    goal = true_mean(0.0, spread)
    return float(brentq(lambda s: true_mean(s) - goal, -1, 1))


def users_once(a: Values, b: Values) -> float:
    """Paired t-test over users, first seed of each."""
    return float(stats.ttest_rel(a[0], b[0]).pvalue)


def users_averaged(a: Values, b: Values) -> float:
    """Paired t-test over users, seeds averaged."""
    return float(stats.ttest_rel(a.mean(axis=0), b.mean(axis=0)).pvalue)


def users_wilcoxon(a: Values, b: Values) -> float:
    """Wilcoxon's signed-rank test over users, seeds averaged."""
    return float(stats.wilcoxon(a.mean(axis=0), b.mean(axis=0)).pvalue)


def pooled(a: Values, b: Values) -> float:
    """Paired t-test over users x seeds, as if they were so many people."""
    return float(stats.ttest_rel(a.ravel(), b.ravel()).pvalue)


def seeds_only(a: Values, b: Values) -> float:
    """Paired t-test over the seeds' means."""
    return float(stats.ttest_rel(a.mean(axis=1), b.mean(axis=1)).pvalue)


COMPETITORS: dict[str, Verdict] = {
    "users, one seed": users_once,
    "users, averaged": users_averaged,
    "Wilcoxon, averaged": users_wilcoxon,
    "pooled": pooled,
    "seeds only": seeds_only,
}


def error_rates(
    cell: Cell, runs: int, generator: np.random.Generator, others: bool = False
) -> dict[str, float]:
    """Shares of runs in which equal models are separated, and in which intervals cover.

    Args:
        cell: the setting.
        runs: repetitions.
        generator: of all chance.
        others: whether the tests of `COMPETITORS` are counted too.
    """
    verdicts = COMPETITORS if others else {}
    wrong = dict.fromkeys([*verdicts, "ours"], 0)
    covered = 0
    spread = spread_for(cell.relative)
    for _ in range(runs):
        a, b = draw(
            generator,
            cell.users,
            (cell.seeds_a, cell.seeds_b),
            spread,
            deterministic=(cell.deterministic_a,),
        )
        found = contrast(a, b, deterministic_a=cell.deterministic_a, alpha=ALPHA)
        wrong["ours"] += found.p < ALPHA
        covered += found.low <= 0 <= found.high
        for name, verdict in verdicts.items():
            wrong[name] += verdict(a, b) < ALPHA
    return {name: count / runs for name, count in wrong.items()} | {"covered": covered / runs}


def power(
    cell: Cell, runs: int, generator: np.random.Generator, pilots: int = 50
) -> dict[str, float]:
    """At a true difference as large as the stated resolution: how often it is found.

    Args:
        cell: the setting.
        runs: repetitions.
        generator: of all chance.
        pilots: runs whose median resolution is the difference.
    """
    spread = spread_for(cell.relative)
    seeds = (cell.seeds_a, cell.seeds_b)
    tried = []
    for _ in range(pilots):
        a, b = draw(generator, cell.users, seeds, spread)
        tried.append(contrast(a, b, alpha=ALPHA).resolution)
    resolution = median(value for value in tried if value is not None)
    shift = shift_for(resolution, spread)
    mean_a, mean_b = true_mean(shift, spread), true_mean(0.0, spread)
    found = covered = covered_relative = 0
    for _ in range(runs):
        a, b = draw(generator, cell.users, seeds, spread, (shift, 0.0))
        test = contrast(a, b, alpha=ALPHA)
        found += test.p < ALPHA
        covered += test.low <= mean_a - mean_b <= test.high
        if test.relative_low is not None and test.relative_high is not None:
            covered_relative += test.relative_low <= mean_a / mean_b - 1 <= test.relative_high
    return {
        "resolution": resolution,
        "found": found / runs,
        "covered": covered / runs,
        "covered_relative": covered_relative / runs,
    }


def family_errors(
    cell: Cell, runs: int, generator: np.random.Generator, n_models: int = N_MODELS
) -> dict[str, float]:
    """Shares of runs in which any pair of equal models is separated, by correction."""
    wrong = {"none": 0, "holm": 0, "bh": 0}
    spread = spread_for(cell.relative)
    for _ in range(runs):
        models = draw(generator, cell.users, (cell.seeds_a,) * n_models, spread)
        p = [contrast(a, b).p for a, b in combinations(models, 2)]
        wrong["none"] += min(p) < ALPHA
        wrong["holm"] += min(x for x in adjust(p, "holm") if x is not None) < ALPHA
        wrong["bh"] += min(x for x in adjust(p, "bh") if x is not None) < ALPHA
    return {name: count / runs for name, count in wrong.items()}


def _setting(cell: Cell) -> list[str]:
    seeds = str(cell.seeds_a) if cell.seeds_a == cell.seeds_b else f"{cell.seeds_a}, {cell.seeds_b}"
    if cell.deterministic_a:
        seeds = f"deterministic, {cell.seeds_b}"
    return [f"{cell.users:,}", seeds, f"{100 * cell.relative:.1f} %" if cell.relative else "none"]


def _print_table(
    title: str, cells: Sequence[Cell], rows: Sequence[dict[str, float]], runs: int
) -> None:
    headings = ["users", "seeds", "seeds differ by", *rows[0]]
    print(f"\n{title}, {runs:,} repetitions\n")
    print("| " + " | ".join(headings) + " |")
    print("| " + " | ".join("--:" for _ in headings) + " |")
    for cell, row in zip(cells, rows, strict=True):
        shares = [
            f"{100 * value:.1f} %" if name == "resolution" else f"{value:.3f}".lstrip("0")
            for name, value in row.items()
        ]
        print("| " + " | ".join([*_setting(cell), *shares]) + " |", flush=True)


def main() -> None:
    """Simulate, print, and keep what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000, help="repetitions a cell")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    started = time.process_time()
    studies: dict[str, tuple[Sequence[Cell], Callable[..., dict[str, float]]]] = {
        "Equal models, share separated": (
            EQUAL,
            partial(error_rates, others=True),
        ),
        "Equal models, other seeds on either side": (BESIDE, error_rates),
        f"{N_MODELS} equal models, share of tables with a false mark": (FAMILIES, family_errors),
        "Models that differ by the resolution": (APART, power),
    }
    kept = {}
    for number, (title, (cells, study)) in enumerate(studies.items()):
        rows = [
            study(cell, options.runs, np.random.default_rng([20_260_301, number, place]))
            for place, cell in enumerate(cells)
        ]
        _print_table(title, cells, rows, options.runs)
        kept[title] = rows
    print(f"\n{time.process_time() - started:,.0f} s of processor time")
    if options.out:
        options.out.write_text(json.dumps({"runs": options.runs, "studies": kept}, indent=1))


if __name__ == "__main__":
    main()
