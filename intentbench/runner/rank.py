"""One of the processes of a distributed trial: `python -m intentbench.runner.rank …`.

Started by `intentbench.runner.distributed.run_in_processes`, and not meant for people.
"""

import logging
import os
import shutil
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from torch import distributed

from intentbench.results.store import CHECKPOINT, CONFIG
from intentbench.runner.config import Trial, read_config
from intentbench.runner.distributed import ERROR
from intentbench.runner.fit import fit_trial
from intentbench.runner.jobs import describe_error
from intentbench.runner.trial import run_trial


def main(arguments: list[str]) -> int:
    """Run a trial as one of several processes.

    Args:
        arguments: the trial's folder, the prepared dataset's or "", the accelerator, how many
            processes there are, the folder that they share, and which of them this is.

    Returns:
        The exit status: 0, or 1 after an error, which is then in `ERROR`.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder, prepared = Path(arguments[0]), Path(arguments[1]) if arguments[1] else None
    accelerator, processes = arguments[2], int(arguments[3])
    shared, rank = Path(arguments[4]), int(arguments[5])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # every process logs the same metrics, as ranks are gathered: nothing is to be averaged
    warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist")
    try:
        _join(shared / "rendezvous", rank, processes, accelerator)
        if rank == 0:
            run_trial(folder, prepared, accelerator)
        else:
            _follow(folder, prepared, accelerator, shared / str(rank))
    except Exception as error:
        logging.getLogger(__name__).exception("process %d failed", rank)
        _tell(shared / ERROR, rank, error)
        return 1
    return 0


def _end_with_parent() -> None:
    """End this process when its parent does: standard input is a pipe that nobody writes to."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _join(rendezvous: Path, rank: int, processes: int, accelerator: str) -> None:
    """Meet the others, before Lightning would; it then starts no processes of its own."""
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(processes))
    backend = "gloo"
    if accelerator != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(rank)
        backend = "nccl"
    distributed.init_process_group(backend, f"file://{rendezvous}", rank=rank, world_size=processes)


def _follow(folder: Path, prepared: Path | None, accelerator: str, own: Path) -> None:
    """Do the part of a process that writes nothing: train, and rank a share of the users.

    Args:
        folder: of the trial.
        prepared: of the dataset.
        accelerator: "cpu", "gpu" or "auto".
        own: a folder for what Lightning's callbacks write, thrown away.
    """
    own.mkdir()
    shutil.copy(folder / CONFIG, own / CONFIG)
    (own / CHECKPOINT).symlink_to(folder / CHECKPOINT)  # written by process 0
    trial = Trial.from_config(read_config(folder))
    base = folder.parents[1] / trial.pretrained if trial.pretrained else None
    fitted = fit_trial(own, prepared, accelerator, base)
    fitted.trainer.test(fitted.model, fitted.data, verbose=False)


def _tell(file: Path, rank: int, error: Exception) -> None:
    """Say why this process failed, unless another one did so before."""
    with suppress(FileExistsError), file.open("x", encoding="utf-8") as out:
        out.write(f"process {rank}: {describe_error(error)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
