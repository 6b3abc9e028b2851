"""Seconds an epoch and peak memory of every row of a benchmark, one after the other.

    python benchmarks/performance/method_epochs.py [benchmarks/amazon.yaml] [--dataset beauty]
        [--rows a,b] [--threads 2] [--limit 240]

Each row trains one epoch in a process of its own, everything that Lightning does and the E-step
included, validation left out. What would take longer than the limit is timed over fewer steps and
scaled up, and marked so. Rows without gradients are left out. Read ratios to the first row.
"""

import argparse
import json
import time
from pathlib import Path

import lightning.pytorch as pl
from measuring import Figures, bare_trainer, in_own_process, peak, settle

from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from intentbench.models.base import GradientRecommender
from intentbench.runner.build import build_data, build_model
from intentbench.runner.entrants import Entrant
from intentbench.runner.grid import build_trial
from intentbench.spec import BenchmarkSpec, load_spec

FIRST = 10
"""Steps after which the rest of an epoch is estimated; those of the first epoch warm up."""


class Clock(pl.Callback):
    """Seconds before the first step (the E-step), and seconds of steps; stops at a limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.before = 0.0
        self.marks: list[float] = []
        self._began = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self._began = time.perf_counter()

    def on_train_batch_start(self, *_: object) -> None:
        self.before = self.before or time.perf_counter() - self._began

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.marks.append(time.perf_counter())
        late = self.marks[-1] - self._began > self.limit
        trainer.should_stop = trainer.should_stop or (late and len(self.marks) > FIRST)

    def epoch(self, steps: int) -> float:
        """Seconds of the whole epoch; scaled up where it was cut short."""
        if len(self.marks) == steps:
            return self.marks[-1] - self._began
        rate = (self.marks[-1] - self.marks[0]) / (len(self.marks) - 1)
        return self.before + rate * steps


def measure(spec: BenchmarkSpec, entrant: Entrant, limit: float) -> Figures:
    """One epoch of a row on the dataset that was picked, in this process."""
    entry = spec.datasets[0]
    dataset = load_prepared(prepare(entry))
    config = build_trial(spec, entrant, entry, dataset, 0).config()
    data, model = build_data(config, dataset), build_model(config)
    clock = Clock(limit)
    trainer = bare_trainer(clock, limit_val_batches=0)
    trainer.fit(model, data)
    steps = len(data.train_dataloader())
    return {
        "steps": steps,
        "timed": len(clock.marks),
        "before": clock.before,
        "epoch": clock.epoch(steps),
        "memory": peak(),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def main() -> None:
    """Measure each row in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", nargs="?", type=Path, default=Path("benchmarks/amazon.yaml"))
    parser.add_argument("--dataset", default="beauty")
    parser.add_argument("--rows", help="a,b; default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=240.0, help="seconds a row")
    parser.add_argument("--alone", action="store_true", help="measure the one row here, as JSON")
    options = parser.parse_args()
    rows = options.rows.split(",") if options.rows else None
    spec = load_spec(options.spec, models=rows, datasets=[options.dataset])
    chosen = options.rows.split(",") if options.rows else [e.label for e in spec.entrants]
    entrants = [e for e in spec.entrants if e.label in chosen]  # not what a row starts from
    entrants = [e for e in entrants if issubclass(e.cls, GradientRecommender)]
    if options.alone:
        settle(options.threads)
        print(json.dumps(measure(spec, entrants[0], options.limit)))
        return
    print(
        "| row | s an epoch | of it before the first step | steps | peak memory, MiB | parameters |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    for entrant in entrants:
        command = [str(options.spec), "--dataset", options.dataset]
        command += ["--rows", entrant.label, "--threads", str(options.threads)]
        command += ["--limit", str(options.limit), "--alone"]
        found = in_own_process(__file__, command)
        if isinstance(found, str):
            print(f"| {entrant.label} | {found} |", flush=True)
            continue
        scaled = "" if found["timed"] == found["steps"] else f" (from {found['timed']} steps)"
        print(
            f"| {entrant.label} | {found['epoch']:.1f}{scaled} | {found['before']:.1f} | "
            f"{found['steps']} | {found['memory']} | {found['parameters']:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
