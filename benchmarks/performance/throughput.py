"""What the runner adds to a trial, and trials an hour against slots.

    python benchmarks/performance/throughput.py [--trials 6] [--rounds 3]

Small trainings (SASRec on `synthetic-tiny`) go once through `intentbench run`, a process each, and
again in a bare loop in one process: model, Trainer, fit, test, without logger, checkpoint or
record. A run of 2 N trials less a run of N is the price of N further trials, start-up apart. The
start of a worker, forked and spawned, is timed with tasks that do nothing, but have Lightning
imported. All take turns in each round, so that other work on the machine meets all alike. Processor
seconds are those of all processes that a run started; they bear other work better than wall time.
Linux only.
"""

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

DATASET = "synthetic-tiny"
EPOCHS = 3

SPEC = {
    "name": "throughput",
    "datasets": [DATASET],
    "models": {"sasrec": {}},
    "training": {"max_epochs": EPOCHS, "patience": EPOCHS},
}

BARE = """
import sys, time
from pathlib import Path
import torch
from lightning.pytorch import Trainer, seed_everything
from intentbench.runner.config import read_config
from intentbench.runner.build import build_data, build_model
torch.set_num_threads(int(sys.argv[2]))
folders = sorted(path.parent for path in Path(sys.argv[1]).rglob("config.yaml"))
for number, folder in enumerate([folders[0], *folders]):
    if number == 1:  # the first one warms up
        wall, cpu = time.perf_counter(), time.process_time()
    config = read_config(folder)
    seed_everything(config["seed_everything"], verbose=False)
    data, model = build_data(config), build_model(config)
    trainer = Trainer(max_epochs=config["trainer"]["max_epochs"], accelerator="cpu", logger=False,
                      deterministic="warn", enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, num_sanity_val_steps=0)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
spent = time.perf_counter() - wall, time.process_time() - cpu
print(spent[0] / len(folders), spent[1] / len(folders))
"""

WORKER = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from intentbench.runner import trial  # a spawned worker imports this file again
from intentbench.runner.forkserver import start_forkserver

if __name__ == "__main__":
    spawn = sys.argv[1] == "spawn"
    context = multiprocessing.get_context("spawn") if spawn else start_forkserver()
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        pool.submit(time.process_time).result()  # the server imports
        wall = time.perf_counter()
        cpu = sum(pool.submit(time.process_time).result() for _ in range(3))
        print((time.perf_counter() - wall) / 3, cpu / 3)
"""


class Spent(NamedTuple):
    """Seconds on the clock, and of processors."""

    wall: float
    cpu: float


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("--trials", type=int, default=6, help="N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    # Workers are children of a server that outlives the run: what is orphaned becomes ours.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    found = defaultdict[str, list[Spent]](list)
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.rounds):
            for slots in options.slots:
                place = Path(scratch) / f"{number}-{slots}"
                for name, spent in compare(place, options.trials, slots).items():
                    found[f"{slots} slot{'s' if slots > 1 else ''}, {name}"].append(spent)
            for kind in ("forkserver", "spawn"):
                found[f"start of a worker, {kind}"].append(start_worker(Path(scratch), kind))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    print_table(found)


def compare(place: Path, trials: int, slots: int) -> dict[str, Spent]:
    """Seconds of a trial through the runner and in a bare loop, and of starting up."""
    few, many = (run_grid(place / str(count), count, slots) for count in (trials, 2 * trials))
    further = Spent(*((b - a) / trials for a, b in zip(few, many, strict=True)))
    bare = run_bare(place / str(trials), slots)
    return {
        "start-up": Spent(*(a - trials * b for a, b in zip(few, further, strict=True))),
        "a further trial": further,
        "the same in a bare loop": bare,
    }


def run_grid(place: Path, trials: int, slots: int) -> Spent:
    """`intentbench run`, from its start to its end."""
    place.mkdir(parents=True)
    spec = place / "spec.yaml"
    spec.write_text(json.dumps({**SPEC, "seeds": list(range(trials))}))  # JSON is YAML
    options = ["--devices", "cpu", "--trials-per-device", str(slots), "--out", str(place / "runs")]
    options += ["--leaderboards", str(place / "boards")]
    command = [sys.executable, "-m", "intentbench.cli", "run", str(spec), *options]
    wall, cpu = time.perf_counter(), _children_cpu()
    subprocess.run(command, check=True, capture_output=True)
    spent = time.perf_counter() - wall
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return Spent(spent, _children_cpu() - cpu)


def run_bare(place: Path, slots: int) -> Spent:
    """A training of these runs in one process, with the threads of one slot."""
    threads = max(1, len(os.sched_getaffinity(0)) // slots)
    return _run_program(place / "bare.py", BARE, str(place / "runs"), str(threads))


def start_worker(scratch: Path, kind: str) -> Spent:
    """From handing out a task that does nothing to its answer; processor time is the worker's."""
    return _run_program(scratch / "worker.py", WORKER, kind)


def print_table(found: dict[str, list[Spent]]) -> None:
    """Medians of the rounds, smallest and largest; and what follows from the medians."""
    print("| | wall s | min | max | processor s | min | max |\n|---|--:|--:|--:|--:|--:|--:|")
    medians = {}
    for name, values in found.items():
        columns = [sorted(column) for column in zip(*values, strict=True)]
        medians[name] = Spent(*map(statistics.median, columns))
        cells = [f"{f(column):.2f}" for column in columns for f in (statistics.median, min, max)]
        print(f"| {name} | {' | '.join(cells)} |")
    print()
    for name, spent in medians.items():
        if name.endswith("a further trial"):
            prefix = name.removesuffix("a further trial")
            share = spent.cpu - medians[f"{prefix}the same in a bare loop"].cpu
            print(f"{prefix}{3600 / spent.wall:.0f} trials an hour, ", end="")
            print(f"{share:.2f} processor seconds a trial are the runner's")


def _run_program(file: Path, program: str, *arguments: str) -> Spent:
    file.write_text(program)
    command = [sys.executable, str(file), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu = done.stdout.split()[-2:]
    return Spent(float(wall), float(cpu))


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
