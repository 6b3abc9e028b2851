"""C13: several processes rank every user exactly once, and as one process does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from intentbench.contracts.processes import WORLD, run_process, uneven
from intentbench.contracts.subject import Subject
from intentbench.runner.forkserver import start_forkserver

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="session")
def ranked_by_two(
    tmp_path_factory: pytest.TempPathFactory,
    prepared_folder: Path,
    plugin_file: Path | None,
    method_targets: dict[str, str],
) -> Path:
    """The folder with what two processes found, all methods in one start."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    out = tmp_path_factory.mktemp("processes")
    start_forkserver()  # has loaded what takes long
    arguments = (prepared_folder, method_targets, plugin_file, out)
    start_processes(run_process, arguments, WORLD, start_method="forkserver")  # type: ignore[no-untyped-call]  # in torch
    return out


@pytest.mark.contract("C13")
def test_two_processes_rank_each_user_once_and_as_one(
    subject: Subject, ranked_by_two: Path
) -> None:
    data = uneven(subject.data)
    alone = Subject(subject.key, subject.cls, data)
    for trace in sorted(ranked_by_two.glob(f"{subject.key}.*.txt")):
        pytest.fail(trace.read_text(encoding="utf-8"))
    model = alone.build()
    state = torch.load(ranked_by_two / f"{subject.key}.pt", weights_only=True)
    model.load_state_dict(state)
    expected = alone.test(model)
    assert expected.user.tolist() == list(range(data.n_users))
    for rank in range(WORLD):
        with np.load(ranked_by_two / f"{subject.key}.{rank}.npz", allow_pickle=False) as found:
            for name in ("user", "key", "rank"):
                np.testing.assert_array_equal(found[name], getattr(expected, name))
