"""C13 and C16: several processes rank every user once, and step, as one process does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from intentbench.contracts.gradients import STEPS, is_divisible, step_gradients
from intentbench.contracts.processes import WORLD, run_process, uneven
from intentbench.contracts.subject import Subject
from intentbench.runner.forkserver import start_forkserver

pytestmark = pytest.mark.ddp

NEAR = 1e-4
"""How far a gradient may lie off, of the largest of its tensor: sums have another order."""

NOTHING = 1e-7
"""How far where it is 0."""


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
    _fail_as_they_did(subject, ranked_by_two)
    model = alone.build()
    state = torch.load(ranked_by_two / f"{subject.key}.pt", weights_only=True)
    model.load_state_dict(state)
    expected = alone.test(model)
    assert expected.user.tolist() == list(range(data.n_users))
    for rank in range(WORLD):
        with np.load(ranked_by_two / f"{subject.key}.{rank}.npz", allow_pickle=False) as found:
            for name in ("user", "key", "rank"):
                np.testing.assert_array_equal(found[name], getattr(expected, name))


@pytest.mark.contract("C16")
def test_gradients_of_two_processes_are_those_of_one(subject: Subject, ranked_by_two: Path) -> None:
    if not is_divisible(subject.key, subject.cls):
        pytest.skip("its batches are not shared")
    _fail_as_they_did(subject, ranked_by_two)
    alone = step_gradients(Subject(subject.key, subject.cls, uneven(subject.data)))
    shared = torch.load(ranked_by_two / f"{subject.key}.steps.pt", weights_only=True)
    assert len(alone) == len(shared) == STEPS
    for step, (one, two) in enumerate(zip(alone, shared, strict=True)):
        assert one.keys() == two.keys()
        for name, gradient in one.items():
            scale = float(gradient.abs().max())
            found = float((two[name] - gradient).abs().max())
            assert found <= NEAR * scale + NOTHING, (
                f"step {step}, {name}: off by {found / scale:.1e}"
            )


def _fail_as_they_did(subject: Subject, out: Path) -> None:
    for trace in sorted(out.glob(f"{subject.key}.*.txt")):
        pytest.fail(trace.read_text(encoding="utf-8"))
