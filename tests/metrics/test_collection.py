"""Ranks gathered over batches and over processes."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DistributedSampler, TensorDataset

from intentbench.metrics.collection import ConflictingRanksError, RankMetric, RankTable

WORLD = 2
USERS = torch.tensor([3, 0, 9, 4, 4, 1, 7, 2, 8, 8, 5])  # users 4 and 8 have two targets each
KEYS = torch.tensor([6, 2, 4, 5, 7, 3, 2, 9, 1, 0, 2])
RANKS = torch.tensor([12, 1, 70000, 4, 8, 1, 3, 2, 99, 6, 5])


def _update(metric: RankMetric, rows: Tensor) -> None:
    for batch in torch.split(rows, 4):
        metric.update(USERS[batch], KEYS[batch], RANKS[batch])


def _assert_all_targets(table: RankTable) -> None:
    rows = sorted(zip(USERS.tolist(), KEYS.tolist(), RANKS.tolist(), strict=True))
    assert list(zip(*(column.tolist() for column in table), strict=True)) == rows
    assert {column.dtype for column in table} == {np.dtype(np.int32)}


def test_every_target_is_there_once_and_sorted() -> None:
    metric = RankMetric()
    _update(metric, torch.cat([torch.arange(11), torch.tensor([0, 1, 10])]))
    _assert_all_targets(metric.compute())


def test_reset_forgets() -> None:
    metric = RankMetric()
    metric.update(USERS, KEYS, RANKS + 1)
    metric.compute()
    metric.reset()
    _update(metric, torch.arange(11))
    _assert_all_targets(metric.compute())


def test_a_target_with_two_ranks_is_an_error() -> None:
    metric = RankMetric()
    metric.update(USERS, KEYS, RANKS)
    metric.update(USERS[4:5], KEYS[4:5], RANKS[4:5] + 1)
    with pytest.raises(ConflictingRanksError, match=r"1 targets.* user 4, event 7: 8 and 9"):
        metric.compute()


def _run_process(process: int, folder: Path) -> None:
    """Gather padded shares, then shares of which one is empty; write what this process sees."""
    distributed.init_process_group(
        "gloo",
        f"file://{folder / 'rendezvous'}",
        rank=process,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    rows = TensorDataset(torch.arange(11))
    # Twelve rows, the first of them twice.
    sampler: DistributedSampler[int] = DistributedSampler(rows, WORLD, process, shuffle=False)
    padded, uneven = RankMetric(), RankMetric()
    _update(padded, torch.tensor(list(sampler)))
    if process == 0:
        _update(uneven, torch.arange(11))
    for name, metric in (("padded", padded), ("uneven", uneven)):
        np.savez(folder / f"{name}.{process}.npz", **metric.compute()._asdict())
    distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    spawn(_run_process, (tmp_path,), nprocs=WORLD)  # type: ignore[no-untyped-call]
    for name in ("padded", "uneven"):
        for process in range(WORLD):
            with np.load(tmp_path / f"{name}.{process}.npz") as arrays:
                _assert_all_targets(RankTable(**arrays))
