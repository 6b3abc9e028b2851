"""SASRec with full cross-entropy through Lightning beside a plain loop: an epoch, an evaluation.

    python benchmarks/performance/sasrec_epoch.py [--dataset beauty] [--rounds 3] [--threads 2]

The two take turns in one process, so that a machine whose speed drifts slows both; the ratio of the
medians is the figure to read.
"""

import argparse
import statistics
import time

import lightning.pytorch as pl
from measuring import bare_trainer, peak, settle
from plain_sasrec import PlainLoop

from datamodules.sequence import SequenceDataModule
from intentbench.models.sasrec import SASRec


class Clock(pl.Callback):
    """Seconds of each training epoch and of each validation."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.validation: list[float] = []
        self._began = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self._began = time.perf_counter()

    def on_validation_start(self, *_: object) -> None:
        now = time.perf_counter()
        self.training.append(now - self._began)
        self._began = now

    def on_validation_end(self, *_: object) -> None:
        self.validation.append(time.perf_counter() - self._began)


def through_lightning(data: SequenceDataModule) -> tuple[float, float]:
    """Seconds of one training epoch and one validation, everything that Lightning does included."""
    clock = Clock()
    model = SASRec(data.n_items, data.n_users, loss="ce", encoder="bert", heads=2)
    trainer = bare_trainer(clock)
    trainer.fit(model, data)
    return clock.training[0], clock.validation[0]


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="beauty")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    settle(options.threads)
    data = SequenceDataModule(options.dataset)
    plain = PlainLoop(data.dataset.items.numpy(), data.dataset.offsets.numpy())
    rows = [
        (plain.epoch(), plain.evaluate(), *through_lightning(data)) for _ in range(options.rounds)
    ]
    print("| | plain loop | through Lightning | ratio |\n|---|--:|--:|--:|")
    for name, a, b in (("training epoch, s", 0, 2), ("evaluation, s", 1, 3)):
        loop, ours = (statistics.median(row[i] for row in rows) for i in (a, b))
        print(f"| {name} | {loop:.2f} | {ours:.2f} | {ours / loop:.2f} |")
    print(f"\npeak memory of the process (both together): {peak()} MiB")


if __name__ == "__main__":
    main()
