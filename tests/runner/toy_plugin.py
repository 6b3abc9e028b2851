"""Methods for the runner's tests: one that learns a little, and the ways in which one can fail."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import torch
from threadpoolctl import threadpool_info
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.base import ClosedFormRecommender, GradientRecommender
from intentbench.models.card import Card
from intentbench.models.pretrained import EncoderArgument, PretrainedRecommender
from intentbench.runner import trial
from intentbench.runner.jobs import Job, Slot, enter_slot

Fault = Literal[
    "", "raise", "hang", "native", "leak", "kill", "kill_once", "full_disk", "slow", "clock"
]


class Toy(GradientRecommender):
    """Predicts the next item from the last one; `fault` says what goes wrong in training."""

    CARD = Card(title="Toy", paper="none", code="", tiny={"width": 8})

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int,
        width: int = 8,
        scales: tuple[float, ...] = (1.0,),
        fault: Fault = "",
    ) -> None:
        super().__init__(n_items, n_users)
        self.window = window
        self.scales = scales
        self.fault = fault
        self.inputs = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.outputs = nn.Embedding(n_items + 1, width, padding_idx=0)

    def encode(self, batch: Batch) -> Tensor:
        last = (batch.lengths - 1).clamp(min=0)
        states: Tensor = self.inputs(batch.items.gather(1, last[:, None])[:, 0])
        return states * sum(self.scales)

    def item_table(self) -> Tensor:
        return self.outputs.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        self._fail()
        real = batch.targets > 0
        logits = self.inputs(batch.items[real]) @ self.item_table().T
        return {"total": cross_entropy(logits, batch.targets[real])}

    def _fail(self) -> None:
        match self.fault:
            case "raise":
                raise ValueError("the loss went wrong\nsecond line")
            case "full_disk":
                raise OSError(28, "No space left on device")
            case "hang":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            case "native":  # with a process of its own, and never back in Python
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                place = Path(self.trainer.default_root_dir)
                (place / "new").write_text(f"{os.getpid()} {child.pid}")
                (place / "new").replace(place / "pids")
                ctypes.PyDLL(None).sleep(600)
            case "leak":
                held = [b"x" * 2**26 for _ in range(24)]  # 1.5 GiB
                time.sleep(600)
                del held
            case "clock":
                trial.utc_now = lambda: "1999-01-01T00:00:00.000000+00:00"
            case "slow":
                time.sleep(0.2)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill_once":
                marker = Path(self.trainer.default_root_dir) / "killed"
                if not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)


class Counts(ClosedFormRecommender):
    """Popularity, without a gradient and without chance."""

    CARD = Card(title="Counts", paper="none", code="", tiny={}, gradient=False, deterministic=True)
    counts: Tensor

    def __init__(self, n_items: int, n_users: int) -> None:
        super().__init__(n_items, n_users)
        self.register_buffer("counts", torch.zeros(n_items + 1))

    def prepare(self, training: TrainingData) -> None:
        self.counts.copy_(torch.bincount(training.items, minlength=self.n_items + 1))

    def score(self, batch: Batch) -> Tensor:
        scores = self.counts.repeat(len(batch.users), 1)
        scores[:, 0] = -torch.inf
        return scores


class Above(PretrainedRecommender):
    """The items that a trained SASRec, frozen, makes of a history, weighed anew."""

    CARD = Card(title="Above", paper="none", code="", tiny={})

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int,
        encoder: str = "sasrec",
        encoder_arguments: dict[str, EncoderArgument] | None = None,
    ) -> None:
        super().__init__(n_items, n_users, window, encoder, encoder_arguments)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))

    def score(self, batch: Batch) -> Tensor:
        scores: Tensor = self.base.encode(batch) @ self.base.item_table().T + self.bias
        scores[:, 0] = -torch.inf
        return scores

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return {"total": cross_entropy(self.bias[None].expand(len(batch.labels), -1), batch.labels)}


METHODS = {"toy": Toy, "counts": Counts, "above": Above}


def report_slot(job: Job, slot: Slot) -> dict[str, object]:
    """What a worker finds in its slot."""
    enter_slot(slot, job.folder / "log.txt")
    found: dict[str, object] = {
        name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    }
    blas = {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }
    return {**found, "torch": torch.get_num_threads(), "blas": sorted(blas)}
