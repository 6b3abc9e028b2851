"""C16 holds for variants, and catches a loss that processes cannot share."""

from pathlib import Path

import pytest
from torch.multiprocessing.spawn import start_processes

from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from intentbench.contracts import test_processes
from intentbench.contracts.processes import WORLD, run_process
from intentbench.contracts.subject import Subject
from intentbench.runner.forkserver import start_forkserver
from tests.contracts import variants

HOLD = ["SampledSASRec", "FlatCL4SRec", "SequenceInDiRec", "RowIDCLRec", "RowIGRSR"]
HOLD += ["ProgressiveReaRec", "PlainCL4SRec"]


@pytest.mark.ddp
def test_variants_step_as_one_process_and_a_wrong_one_is_caught(tmp_path: Path) -> None:
    targets = {name: f"{variants.__name__}:{name}" for name in [*HOLD, "Unweighted"]}
    folder = prepare("synthetic-tiny", cache=tmp_path)
    start_forkserver()
    start_processes(  # type: ignore[no-untyped-call]  # in torch
        run_process, (folder, targets, None, tmp_path), WORLD, start_method="forkserver"
    )
    data = load_prepared(folder)
    check = test_processes.test_gradients_of_two_processes_are_those_of_one
    for name in HOLD:
        check(Subject(name, getattr(variants, name), data), tmp_path)
    with pytest.raises(AssertionError, match="off by"):
        check(Subject("Unweighted", variants.Unweighted, data), tmp_path)
