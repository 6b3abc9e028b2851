"""A trial on several processes of one machine: their launch, their watch, and their strategy.

`training.processes: 2` makes two processes share every batch, each with its own copy of the model;
`docs/distributed.md` says what is equal to one process, and what is not.

The process that is asked to run the trial takes no part in the training. It starts the others and
waits: one that fails ends the trial at once, though its peers may hang in a collective that will
never complete, and whoever kills the waiting process ends them all, for each holds one end of a
pipe that closes with it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed

from datamodules.errors import RequestError
from datamodules.loader import BatchLoader, BatchOrder
from intentbench.models import DIVISIBLE
from intentbench.models.base import Recommender
from intentbench.results.record import TrialRecord
from intentbench.results.store import read_record
from intentbench.runner.config import Training

POLL = 0.1
"""Seconds between looks at the processes."""

GRACE = 3.0
"""Seconds that the others have to end by themselves once one has failed."""

ERROR = "error.txt"
"""Where the process that fails first says why, in the folder that they share."""


class TrialProcessError(Exception):
    """A process of the trial raised an error; the message is that error's, in one line."""


class LostProcessError(Exception):
    """A process of the trial was killed, or crashed in native code.

    Attributes:
        signal: that ended it.
    """

    def __init__(self, rank: int, processes: int, signal: int) -> None:
        super().__init__(f"process {rank} of {processes} was lost (signal {signal})")
        self.signal = signal


class GlobalBatchStrategy(DDPStrategy):
    """DDP whose step is that of one process on the same batch.

    `batch_size` is that of all processes together. The mean of a loss over the targets of a
    process is weighted by how many these are: `DistributedDataParallel` averages gradients over
    processes, which need not have equally many. What methods keep beside their weights is sent from
    process 0 once an epoch, after the E-step; the events and graphs among it are large.
    """

    def __init__(self) -> None:
        # a term of weight 0 leaves parameters without a gradient
        super().__init__(broadcast_buffers=False, find_unused_parameters=True)

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Let all processes begin an epoch with the buffers of process 0."""
        if batch_idx or self.lightning_module is None:
            return
        for buffer in self.lightning_module.buffers():
            if buffer.numel():  # gloo knows no bool
                plain = buffer.view(torch.uint8) if buffer.dtype == torch.bool else buffer
                distributed.broadcast(plain, 0)

    def setup(self, trainer: Trainer) -> None:
        """As ever; and give each process random numbers of its own."""
        super().setup(trainer)
        state = np.random.SeedSequence([torch.initial_seed(), self.global_rank])
        torch.manual_seed(int(state.generate_state(1)[0]))

    def process_dataloader(self, dataloader: object) -> object:
        """Cut the training batches of the data module, which are of a process, to its share.

        Raises:
            RequestError: rows cannot be shared.
        """
        if not isinstance(dataloader, BatchLoader) or dataloader.sampler.seed is None:
            return dataloader
        order = dataloader.sampler
        share = batch_share(order.batch_size, order.world)
        rest = order.count % order.batch_size
        if 0 < rest < order.world:
            raise RequestError(
                f"training.processes: the last batch of an epoch has {rest} of {order.count} rows, "
                f"too few for {order.world} processes; choose another batch_size"
            )
        shared = BatchOrder(order.count, share, order.seed, order.rank, order.world)
        return BatchLoader(shared, dataloader.build)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, times this process's share of the targets over its share of the processes."""
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[assignment]  # a method's
        own = torch.tensor(float(len(args[0].labels)), dtype=torch.float64, device=loss.device)
        everyone = own.clone()
        distributed.all_reduce(everyone)
        return loss * (own * self.world_size / everyone).to(loss.dtype)


def batch_share(batch_size: int, processes: int) -> int:
    """Rows of a batch that a process gets.

    Raises:
        RequestError: they do not come out even.
    """
    if batch_size % processes:
        raise RequestError(
            f"training.processes: a batch_size of {batch_size} cannot be shared by {processes} "
            "processes; make it a multiple"
        )
    return batch_size // processes


def check_processes(
    method: str,
    cls: type[Recommender],
    training: Training,
    batch_sizes: Iterable[int],
    noise: bool,
    where: str,
) -> None:
    """Refuse several processes where they would not do what one does.

    Args:
        method: key of the method.
        cls: its class.
        training: of the row.
        batch_sizes: that the row is trained with; each is of all processes together.
        noise: whether the trained method is measured under noise.
        where: file and key path, the beginning of messages.

    Raises:
        RequestError: they would not.
    """
    if training.processes == 1:
        return
    if not cls.CARD.gradient:
        raise RequestError(
            f"{where}: {method!r} takes no gradient steps that processes could share; give this "
            "row training: {processes: 1}"
        )
    if method not in DIVISIBLE and not getattr(cls, "divisible", False):
        raise RequestError(
            f"{where}: the loss of {method!r} is not known to be the same when processes share a "
            "batch (docs/distributed.md); give this row training: {processes: 1}"
        )
    if training.compile:
        raise RequestError(f"{where}: compile and several processes do not go together; leave one")
    if noise:
        raise RequestError(f"{where}: noise is measured by one process; set training.processes: 1")
    try:
        for size in batch_sizes:
            batch_share(size, training.processes)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None


def check_launched() -> None:
    """Refuse to train where nobody started the other processes.

    Raises:
        RequestError: nobody did.
    """
    if "LOCAL_RANK" not in os.environ:
        raise RequestError(
            "training.processes: several processes are started by `intentbench run` and "
            "`intentbench fit` alone; set it to 1"
        )


def run_in_processes(
    folder: Path, prepared: Path | None, accelerator: str, processes: int
) -> TrialRecord:
    """Run the trial of a folder on several processes; the first of them writes all there is.

    Args:
        folder: of the trial, with its `config.yaml`.
        prepared: folder of the prepared dataset; None looks it up by name.
        accelerator: "cpu", "gpu" or "auto".
        processes: how many; on GPUs each takes one of those that are visible.

    Returns:
        The record, as written.

    Raises:
        RequestError: there are fewer GPUs than processes.
        TrialProcessError: one of them raised an error.
        LostProcessError: one of them was killed.
    """
    present = torch.cuda.device_count()
    if accelerator != "cpu" and 0 < present < processes:
        raise RequestError(
            f"training.processes: {processes} processes need as many GPUs, the trial has {present}"
        )
    threads = max(1, torch.get_num_threads() // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine
    with tempfile.TemporaryDirectory(prefix="intentbench-") as shared:
        arguments = [str(folder), str(prepared or ""), accelerator, str(processes), shared]
        command = [sys.executable, "-m", "intentbench.runner.rank", *arguments]
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(processes):
                started.append(_start([*command, str(rank)], environment))  # noqa: PERF401  # all that were started must end
            _watch(started, Path(shared))
        finally:
            for child in started:
                child.kill()
            for child in started:
                child.wait()
                if child.stdin:
                    child.stdin.close()
    record = read_record(folder)
    if record is None:
        raise TrialProcessError("the processes ended without a record")
    return record


def _start(command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # noqa: S603  # ours


def _watch(started: Sequence["subprocess.Popen[bytes]"], shared: Path) -> None:
    """Wait until all have ended well, or one has not.

    Raises:
        TrialProcessError: one raised an error.
        LostProcessError: one was killed.
    """
    while None in (found := [child.poll() for child in started]) and not any(found):
        time.sleep(POLL)
    if not any(found):
        return
    raised = 1 in found
    end = time.monotonic() + GRACE  # the peers of a killed process notice, and fail: not the cause
    while None in [child.poll() for child in started] and time.monotonic() < end:
        time.sleep(POLL)
    told = shared / ERROR
    for rank, child in enumerate(started):
        # an error may make the peers abort: then it is the cause
        if raised and told.exists() and child.returncode == -signal.SIGABRT:
            continue
        if child.returncode is not None and child.returncode < 0:
            raise LostProcessError(rank, len(started), -child.returncode)
    raise TrialProcessError(
        told.read_text(encoding="utf-8") if told.exists() else "a process failed without a word"
    )
