"""InteractionDataModule: a prepared dataset as user-item pairs, for collaborative filtering."""

from pathlib import Path

from datamodules.edge_noise import add_pairs
from datamodules.errors import RequestError
from datamodules.loader import BatchLoader
from datamodules.prepared import PreparedDataset
from datamodules.rows import Layout, Targets
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch, TrainingData


class InteractionDataModule(SequenceDataModule):
    """Implicit feedback without order: a training row is one pair, and held-out items are a set.

    Splits are those of the prepared dataset: given (`pre_split`), by ratio, or any other. A row's
    negatives are drawn on the device by the method (`intentbench.nn.negatives`), which knows how
    many it wants; the graph of all pairs is built once from `training()`
    (`intentbench.nn.graph`). Each held-out item of a user is ranked for itself in the whole
    catalogue, so that Recall and NDCG of the set follow from the ranks at any k.

    Args:
        dataset: a prepared dataset, the folder of one, or a catalogue key (then prepared first).
        data_root: where files are looked for; `$INTENTBENCH_DATA`, then the cache when None.
        layout: "pair", the only one.
        window: items of the history that an evaluation row shows as its input; methods that know
            a user by number do not read it.
        targets: no difference for pairs: each training event is a row.
        batch_size: pairs a step and process.
        evaluation_batch_size: held-out items ranked at once.
        mask_history: whether ranking excludes the user's training items.
        pad_to_window: batches of full width.
        seed: of the shuffle.
        device_resident: keep all items on the accelerator and gather batches there.
        added_pairs: random pairs to train on beside the data's own, as a share of them; ranking
            knows nothing of these. See `datamodules.edge_noise`.

    Raises:
        RequestError: another layout is asked for.
    """

    def __init__(
        self,
        dataset: str | Path | PreparedDataset,
        data_root: str | Path | None = None,
        layout: Layout = "pair",
        window: int = 50,
        targets: Targets = "last",
        batch_size: int = 4096,
        evaluation_batch_size: int = 256,
        mask_history: bool = True,
        pad_to_window: bool = False,
        seed: int = 0,
        device_resident: bool = True,
        added_pairs: float = 0.0,
    ) -> None:
        if layout != "pair":
            raise RequestError(f"InteractionDataModule makes rows of layout 'pair', not {layout!r}")
        super().__init__(
            dataset,
            data_root,
            layout,
            window,
            targets,
            batch_size,
            evaluation_batch_size,
            mask_history,
            pad_to_window,
            seed,
            device_resident,
        )
        self.added_pairs = added_pairs
        self._noisy: SequenceDataModule | None = None

    def training(self) -> TrainingData:
        """Every training pair, with those that were added."""
        return self._trained_on().dataset.training()

    def train_dataloader(self) -> BatchLoader[SequenceBatch]:
        """Shuffled pairs, with those that were added."""
        if not self.added_pairs:
            return super().train_dataloader()
        return self._trained_on().train_dataloader()

    def _trained_on(self) -> SequenceDataModule:
        """This data module, or one of the noisy data."""
        if not self.added_pairs:
            return self
        if self._noisy is None:
            self._noisy = SequenceDataModule(
                add_pairs(self.dataset, self.added_pairs),
                layout="pair",
                window=self.window,
                batch_size=self.batch_size,
                seed=self.seed,
                device_resident=self.device_resident,
            )
        self._noisy.trainer = self.trainer
        return self._noisy
