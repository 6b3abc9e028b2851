"""What the scripts of this folder share: a bare Trainer, a process of its own, its peak."""

import json
import logging
import resource
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what prepares data is measured without Lightning
    from lightning.pytorch import Callback, Trainer

Figures = dict[str, float | int | str]
"""A line of a table: what its columns are called, and what stands in them."""


def bare_trainer(clock: "Callback", **settings: Any) -> "Trainer":
    """A Trainer for one epoch on the CPU that writes nothing.

    Args:
        clock: callback that takes the times.
        settings: further arguments, such as `limit_val_batches`.
    """
    from lightning.pytorch import Trainer

    return Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[clock],
        **settings,
    )


def settle(threads: int) -> None:
    """Use so many threads, and keep warnings out of tables."""
    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def in_own_process(script: str, arguments: Sequence[str]) -> Figures | str:
    """What a script prints last, as JSON, in a process of its own; or the end of its complaint."""
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return f"failed ({done.returncode}): {lines[-1] if lines else ''}"
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def peak() -> int:
    """Largest resident set of this process so far, MiB, memory-mapped files included."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
