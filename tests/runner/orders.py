"""Orders to a node of a Ray cluster, from trials that have run here."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from intentbench.results.store import load_ranks
from intentbench.runner.grid import RunOptions, plan_grid, run_grid
from intentbench.runner.jobs import Job
from intentbench.runner.parcels import pack_folder
from intentbench.runner.ray_worker import Order, trial_code
from intentbench.spec import BenchmarkSpec
from tests.runner.conftest import PLUGIN

NOWHERE = Path("/nowhere")
MODELS: dict[str, Any] = {
    "toy": {},
    "counts": {},
    "above": {"pretrained": "base"},
    "base": {"method": "sasrec", "width": 8, "heads": 1, "blocks": 1, "loss": "ce"},
}


@dataclass
class Local:
    """Trials that the local executor has run, with the jobs that describe them."""

    jobs: dict[str, Job]
    out: Path

    def order(self, label: str, **more: Any) -> Order:
        job = self.jobs[label]
        given: dict[str, Any] = {
            "number": 7,
            "job": job,
            "code": trial_code(job.trial),
            "threads": 1,
            "gpu": False,
            "timeout": None,
            "memory": None,
            "cwd": Path.cwd(),
            "token": self.out,
            "data": pack_folder(job.prepared),
            "plugin": PLUGIN.read_bytes(),
        }
        return Order(**{**given, **more})


def run_locally(spec: BenchmarkSpec, out: Path) -> Local:
    """Run a benchmark here; every trial must end well."""
    options = RunOptions(out=out, devices="cpu", trials_per_device=2)
    jobs = [planned.job for planned in plan_grid(spec, options)]
    assert run_grid(spec, options, Console(file=io.StringIO())).failed == []
    return Local({job.trial.label: job for job in jobs}, out)


def elsewhere(order: Order) -> Order:
    """The order as it looks on a machine that shares no disk with the runner."""
    trial = order.job.trial
    if trial.plugin:
        trial = replace(trial, plugin=str(NOWHERE / PLUGIN.name))
    job = replace(order.job, trial=trial, prepared=NOWHERE / order.job.prepared.name)
    return replace(order, job=job, token=NOWHERE / "token")


def same_ranks(folder: Path, other: Path) -> bool:
    ours, theirs = load_ranks(folder), load_ranks(other)
    return all(np.array_equal(ours[name], theirs[name]) for name in ("user", "key", "rank"))
