"""What a node of a Ray cluster does with a trial."""

import hashlib
import inspect
import json
import os
import socket
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules import edge_noise, noise_training, sequence
from datamodules.errors import RequestError
from datamodules.prepare import cache_folder
from intentbench.results.fingerprint import code_fingerprint
from intentbench.results.progress import PROGRESS
from intentbench.results.record import TrialRecord
from intentbench.results.store import write_atomic
from intentbench.runner.config import Trial
from intentbench.runner.executors import POLL, keep_limits
from intentbench.runner.forkserver import start_forkserver
from intentbench.runner.jobs import Job, Slot, record_failure
from intentbench.runner.parcels import Files, pack_folder, unpack_dataset, unpack_files
from intentbench.runner.plugin import import_plugin
from intentbench.runner.worker import Worker, end_all, wait_for

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.util.queue import Queue


class UnfitNodeError(RequestError):
    """A node cannot run what is asked of it; no other trial would fare better there."""


@dataclass(frozen=True)
class Order:
    """A trial on its way to a node. Paths are absolute, and those of the runner's machine.

    Attributes:
        number: of the order.
        job: what to run.
        code: fingerprint of the trial's code where the runner is; see `trial_code`.
        threads: torch's threads.
        gpu: whether a GPU, or a share of one, comes with it.
        timeout: seconds that the trial may take, None for no limit.
        memory: bytes that its processes may hold together, None for no limit.
        cwd: the runner's working directory: paths of texts may be relative to it.
        token: a file among the runs; a node that sees it shares their disk.
        data: files of the prepared dataset.
        base: files of the trial that this one starts from, None where it starts from nothing.
        plugin: content of the plugin's file, b"" where there is none.
    """

    number: int
    job: Job
    code: str
    threads: int
    gpu: bool
    timeout: float | None
    memory: int | None
    cwd: Path
    token: Path
    data: "ObjectRef[Files]"
    base: "ObjectRef[Files] | None" = None
    plugin: bytes = b""


News = tuple[int, bool, bytes]
"""Where an order is: its number, whether its node sees the disk of the runs, and the content of the
trial's `progress.json`: b"" when it has only begun, and where the runner can read the file itself.
Plain types, so that the queue that passes them on loads no torch."""


@dataclass(frozen=True)
class Delivery:
    """What comes back.

    Attributes:
        record: None if the trial has none: its process was lost, or another runner is busy with it.
        exitcode: of a lost process, else None.
        files: of the trial's folder; None where they lie on the shared disk already.
    """

    record: TrialRecord | None
    exitcode: int | None
    files: Files | None


def run_order(order: Order, news: "Queue") -> Delivery:
    """Run a trial on this node: in its folder where the disk is shared, else in one of its own.

    The task itself only watches. The trial runs in a process of its own, as it does without Ray,
    within the same limits; the kernel ends it with the task.

    Args:
        order: what.
        news: hears when the trial begins, and how far it is.

    Raises:
        UnfitNodeError: the node's code is not the runner's.
        RequestError: the dataset did not arrive whole.
        OSError: the disk is full.
    """
    start_workers()
    shared = order.token.exists()
    news.put((order.number, shared, b""))
    if order.cwd.is_dir():
        os.chdir(order.cwd)
    trial = _place_plugin(order)
    check_code(trial, order.code)
    job = replace(order.job, trial=trial, prepared=_find_data(order))
    if shared:
        return _watch(order, job, None)
    with tempfile.TemporaryDirectory(prefix="intentbench-") as scratch:
        job = replace(job, folder=trial.folder(Path(scratch)))
        if order.base is not None:
            import ray

            unpack_files(ray.get(order.base), job.folder.parents[1] / trial.pretrained)
        delivery = _watch(order, job, news)
        return replace(delivery, files=pack_folder(job.folder))


@cache
def start_workers() -> None:
    """Have ready what trials are forked from; a trial's time does not count it."""
    # A forked process imports the main module of its parent, which here is Ray's.
    vars(sys.modules["__main__"]).pop("__file__", None)
    first = start_forkserver().Process(target=os.getpid)
    first.start()
    first.join()


def _watch(order: Order, job: Job, news: "Queue | None") -> Delivery:
    """Run the trial in a process of its own, and hold it to its limits."""
    device = os.environ["CUDA_VISIBLE_DEVICES"] if order.gpu else ""
    worker, told = Worker(job, Slot(order.number, device, order.threads)), b""
    try:
        while not worker.ended():
            wait_for([worker], POLL)
            keep_limits([worker], order.timeout, order.memory)
            if news is not None and (now := _read(job.folder / PROGRESS)) != told:
                told = now
                news.put((order.number, False, now))
    finally:
        end_all([worker])
    if worker.answered:
        return Delivery(worker.answer, None, None)
    if worker.reason:
        return Delivery(record_failure(job, worker.reason), None, None)
    return Delivery(None, worker.exitcode, None)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def trial_code(trial: Trial) -> str:
    """Fingerprint of all code that a trial runs, as it is on this machine.

    Raises:
        ImportError, AttributeError: its method is not installed here.
    """
    if trial.plugin:
        import_plugin(Path(trial.plugin))
    module, _, name = trial.class_path.rpartition(".")
    files = [inspect.getfile(getattr(import_module(module), name)), sequence.__file__]
    if trial.data.get("added_pairs"):
        files.append(edge_noise.__file__)
    if trial.noise:
        files.append(noise_training.__file__)
    return code_fingerprint([Path(file) for file in files])


def check_code(trial: Trial, expected: str) -> None:
    """Refuse to run other code than the runner's.

    Raises:
        UnfitNodeError: it differs, or is not there.
    """
    try:
        found = trial_code(trial)
    except (ImportError, AttributeError) as error:
        found = str(error)
    if found != expected:
        raise UnfitNodeError(
            f"node {socket.gethostname()}: its code of {trial.method} is not the runner's "
            f"({found}, not {expected}); install the same version there"
        )


def _place_plugin(order: Order) -> Trial:
    """The trial with its plugin where this node has it: at the same path, or in the cache."""
    trial = order.job.trial
    if not trial.plugin:
        return trial
    here = Path(trial.plugin)
    if not (here.is_file() and here.read_bytes() == order.plugin):
        content = hashlib.sha256(order.plugin).hexdigest()[:16]
        here = cache_folder() / "shipped" / content / here.name
        write_atomic(here, order.plugin)
    return replace(trial, plugin=str(here))


def _find_data(order: Order) -> Path:
    """The prepared dataset: at the same path, or unpacked once a node into the cache."""
    fingerprint = order.job.trial.fingerprint
    try:
        meta = json.loads((order.job.prepared / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        meta = {}
    if meta.get("fingerprint") == fingerprint:
        return order.job.prepared
    import ray

    root = cache_folder() / "shipped"
    return unpack_dataset(ray.get(order.data), order.job.prepared.name, fingerprint, root)
