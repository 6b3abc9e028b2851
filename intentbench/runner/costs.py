"""What a trial costs: time to score, memory."""

import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from lightning.pytorch import Trainer

from datamodules.sequence import SequenceDataModule
from intentbench.models.base import Recommender

SCORES = 2**26
"""Scores held at once, a quarter of a gigabyte: those of 256 users for 262,143 items."""


def measure_latency(
    trainer: Trainer, model: Recommender, data: SequenceDataModule
) -> tuple[float, float]:
    """Median milliseconds a user to score one user alone, and 256 users together.

    Where 256 rows of scores are more than `SCORES`, they come in as many parts as that takes.
    """
    device = trainer.strategy.root_device
    model.to(device).eval()
    loader = data.test_dataloader()
    rows = np.linspace(0, loader.sampler.count - 1, 256).astype(np.int64)  # long and short ones
    alone = [loader.build(row[None]).to(device) for row in rows[:: len(rows) // 16]]
    parts = np.array_split(rows, -(-len(rows) * (data.n_items + 1) // SCORES))
    together = [loader.build(part).to(device) for part in parts]

    def seconds(function: Callable[[], object]) -> float:
        begin = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    with torch.inference_mode():
        model.score(together[0])  # warm caches and lazily built tables
        singles = [seconds(lambda batch=batch: model.score(batch)) for batch in alone]  # type: ignore[misc]
        groups = [
            sum(seconds(lambda batch=batch: model.score(batch)) for batch in together)  # type: ignore[misc]
            for _ in range(5)
        ]
    return 1e3 * statistics.median(singles), 1e3 * statistics.median(groups) / len(rows)


def peak_memory() -> float:
    """Largest resident set of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def peak_device_memory(device: torch.device) -> float:
    """Largest allocation on an accelerator so far, in MiB; 0 on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def device_name(device: torch.device) -> str:
    """What a device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
