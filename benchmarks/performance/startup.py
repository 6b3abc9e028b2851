"""Seconds from starting Python to the end of the first training step, in fresh processes.

    python benchmarks/performance/startup.py [--dataset beauty] [--rounds 5]

The dataset is prepared before the clock starts.
"""

import argparse
import statistics
import subprocess
import sys
import time

from datamodules.prepare import prepare

PROGRAM = """
import sys, time
import lightning.pytorch as pl
from datamodules.sequence import SequenceDataModule
from intentbench.models.sasrec import SASRec
imported = time.time()

class Stop(pl.Callback):
    def on_train_batch_end(self, *arguments):
        print(imported, time.time(), flush=True)
        sys.exit(0)

data = SequenceDataModule(sys.argv[1])
model = SASRec(data.n_items, data.n_users, loss="ce", encoder="bert", heads=2)
pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
           enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
           callbacks=[Stop()]).fit(model, data)
"""


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="beauty")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = str(prepare(options.dataset))
    rows = []
    for _ in range(options.rounds):
        began = time.time()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, folder], capture_output=True, text=True, check=False
        )
        line = next(text for text in done.stdout.splitlines() if text[:1].isdigit())
        rows.append([float(moment) - began for moment in line.split()])
    print("| | median s | min | max |\n|---|--:|--:|--:|")
    for name, column in zip(("imports", "first step"), zip(*rows, strict=True), strict=True):
        print(
            f"| {name} | {statistics.median(column):.1f} | {min(column):.1f} | {max(column):.1f} |"
        )


if __name__ == "__main__":
    main()
