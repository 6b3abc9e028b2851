"""C13 catches a method that loses users where several processes share them."""

from pathlib import Path

import pytest
from torch.multiprocessing.spawn import start_processes

from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from intentbench.contracts import test_processes
from intentbench.contracts.processes import WORLD, run_process
from intentbench.contracts.subject import Subject
from intentbench.runner.forkserver import start_forkserver
from tests.contracts import toys


@pytest.mark.ddp
def test_method_that_loses_users_is_caught(tmp_path: Path) -> None:
    classes = toys.keyed([toys.LastItem, toys.Counts, toys.FirstBatchOnly])
    targets = {key: f"{cls.__module__}:{cls.__qualname__}" for key, cls in classes.items()}
    folder = prepare("synthetic-tiny", cache=tmp_path)
    start_forkserver()
    arguments = (folder, targets, None, tmp_path)
    start_processes(run_process, arguments, WORLD, start_method="forkserver")  # type: ignore[no-untyped-call]  # in torch
    data = load_prepared(folder)
    check = test_processes.test_two_processes_rank_each_user_once_and_as_one
    for key in ("last_item", "counts"):
        check(Subject(key, classes[key], data), tmp_path)
    with pytest.raises(AssertionError):
        check(Subject("first_batch_only", toys.FirstBatchOnly, data), tmp_path)
