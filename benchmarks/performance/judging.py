"""Seconds and memory to judge a few thousand trials: load, test, render, in a process of its own.

    python benchmarks/performance/judging.py [--datasets 10] [--rows 60] [--seeds 5] [--users 6040]

The trials are generated (ranks of users with a common difficulty, models with a strength, seeds
with a shift), written as runs, and judged by `intentbench report`, once from runs and once from
the published ranks. Generating is not timed, nor is writing the trials out to the disk.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from intentbench.metrics.users import mean_metric, metric_names
from intentbench.results.record import Cost, TrialRecord
from intentbench.results.store import save_ranks, trial_folder, write_record

N_ITEMS = 12_000


def main() -> None:
    """Generate, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("--datasets", type=int, default=10)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--users", type=int, default=6040)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs, boards = Path(scratch) / "runs", Path(scratch) / "boards"
        count = generate(runs, options.datasets, options.rows, options.seeds, options.users)
        os.sync()  # else the first report would wait for it
        print(f"{count} trials: {options.datasets} datasets x {options.rows} rows x ", end="")
        print(f"{options.seeds} seeds, {options.users:,} users")
        for name, source in (("runs", runs), ("published ranks", boards / "ranks" / "judged")):
            command = ["report", str(source), "--name", "judged", "-o", str(boards)]
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "intentbench.cli", *command], check=True)
            seconds = time.perf_counter() - started
            # of the largest child so far: the second figure is a bound
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(f"{name}: {seconds:.1f} s, peak {peak:,.0f} MiB")


def generate(runs: Path, datasets: int, rows: int, seeds: int, users: int) -> int:
    """Write trials; returns how many."""
    generator = np.random.default_rng(0)
    user = np.arange(users)
    key = np.full(users, 7)
    for dataset in range(datasets):
        difficulty = generator.normal(0, 2, users)
        for row in range(rows):
            for seed in range(seeds):
                own = row / rows + 0.02 * generator.normal() + generator.normal(size=users)
                share = 1 / (1 + np.exp(1.2 * (own - difficulty) + 3))
                rank = 1 + np.floor((N_ITEMS - 1) * share).astype(np.int64)
                record = TrialRecord(
                    trial=f"{dataset:04x}{row:04x}{seed:08x}",
                    status="done",
                    dataset=f"data{dataset}",
                    data_fingerprint=f"{dataset:064x}",
                    label=f"model{row}",
                    method=f"model{row}",
                    seed=seed,
                    metrics={name: mean_metric(name, user, rank, "") for name in metric_names("")},
                    cost=Cost(1000, 100.0, 2.0, 40, 1.0, 0.1, 800.0),
                )
                folder = trial_folder(runs, record.dataset, record.label, record.trial)
                folder.mkdir(parents=True)
                save_ranks(folder, user, key, rank)
                write_record(folder, record)
    return datasets * rows * seeds


if __name__ == "__main__":
    main()
