"""The base classes: the only training, validation, test and prediction steps of the suite.

A method gives `score` (or `encode` and `item_table`) and, if it is trained by gradients, `loss`.
Everything else happens here, once.
"""

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.rows import Layout
from datamodules.types import PAD, Batch, EvaluationBatch, SequenceBatch, TrainingData
from intentbench.metrics.collection import RankMetric, RankTable
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.ranks import (
    best_from_vectors,
    masked_scores,
    ranks_from_scores,
    ranks_from_vectors,
)
from intentbench.models.card import Card

MONITORED = ("hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20")
"""Metrics logged at every validation and test; the others follow from the stored ranks."""

ONE_PIECE = 2**18
"""Items up to which a batch is scored in one piece. Above, a batch of 256 users would take a
quarter of a gigabyte and more, several times over, and methods that score by a dot product are
ranked a chunk of the catalogue at a time."""


class Recommender(LightningModule):
    """A method that scores the whole catalogue for a batch of users.

    Args:
        n_items: V, the size of the catalogue; scores have V + 1 columns, column 0 is `PAD`.
        n_users: N, the number of users.
    """

    CARD: ClassVar[Card]
    layout: Layout = "all"

    def __init__(self, n_items: int, n_users: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.n_users = n_users
        self.val_ranks = RankMetric()
        self.test_ranks = RankMetric()
        self.table: RankTable | None = None
        self.save_hyperparameters()

    def prepare(self, training: TrainingData) -> None:
        """Take what is needed from the training events; called once, before the first step."""

    def encode(self, batch: Batch) -> Tensor:
        """Query vectors (B, D) whose dot products with `item_table` are the scores."""
        raise NotImplementedError

    def item_table(self) -> Tensor:
        """Item vectors (V + 1, D)."""
        raise NotImplementedError

    def score(self, batch: EvaluationBatch) -> Tensor:
        """Scores (B, V + 1), higher is better; column 0 (`PAD`) is -inf."""
        scores = self.encode(batch) @ self.item_table().T
        scores[:, PAD] = -torch.inf
        return scores

    # Lightning's hooks ---------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Check that the data suits the method, and hand it the training events.

        Raises:
            RequestError: the data module makes other rows, or longer ones, than the method takes.
        """
        if stage != "fit":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        if data.layout != self.layout:
            raise RequestError(
                f"{type(self).__name__} trains on layout {self.layout!r}, the data module makes "
                f"{data.layout!r}; build it with layout={self.layout!r}"
            )
        if data.window > self.hparams.get("window", data.window):
            raise RequestError(
                f"{type(self).__name__} takes windows of {self.hparams['window']} items, the data "
                f"module makes {data.window}; give both the same window"
            )
        self.prepare(data.training())

    def _in_chunks(self) -> bool:
        """Whether the catalogue is too large for one piece, and no `score` of its own needs it."""
        return self.n_items > ONE_PIECE and type(self).score is Recommender.score

    def _rank(self, batch: EvaluationBatch, metric: RankMetric) -> None:
        if self._in_chunks():
            vectors = self.encode(batch), self.item_table()
            ranks = ranks_from_vectors(*vectors, batch.target, batch.masked)
        else:
            ranks = ranks_from_scores(self.score(batch), batch.target, batch.masked)
        metric.update(batch.users, batch.key, ranks)

    def _close(self, metric: RankMetric, stage: str) -> None:
        table = metric.compute()
        metric.reset()
        if stage == "test":
            self.table = table
        for name in MONITORED:
            self.log(f"{stage}/{name}", float(compute_metric(name, table.rank).mean()))

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Rank the validation target of each user in the whole catalogue."""
        self._rank(batch, self.val_ranks)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all users."""
        self._close(self.val_ranks, "val")

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Rank the test target of each user in the whole catalogue."""
        self._rank(batch, self.test_ranks)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of all users and keep their ranks in `table`."""
        self._close(self.test_ranks, "test")

    def recommend(self, batch: EvaluationBatch, k: int) -> tuple[Tensor, Tensor]:
        """The k best candidates of each user and their scores, both (B, k); -inf: none is left."""
        k = min(k, self.n_items)
        if self._in_chunks():
            return best_from_vectors(self.encode(batch), self.item_table(), batch.masked, k)
        best = masked_scores(self.score(batch), batch.masked).topk(k)
        return best.indices, best.values

    def predict_step(self, batch: EvaluationBatch, batch_idx: int) -> dict[str, Tensor]:
        """The 20 best items of each user: "users" (B,), "items" and "scores" (B, 20 or V)."""
        items, scores = self.recommend(batch, 20)
        return {"users": batch.users, "items": items, "scores": scores}


class ClosedFormRecommender(Recommender):
    """A method without gradients: `prepare` is its whole training.

    State goes into buffers, so that a checkpoint has it. `Trainer.fit` ends after one empty epoch.
    """

    def __init__(self, n_items: int, n_users: int) -> None:
        super().__init__(n_items, n_users)
        self.automatic_optimization = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Nothing is optimised; an empty list, for Lightning warns of a None."""
        return []

    def on_train_batch_start(self, batch: SequenceBatch, batch_idx: int) -> int:
        """Skip the rest of the epoch, and stop after it."""
        self.trainer.should_stop = True
        return -1

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Never reached: see `on_train_batch_start`."""


class GradientRecommender(Recommender):
    """A method trained by gradient descent on `loss`.

    Args:
        n_items: V, the size of the catalogue.
        n_users: N, the number of users.
        learning_rate: step size of Adam.
        weight_decay: L2 penalty inside Adam.
        beta2: decay of Adam's second moment.
    """

    def __init__(
        self,
        n_items: int,
        n_users: int,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        beta2: float = 0.999,
    ) -> None:
        super().__init__(n_items, n_users)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.beta2 = beta2
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._generator_state: dict[str, Tensor] | None = None

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Named terms of the loss, each a scalar; "total" is the one that is minimised."""
        raise NotImplementedError

    def on_epoch(self) -> None:
        """The E-step of methods that have one: called before each epoch, and before the first loss.

        Dropout is off and no gradient is kept. State goes into buffers. Random draws come from a
        generator of its own, so that a method without its E-step is its base method, bit for bit.
        """

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all parameters that take a gradient, its update fused into one kernel."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(
            trained,
            lr=self.learning_rate,
            betas=(0.9, self.beta2),
            weight_decay=self.weight_decay,
            fused=True,
        )

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """One step; terms are summed on the device and logged once an epoch, which is cheaper."""
        terms = self.loss(batch)
        for name, value in terms.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1
        return terms["total"]

    def on_train_epoch_start(self) -> None:
        """Take up the random numbers of the checkpoint, once, when resuming; then the E-step."""
        self._sums, self._steps = {}, 0
        if self._generator_state is not None and self.trainer.ckpt_path is not None:
            torch.set_rng_state(self._generator_state["cpu"])
            if "cuda" in self._generator_state:
                torch.cuda.set_rng_state(self._generator_state["cuda"], self.device)
            if self.trainer.global_rank:  # the state is that of process 0; each draws its own
                torch.manual_seed(int(torch.randint(2**62, ())) + self.trainer.global_rank)
        self._generator_state = None
        self.eval()
        with torch.no_grad():
            self.on_epoch()
        self.train()

    def on_train_epoch_end(self) -> None:
        """Log each term's mean over the epoch."""
        for name, value in self._sums.items():
            self.log(f"train/{name}", value / self._steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the generator's state: Lightning does not, and then resuming is not exact."""
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        checkpoint["generator_state"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the generator's state at the next epoch."""
        self._generator_state = checkpoint.get("generator_state")
