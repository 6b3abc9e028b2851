"""SequenceDataModule: a prepared dataset as batches for sequential recommenders."""

from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch

from datamodules.errors import RequestError
from datamodules.loader import BatchLoader, BatchOrder, Gatherer
from datamodules.prepared import TEST, TRAIN, VALID, PreparedDataset, load_prepared
from datamodules.rows import Layout, Queries, Targets, evaluation_queries, training_rows
from datamodules.types import EvaluationBatch, SequenceBatch, TrainingData


class SequenceDataModule(pl.LightningDataModule):
    """Leave-one-out (or any other prepared split) over users' sequences.

    Args:
        dataset: a prepared dataset, the folder of one, or a catalogue key (then prepared first).
        data_root: where files are looked for; `$INTENTBENCH_DATA`, then the cache when None.
        layout: how training rows are cut: "all" one row a user, every position a target;
            "prefix" one row a target; "pair" one row an event, its own target.
        window: inputs of a row at most (N in the papers).
        targets: "last": only the last `window` inputs of a user make training targets, as in the
            papers' code; "every": every event but the first does, after its last `window` inputs;
            "final": the last event alone, one target a user (BERT4Rec, which hides items anywhere
            in a row, learns from these all the same).
        batch_size: training rows a step and process.
        evaluation_batch_size: queries ranked at once.
        mask_history: whether ranking excludes what the user already had.
        pad_to_window: batches of full width, for methods that read padding.
        seed: of the shuffle; the order of an epoch follows from (seed, epoch).
        device_resident: keep all items on the accelerator and gather batches there; otherwise
            they are made on the host and copied from pinned memory.
    """

    def __init__(
        self,
        dataset: str | Path | PreparedDataset,
        data_root: str | Path | None = None,
        layout: Layout = "all",
        window: int = 50,
        targets: Targets = "last",
        batch_size: int = 256,
        evaluation_batch_size: int = 256,
        mask_history: bool = True,
        pad_to_window: bool = False,
        seed: int = 0,
        device_resident: bool = True,
    ) -> None:
        super().__init__()
        if window < 1 or batch_size < 1 or evaluation_batch_size < 1:
            raise RequestError("window, batch_size and evaluation_batch_size must be at least 1")
        self.source = dataset
        self.data_root = Path(data_root) if data_root else None
        self.layout: Layout = layout
        self.window = window
        self.targets: Targets = targets
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.mask_history = mask_history
        self.pad_to_window = pad_to_window
        self.seed = seed
        self.device_resident = device_resident
        self._dataset = dataset if isinstance(dataset, PreparedDataset) else None

    @property
    def dataset(self) -> PreparedDataset:
        """The prepared dataset, opened on first use."""
        if self._dataset is None:
            self._dataset = load_prepared(self._folder())
        return self._dataset

    @property
    def n_items(self) -> int:
        """V, the size of the catalogue."""
        return self.dataset.n_items

    @property
    def n_users(self) -> int:
        """N, the number of users."""
        return self.dataset.n_users

    def training(self) -> TrainingData:
        """Every training event, whatever the window."""
        return self.dataset.training()

    def prepare_data(self) -> None:
        """Prepare the dataset on disk if that has not been done."""
        if self._dataset is None:
            self._folder()

    def train_dataloader(self) -> BatchLoader[SequenceBatch]:
        """Shuffled training rows.

        Raises:
            RequestError: no user has a training target.
        """
        offsets = self.dataset.offsets.numpy()
        kept = np.concatenate([[0], np.cumsum(self.dataset.split.numpy() == TRAIN)])
        counts = kept[offsets[1:]] - kept[offsets[:-1]]
        rows = training_rows(offsets[:-1], counts, self.layout, self.window, self.targets)
        if not len(rows):
            raise RequestError(f"{self.dataset.meta.name}: no user has two training events")
        rank, world = self._processes()
        order = BatchOrder(len(rows), self.batch_size, self.seed, rank, world)
        return BatchLoader(order, partial(self._gatherer().training, rows))

    def val_dataloader(self) -> BatchLoader[EvaluationBatch]:
        """The validation targets, longest histories first."""
        return self._evaluation(VALID)

    def test_dataloader(self) -> BatchLoader[EvaluationBatch]:
        """The test targets, longest histories first."""
        return self._evaluation(TEST)

    def predict_dataloader(self) -> BatchLoader[EvaluationBatch]:
        """Every user with all events as history and no target: what would come next?"""
        offsets = self.dataset.offsets.numpy()
        users = np.arange(self.n_users)
        return self._queries(Queries(users, offsets[1:].copy(), np.full(len(users), -1)))

    def _evaluation(self, stage: int) -> BatchLoader[EvaluationBatch]:
        data = self.dataset
        queries = evaluation_queries(
            data.offsets.numpy(), data.split.numpy(), stage, data.meta.history
        )
        return self._queries(queries)

    def _queries(self, queries: Queries) -> BatchLoader[EvaluationBatch]:
        known = queries.stop - self.dataset.offsets.numpy()[queries.users]
        longest = np.argsort(-known, kind="stable")  # alike lengths share a batch: less padding
        queries = Queries(queries.users[longest], queries.stop[longest], queries.target[longest])
        rank, world = self._processes()
        order = BatchOrder(len(queries), self.evaluation_batch_size, None, rank, world)
        return BatchLoader(order, partial(self._gatherer().evaluation, queries))

    def _gatherer(self) -> Gatherer:
        device = self._device()
        resident = self.device_resident and device.type == "cuda"
        return Gatherer(
            items=self.dataset.items.long().to(device if resident else "cpu"),
            offsets=self.dataset.offsets.numpy(),
            window=self.window,
            pad_to_window=self.pad_to_window,
            mask_history=self.mask_history,
            pin=device.type == "cuda" and not resident,
        )

    def _folder(self) -> Path:
        source = str(self.source)
        if (Path(source) / "meta.json").exists():
            return Path(source)
        from datamodules.prepare import prepare  # a worker with a prepared folder needs no polars

        return prepare(source, self.data_root)

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
