"""Preparation, training and evaluation from 1e5 to 2e7 events: seconds and peak memory.

    python benchmarks/performance/scaling.py prepare  [--events 1e5,1e6,1e7,2e7] [--kind csv]
    python benchmarks/performance/scaling.py train    [--events 2e7] [--steps 200]
    python benchmarks/performance/scaling.py evaluate [--events 2e7] [--items 60000,1000000]
    python benchmarks/performance/scaling.py closed   [--events 2e7] [--methods popularity,markov]

Logs are made by `event_log.py`, 150,000 users for 2e7 events and fewer in proportion, and kept in
`--folder` with what is prepared of them. Each line is measured in a process of its own, whose peak
is the largest resident set that the kernel has seen, memory-mapped files included. Seconds are the
processor's, of all threads together, because a machine that does other work lengthens any other;
preparation says both.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import Figures, bare_trainer, in_own_process, peak, settle

EVENTS, USERS, ITEMS = 20_000_000, 150_000, 60_000
WIDTH, WINDOW, BATCH = 64, 50, 256


def log_path(options: argparse.Namespace, n_events: int, n_items: int) -> Path:
    """The log of that size, written if it is not there."""
    from event_log import write_log

    path: Path = options.folder / f"log-{n_events}-{n_items}.{options.kind}"
    if not path.exists():
        write_log(path, n_events, n_events * USERS // EVENTS, n_items)
    return path


def entry_of(path: Path, k_core: int) -> Any:
    """A dataset of one's own, as a spec states it."""
    from datamodules.catalog import user_entry

    return user_entry(
        path.stem,
        {
            "reader": "table",
            "files": {"events": str(path)},
            "options": {"timestamp": "time"},
            "recipe": {"k_core": k_core, "split": "leave_one_out"},
        },
    )


def prepared(options: argparse.Namespace) -> Path:
    """Folder of the prepared log that a line is about."""
    from datamodules.prepare import prepare

    path = log_path(options, options.events, options.items)
    return prepare(entry_of(path, options.k_core), cache=options.folder / "cache")


def measure_prepare(options: argparse.Namespace) -> Figures:
    """Prepare from the file, whatever lies prepared already."""
    import shutil

    from datamodules.prepare import prepare
    from datamodules.prepared import load_prepared

    path = options.folder / f"log-{options.events}-{options.items}.{options.kind}"
    cache = options.folder / f"anew-{path.name}"
    shutil.rmtree(cache, ignore_errors=True)
    began, worked = time.perf_counter(), time.process_time()
    folder = prepare(entry_of(path, options.k_core), cache=cache)
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    memory = peak()  # before anything is read again
    dataset = load_prepared(folder)
    shutil.rmtree(cache)
    return {
        "file, MB": round(path.stat().st_size / 1e6),
        "events": int(dataset.meta.statistics["interactions"]),
        "users": dataset.n_users,
        "items": dataset.n_items,
        "s": round(seconds, 1),
        "CPU s": round(work, 1),
        "peak, MiB": memory,
        "fingerprint": dataset.fingerprint[:16],
    }


def sasrec(options: argparse.Namespace) -> tuple[Any, Any]:
    """SASRec with sampled softmax, and its data."""
    import torch

    from datamodules.prepared import load_prepared
    from datamodules.sequence import SequenceDataModule
    from intentbench.models.sasrec import SASRec

    torch.manual_seed(0)
    data = SequenceDataModule(load_prepared(prepared(options)), window=WINDOW, batch_size=BATCH)
    model = SASRec(
        data.n_items, data.n_users, WINDOW, "ss", width=WIDTH, negatives=options.negatives
    )
    return model, data


def measure_train(options: argparse.Namespace) -> Figures:
    """Some steps of an epoch of SASRec with sampled softmax, and the epoch they make."""
    import lightning.pytorch as pl

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_train_batch_end(self, *_: object) -> None:
            self.marks.append(time.process_time())

    model, data = sasrec(options)
    clock = Clock()
    trainer = bare_trainer(clock, limit_train_batches=options.steps, limit_val_batches=0)
    trainer.fit(model, data)
    steps = len(data.train_dataloader())
    rate = (clock.marks[-1] - clock.marks[0]) / (len(clock.marks) - 1)
    whole = "" if len(clock.marks) == steps else ", extrapolated"
    return {
        "users": data.n_users,
        "items": data.n_items,
        "steps timed": len(clock.marks),
        "CPU ms a step": round(1e3 * rate, 1),
        "steps an epoch": steps,
        f"CPU minutes an epoch{whole}": round(rate * steps / 60, 1),
        "peak, MiB": peak(),
    }


def rank_sample(model: Any, data: Any, users: int) -> tuple[float, int]:
    """CPU seconds to rank the test targets of a sample of users, and how many users it has."""
    import numpy as np
    import torch

    loader = data.test_dataloader()
    batches = list(loader.sampler)
    picked = np.unique(np.linspace(0, len(batches) - 1, max(users // BATCH, 1)).astype(int))
    model.eval()
    seconds, ranked = 0.0, 0
    with torch.inference_mode():
        for number, batch in enumerate(picked):
            began = time.process_time()
            model.test_step(loader.build(batches[batch]), number)
            seconds += time.process_time() - began
            ranked += len(batches[batch])
    return seconds, ranked


def measure_evaluate(options: argparse.Namespace) -> Figures:
    """Rank the test targets of a sample of users in the whole catalogue; the model is untrained."""
    model, data = sasrec(options)
    before = peak()
    seconds, users = rank_sample(model, data, options.sample)
    return {
        "items": data.n_items,
        "users ranked": users,
        "CPU s a 1,000 users": round(1e3 * seconds / users, 2),
        "users a CPU second": round(users / seconds),
        "peak before, MiB": before,
        "peak, MiB": peak(),
    }


def measure_closed(options: argparse.Namespace) -> Figures:
    """Prepare a method without gradients and rank a sample of users."""
    from datamodules.prepared import load_prepared
    from datamodules.sequence import SequenceDataModule
    from intentbench.models import load_method

    data = SequenceDataModule(load_prepared(prepared(options)), window=WINDOW)
    model = load_method(options.method)(data.n_items, data.n_users, **json.loads(options.set))
    began = time.process_time()
    model.prepare(data.training())
    seconds = time.process_time() - began
    between = peak()
    ranking, users = rank_sample(model, data, options.sample)
    return {
        "method": options.method,
        "arguments": options.set,
        "prepare, CPU s": round(seconds, 1),
        "peak then, MiB": between,
        "CPU s a 1,000 users": round(1e3 * ranking / users, 2),
        "peak, MiB": peak(),
    }


def make(options: argparse.Namespace) -> Figures:
    """Write the log; and prepare it, where what is measured begins with prepared data."""
    log_path(options, options.events, options.items)
    if options.what != "prepare":
        prepared(options)
    return {}


MEASURES: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "prepare": measure_prepare,
    "train": measure_train,
    "evaluate": measure_evaluate,
    "closed": measure_closed,
}


def alone(options: argparse.Namespace) -> None:
    """Measure one line here and print it as JSON."""
    settle(options.threads)
    print(json.dumps((make if options.make else MEASURES[options.what])(options)))


def main() -> None:
    """Measure each line in a process of its own, and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=list(MEASURES))
    parser.add_argument("--folder", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--events", default="2e7", help="a,b")
    parser.add_argument("--items", help="a,b; default: 60,000 at 2e7 events, less as their root")
    parser.add_argument("--kind", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--k-core", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="of training")
    parser.add_argument("--sample", type=int, default=2560, help="users to rank")
    parser.add_argument("--negatives", type=int, default=256)
    parser.add_argument("--methods", default="popularity,markov,item_knn,ease")
    parser.add_argument("--set", default="{}", help="arguments of the methods, as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        options.events, options.items = int(float(options.events)), int(float(options.items))
        alone(options)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    given = sys.argv[1:]
    header: list[str] = []
    for events in options.events.split(","):
        usual = round(ITEMS * (float(events) / EVENTS) ** 0.5)
        for items in (options.items or str(usual)).split(","):
            line = [*given, "--events", events, "--items", items]
            made = in_own_process(__file__, [*line, "--make", "--alone"])
            methods = options.methods.split(",") if options.what == "closed" else [""]
            for method in methods:
                own = [*line, "--method", method, "--alone"]
                figures = made or in_own_process(__file__, own)
                if isinstance(figures, str):
                    print(f"| {events} | {items} | {method} {figures} |", flush=True)
                    continue
                if list(figures) != header:
                    header = list(figures)
                    print(f"| {' | '.join(header)} |\n|{'--:|' * len(header)}", flush=True)
                print(f"| {' | '.join(map(str, figures.values()))} |", flush=True)


if __name__ == "__main__":
    main()
