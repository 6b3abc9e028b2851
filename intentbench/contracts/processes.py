"""What each of several processes does for checks C13 and C16; importable by name to be started."""

import os
import traceback
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from datamodules.prepared import PreparedDataset, load_prepared
from intentbench.contracts.data import events_of_users, take_events
from intentbench.contracts.gradients import is_divisible, step_gradients
from intentbench.contracts.subject import Subject, quiet_trainer
from intentbench.runner.distributed import GlobalBatchStrategy
from intentbench.runner.plugin import import_plugin

WORLD = 2
"""Number of processes."""

STRATEGY = "ddp_find_unused_parameters_true"
"""Of Lightning: a term of weight 0 leaves parameters without a gradient."""

TIMEOUT = timedelta(seconds=60)
"""How long a process waits for the other, which may have failed."""


def uneven(data: PreparedDataset) -> PreparedDataset:
    """The dataset less its last user, so that the processes do not have equally many."""
    return take_events(data, events_of_users(data)[:-1])


def run_process(
    rank: int, folder: Path, methods: dict[str, str], plugin: Path | None, out: Path
) -> None:
    """Train each method for an epoch, test it, and take steps, as one of `WORLD` over gloo.

    Args:
        rank: number of this process.
        folder: the prepared dataset.
        methods: key to "module:Class".
        plugin: file that defines them, None where they are installed.
        out: gets `<key>.pt`, the trained state, `<key>.<rank>.npz`, the ranks, and
            `<key>.steps.pt`, the averaged gradients of the first steps; where a method fails,
            `<key>.<rank>.txt`, the traceback.
    """
    os.environ.update(LOCAL_RANK=str(rank), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{out / 'rendezvous'}", rank=rank, world_size=WORLD, timeout=TIMEOUT
    )
    if plugin:
        import_plugin(plugin)
    data = uneven(load_prepared(folder))
    for key, target in methods.items():
        module, name = target.split(":")
        try:
            cls = getattr(import_module(module), name)
            subject = Subject(key, cls, data)
            _train_and_test(subject, rank, out)
            if is_divisible(key, cls):
                steps = step_gradients(subject, GlobalBatchStrategy(), WORLD)
                if rank == 0:
                    torch.save(steps, out / f"{key}.steps.pt")
        except Exception:  # noqa: BLE001 (the other methods shall still run)
            (out / f"{key}.{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
    distributed.destroy_process_group()


def _train_and_test(subject: Subject, rank: int, out: Path) -> None:
    model = subject.build()
    batches = subject.batches(model, evaluation_batch_size=31)  # the last global batch has one row
    if subject.card.gradient:
        quiet_trainer(1, strategy=STRATEGY, devices=WORLD).fit(model, batches)
    else:  # without a gradient there is nothing that processes could share
        model.prepare(subject.data.training())
    quiet_trainer(1, strategy="ddp", devices=WORLD).test(model, batches, verbose=False)
    if rank == 0:
        torch.save(model.state_dict(), out / f"{subject.key}.pt")
    assert model.table is not None
    np.savez(
        out / f"{subject.key}.{rank}.npz",
        user=model.table.user,
        key=model.table.key,
        rank=model.table.rank,
    )
