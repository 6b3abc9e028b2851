"""Trials on many machines: each a task of a Ray cluster, wherever there is room.

The driver keeps the books: it hands out trials, follows them, and writes what comes back where
machines share no disk with it. Ray places tasks, moves data and notices what dies.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from datamodules.errors import RequestError
from intentbench.results.lock import LOCK, is_locked
from intentbench.results.progress import PROGRESS
from intentbench.results.record import TrialRecord
from intentbench.results.store import CHECKPOINT, CONFIG, LOG, RESULT, write_atomic
from intentbench.runner.config import write_config
from intentbench.runner.jobs import (
    Job,
    describe_error,
    read_finished,
    record_failure,
    set_aside,
)
from intentbench.runner.parcels import Files, pack_files, pack_folder, unpack_files
from intentbench.runner.progress import Progress
from intentbench.runner.ray_cluster import (
    ClusterOptions,
    Share,
    connected,
    plan_share,
    sharing_token,
)
from intentbench.runner.ray_worker import (
    Delivery,
    News,
    Order,
    UnfitNodeError,
    run_order,
    trial_code,
)

if TYPE_CHECKING:
    from ray import ObjectRef

POLL = 0.25
"""Seconds between looks at what the nodes do."""

LOSSES = {"process": 2, "node": 5}
"""How often a trial may lose its process, or its whole node, before it counts as failed."""


def run_ray(
    jobs: list[Job],
    options: ClusterOptions,
    timeout: float | None,
    progress: Progress,
    memory: int | None = None,
) -> Iterator[tuple[Job, TrialRecord]]:
    """Run trials on a Ray cluster until all have a record; the twin of `run_local`.

    A trial that raises, or passes a limit, is recorded as failed. One whose process or node is lost
    is tried again first, as often as `LOSSES` says.

    Args:
        jobs: what to run, in this order, but for those that wait for another.
        options: where.
        timeout: seconds a trial, None for no limit.
        progress: told what starts and finishes; its number of slots is set.
        memory: bytes that a trial's processes may hold together, None for no limit.

    Yields:
        Job and record of each trial as it finishes.

    Raises:
        RequestError: no such cluster, it went away, or a node has other code.
    """
    with connected(options.address), sharing_token(options.out) as token:
        import ray
        from ray.exceptions import RayError

        found = ray.nodes()  # type: ignore[no-untyped-call]  # Ray types most but this
        nodes = [node["Resources"] for node in found if node["Alive"]]
        share = plan_share(nodes, options)
        progress.slots = share.slots
        grid = _Grid(jobs, share, timeout, memory, progress, token)
        try:
            yield from grid.run()
        except RayError as error:
            raise RequestError(
                f"Ray: {describe_error(error)}; what has finished is kept: the same command goes on"
            ) from error
        finally:
            grid.stop()


@dataclass
class _Flight:
    """An order that is out.

    Attributes:
        number: of the order.
        job: what runs.
        slot: its line of the display; -1 while it waits for room.
        lock: of the trial's folder, where the node does not see it.
        cancelled: whether another runner has the trial.
        found: what that one left of it, None while it is busy.
    """

    number: int
    job: Job
    slot: int = -1
    lock: FileLock | None = None
    cancelled: bool = False
    found: TrialRecord | None = None


class _Grid:
    """The books of a run."""

    def __init__(
        self,
        jobs: list[Job],
        share: Share,
        timeout: float | None,
        memory: int | None,
        progress: Progress,
        token: Path,
    ) -> None:
        import ray
        from ray.util.queue import Queue

        self.waiting = list(jobs)
        self.elsewhere: list[Job] = []
        self.flights: dict[ObjectRef[Delivery], _Flight] = {}
        self.share, self.timeout, self.memory = share, timeout, memory
        self.progress, self.token = progress, token
        self.losses = {kind: Counter[Path]() for kind in LOSSES}
        self.count = 0
        self.parcels: dict[Path, ObjectRef[Files]] = {}
        self.codes: dict[tuple[str, bool, bool], str] = {}
        # On the head: nothing goes on without it, whereas the others may come and go.
        place = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
        self.news = Queue(actor_options=place)
        # Tasks themselves never touch a GPU, so that their processes can serve one after another.
        remote = ray.remote(max_calls=0, max_retries=0, scheduling_strategy="SPREAD")(run_order)
        self.task: Any = remote.options(num_cpus=share.threads, num_gpus=share.gpus)

    def run(self) -> Iterator[tuple[Job, TrialRecord]]:
        """Hand out, follow and land all trials."""
        import ray

        while self.waiting or self.flights or self.elsewhere:
            busy = {job.folder for job in [*self.waiting, *self.elsewhere]}
            busy |= {flight.job.folder for flight in self.flights.values()}
            for job in [job for job in self.waiting if job.after not in busy]:
                self.waiting.remove(job)
                self._submit(job)
            done: list[ObjectRef[Delivery]] = []
            if self.flights:
                done, _ = ray.wait(list(self.flights), timeout=POLL)
            else:
                time.sleep(POLL)
            self._read_news()
            self.progress.tick()
            for ref in done:
                flight = self.flights.pop(ref)
                try:
                    record = self._land(ref, flight)
                finally:
                    _release(flight)
                self._tell(flight, record)
                if record is not None:
                    yield flight.job, record
            ready = [job for job in self.elsewhere if not is_locked(job.folder)]
            self.elsewhere = [job for job in self.elsewhere if job not in ready]
            self.waiting.extend(ready)

    def stop(self) -> None:
        """Free all locks. Ray ends the tasks of a driver that leaves.

        Cancelled here, they would answer one that is just leaving, which crashed it (Ray 2.60).
        """
        for flight in self.flights.values():
            _release(flight)

    def _submit(self, job: Job) -> None:
        trial = job.trial
        key = (trial.class_path, bool(trial.data.get("added_pairs")), bool(trial.noise))
        if key not in self.codes:
            self.codes[key] = trial_code(trial)
        self.count += 1
        absolute = replace(job, folder=job.folder.resolve(), prepared=job.prepared.resolve())
        order = Order(
            number=self.count,
            job=absolute,
            code=self.codes[key],
            threads=self.share.threads,
            gpu=self.share.gpus > 0,
            timeout=self.timeout,
            memory=self.memory,
            cwd=Path.cwd(),
            token=self.token,
            data=self._send(absolute.prepared),
            base=self._send(job.after.resolve()) if job.after else None,
            plugin=Path(trial.plugin).read_bytes() if trial.plugin else b"",
        )
        self.flights[self.task.remote(order, self.news)] = _Flight(self.count, job)

    def _send(self, folder: Path) -> "ObjectRef[Files]":
        """Put a prepared dataset, or what others start from a trial with, into the object store."""
        import ray

        if folder not in self.parcels:
            needed = [folder / name for name in (CHECKPOINT, RESULT) if (folder / name).exists()]
            files = pack_files(folder, needed) if needed else pack_folder(folder)
            self.parcels[folder] = ray.put(files)
        return self.parcels[folder]

    def _read_news(self) -> None:
        """Note which trials have begun, and how far those are that nobody here can see."""
        items: list[News] = self.news.get_nowait_batch(self.news.qsize())
        flights = {flight.number: flight for flight in self.flights.values()}
        for number, shared, reached in items:
            flight = flights.get(number)
            if flight is None or flight.cancelled:
                continue
            if flight.slot < 0:
                self._begin(flight)
                if not shared:
                    self._lock(flight)
            if reached:
                with suppress(OSError):  # only shown
                    write_atomic(flight.job.folder / PROGRESS, reached)

    def _begin(self, flight: _Flight) -> None:
        taken = {other.slot for other in self.flights.values()}
        flight.slot = next(n for n in range(len(taken) + 1) if n not in taken)
        self.progress.started(flight.job, flight.slot)

    def _lock(self, flight: _Flight) -> None:
        """Take a trial's lock in place of a node that cannot."""
        folder = flight.job.folder
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            self._cancel(flight)
            return
        flight.lock = lock
        try:
            found = read_finished(folder)
        except RequestError:
            found = None
            set_aside(folder)
        if found is not None and found.finished != flight.job.replaces:
            flight.found = found
            self._cancel(flight)

    def _cancel(self, flight: _Flight) -> None:
        import ray

        flight.cancelled = True
        ray.cancel(next(r for r, f in self.flights.items() if f is flight), force=True)

    def _land(self, ref: "ObjectRef[Delivery]", flight: _Flight) -> TrialRecord | None:
        """The record of a trial that has ended; None if it must be scheduled again."""
        import ray
        from ray import exceptions

        if flight.cancelled:
            if flight.found is None:
                self.elsewhere.append(flight.job)
            return flight.found
        try:
            delivery = ray.get(ref)
        except exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, UnfitNodeError):
                raise cause from None
            if isinstance(cause, exceptions.RaySystemError):  # it could not load the task
                raise UnfitNodeError(
                    f"a node cannot run a trial: {describe_error(cause)}; install intentbench "
                    "there, in the version of the runner"
                ) from None
            return record_failure(flight.job, describe_error(cause))
        except (exceptions.NodeDiedError, exceptions.ObjectLostError):
            return self._lost(flight.job, "node", "")
        except exceptions.WorkerCrashedError:
            return self._lost(flight.job, "process", "")
        except exceptions.OutOfMemoryError:
            why = "killed by Ray, as its node was short of memory"
            return self._lost(flight.job, "process", why)
        try:
            _store(flight.job, delivery)
        except OSError as error:
            return record_failure(flight.job, describe_error(error))
        if delivery.exitcode is not None:
            return self._lost(flight.job, "process", f"exit code {delivery.exitcode}")
        if delivery.record is None:
            self.elsewhere.append(flight.job)
        return delivery.record

    def _lost(self, job: Job, kind: str, why: str) -> TrialRecord | None:
        """Have a trial run again that came to no end, unless that has happened too often."""
        self.losses[kind][job.folder] += 1
        if self.losses[kind][job.folder] < LOSSES[kind]:
            self.waiting.append(job)
            return None
        reason = f"its {kind} was lost {LOSSES[kind]} times"
        return record_failure(job, f"{reason} ({why})" if why else reason)

    def _tell(self, flight: _Flight, record: TrialRecord | None) -> None:
        if flight.slot < 0:  # it was lost before it could say that it had begun
            self._begin(flight)
        self.progress.finished(flight.job, flight.slot, record)


_NOTHING = np.empty(0, dtype=np.uint8)


def _store(job: Job, delivery: Delivery) -> None:
    """Complete a trial's folder: what came from elsewhere, the log appended, the record last."""
    if delivery.record is not None:
        write_config(job.folder, job.trial)  # the node may have had the plugin at another path
    if delivery.files is not None:
        files = dict(delivery.files)
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / LOG).open("ab") as log:
            log.write(files.pop(LOG, _NOTHING).tobytes())
        files.pop(CONFIG, None)
        last = {name: files.pop(name) for name in (RESULT,) if name in files}
        if last:  # checkpoint and ranks are about to change: an old record would be a wrong one
            (job.folder / RESULT).unlink(missing_ok=True)
        unpack_files({**files, **last}, job.folder)


def _release(flight: _Flight) -> None:
    if flight.lock is not None:
        flight.lock.release()
