"""A Ray cluster: reaching it, and dividing it among trials."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from datamodules.errors import RequestError
from intentbench.results.store import write_atomic
from intentbench.runner.jobs import describe_error


@dataclass(frozen=True)
class ClusterOptions:
    """Where trials go, and how much of a node each gets.

    Attributes:
        address: "auto", "local", HOST:PORT or ray://HOST:PORT.
        out: root of all runs.
        devices: "auto" (GPUs if the cluster has any) or "cpu".
        trials_per_device: trials that share a GPU, or the cores of a node; None: one a GPU, or as
            many as the cluster has cores.
        trials: of the whole benchmark, also those done: a resumed run then has the same threads,
            and so the same rounding.
        processes: of the trial that has most.
    """

    address: str
    out: Path
    devices: str
    trials_per_device: int | None
    trials: int
    processes: int = 1


@dataclass(frozen=True)
class Share:
    """What a trial takes of a node.

    Attributes:
        threads: CPUs, and torch's threads.
        gpus: GPUs, or part of one.
        slots: how many trials the cluster holds at once, as it is now.
    """

    threads: int
    gpus: float
    slots: int


def plan_share(nodes: list[dict[str, float]], options: ClusterOptions) -> Share:
    """Divide a cluster, as `intentbench.runner.executors.plan_slots` divides a machine.

    Args:
        nodes: resources of each living node: "CPU" and "GPU", left out where there are none.
        options: `devices`, `trials_per_device` and `trials` are read.

    Raises:
        RequestError: devices by number, a number below 1, or several processes on GPUs.
    """
    per_device = options.trials_per_device
    if per_device is not None and per_device < 1:
        raise RequestError("--trials-per-device: must be at least 1")
    if options.devices not in ("auto", "cpu"):
        raise RequestError(
            f"--devices {options.devices}: Ray chooses them; allowed with --executor ray: auto, cpu"
        )
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if with_gpus and options.devices == "auto":
        if options.processes > 1:
            raise RequestError(
                "training.processes: with --executor ray a trial has one GPU; use --devices cpu, "
                "or the local executor"
            )
        per_device = per_device or 1
        threads = min(int(node.get("CPU", 1) / node["GPU"]) for node in with_gpus) // per_device
        slots = sum(int(node["GPU"]) for node in with_gpus) * per_device
        return Share(max(1, threads), 1 / per_device, slots)
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1] or [1]
    if per_device:
        threads = max(1, min(cores) // per_device)
    else:
        threads = min(max(1, sum(cores) // max(1, options.trials)), min(cores))
    threads = max(threads, min(options.processes, *cores))
    return Share(threads, 0, max(1, sum(count // threads for count in cores)))


@contextmanager
def sharing_token(out: Path) -> Iterator[Path]:
    """A file among the runs by which nodes see whether they share their disk."""
    token = out.resolve() / f".runner-{uuid4().hex}"
    write_atomic(token, b"")
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster at an address.

    Raises:
        RequestError: Ray is not installed, or there is no such cluster.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ModuleNotFoundError:
        raise RequestError("--executor ray: needs Ray: pip install 'intentbench[ray]'") from None
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        if address.startswith("ray://"):  # hands other arguments on to a server that refuses them
            ray.init(address=address, log_to_driver=False)
        else:
            dashboard = False if address == "local" else None
            ray.init(
                address=address,
                include_dashboard=dashboard,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RequestError(
            f"--address {address}: {describe_error(error)}; start a cluster with `ray start "
            "--head`, or try --address local"
        ) from None
    try:
        signal.signal(signal.SIGTERM, on_termination)  # Ray's own would leave without a word
        yield
    finally:
        ray.shutdown()
