"""Noise in training inputs: a data module whose rows are perturbed anew in every epoch."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from datamodules.errors import RequestError
from datamodules.loader import BatchLoader
from datamodules.noise import KINDS, Edit, Noise, Outside, plan_edit
from datamodules.rows import Ints, cut_groups, flat_starts
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, SequenceBatch

TRAINABLE: dict[str, tuple[str, ...]] = {"all": ("swap",), "prefix": KINDS, "pair": ()}
"""Kinds of noise that training rows of a layout can have. Where every position is a target, a
neighbour that moves or drops out would show a position the item that it is asked for; a row of
layout "pair" has no inputs but its target."""


class NoisySequenceDataModule(SequenceDataModule):
    """Training rows with noise in their inputs, drawn anew each epoch; all else stays clean.

    Targets are clean, and so is validation, which chooses the epoch by the same yardstick at every
    rate. What a method makes of the training events itself (partners, an E-step over prefixes)
    is clean too. Items that come in are none of the user's training events: to leave held-out
    ones out as well would tell a method about them.

    Batches are made on the host.

    Args:
        clean: the data module whose training rows get noise.
        noise: what to do.

    Raises:
        RequestError: rows of this layout cannot have this noise; see `TRAINABLE`.
    """

    def __init__(self, clean: SequenceDataModule, noise: Noise) -> None:
        super().__init__(
            dataset=clean.dataset,
            data_root=clean.data_root,
            layout=clean.layout,
            window=clean.window,
            targets=clean.targets,
            batch_size=clean.batch_size,
            evaluation_batch_size=clean.evaluation_batch_size,
            mask_history=clean.mask_history,
            pad_to_window=clean.pad_to_window,
            seed=clean.seed,
            device_resident=False,
        )
        check_trainable(noise.kind, clean.layout)
        self.noise = noise
        self._loader: NoisyLoader | None = None

    @property
    def share(self) -> float:
        """Realised share: inputs touched of all inputs that training rows had so far."""
        return self._loader.touched / max(self._loader.seen, 1) if self._loader else 0.0

    def train_dataloader(self) -> BatchLoader[SequenceBatch]:
        """Shuffled training rows with noise.

        Raises:
            RequestError: no user has a training target.
        """
        training = self.training()
        outside = Outside(
            training.users.numpy(), training.items.numpy(), training.n_users, training.n_items
        )
        width = self.window if self.pad_to_window else 0
        clean = super().train_dataloader()
        self._loader = NoisyLoader(clean, self.noise, outside, self.window, width)
        return self._loader


def check_trainable(kind: str, layout: str) -> None:
    """Refuse noise that training rows of a layout cannot have.

    Raises:
        RequestError: see `TRAINABLE`.
    """
    if kind not in (allowed := TRAINABLE[layout]):
        hint = f"allowed: {', '.join(allowed)}" if allowed else "it has no inputs but its targets"
        raise RequestError(f"noise in training: no {kind!r} with layout {layout!r}; {hint}")


class NoisyLoader(BatchLoader[SequenceBatch]):
    """Batches with noise in their inputs: a function of the noise, the batches and the epoch.

    Args:
        clean: gives the batches.
        noise: what to do.
        outside: items that each user does not have.
        window: inputs of a row at most; of more, the last are kept.
        width: every batch is that wide; 0 for as wide as its longest row.

    Attributes:
        touched: inputs touched so far.
        seen: inputs so far.
    """

    def __init__(
        self,
        clean: BatchLoader[SequenceBatch],
        noise: Noise,
        outside: Outside,
        window: int,
        width: int,
    ) -> None:
        super().__init__(clean.sampler, clean.build)
        self.noise = noise
        self.outside = outside
        self.window = window
        self.width = width
        self.touched = 0
        self.seen = 0

    def __iter__(self) -> Iterator[SequenceBatch]:
        """The batches of the current epoch."""
        generator = self.noise.generator(self.sampler.epoch, self.sampler.rank)
        for batch in super().__iter__():
            yield self._noisy(batch, generator)

    def _noisy(self, batch: SequenceBatch, generator: np.random.Generator) -> SequenceBatch:
        items, lengths = batch.items.numpy(), batch.lengths.numpy()
        real = np.arange(items.shape[1]) < lengths[:, None]
        edit = plan_edit(lengths, self.noise, generator)
        fresh, users = edit.draw >= 0, batch.users.numpy()
        flat = items[real][edit.source]
        flat[fresh] = self.outside.draw(users[edit.rows[fresh]], edit.draw[fresh])
        self.touched += edit.touched
        self.seen += int(lengths.sum())
        if self.noise.kind in ("swap", "shuffle"):
            swapped = np.full_like(items, PAD)
            swapped[real] = flat
            noisy = replace(batch, items=torch.from_numpy(swapped))
        else:
            noisy = self._cut(batch, edit, flat)
        return noisy.pin_memory() if batch.items.is_pinned() else noisy

    def _cut(self, batch: SequenceBatch, edit: Edit, flat: Ints) -> SequenceBatch:
        """Rows of other lengths, each with its last position as its only target."""
        lengths = np.minimum(edit.counts, self.window)
        order = np.argsort(-lengths, kind="stable")
        line = np.empty_like(order)
        line[order] = np.arange(len(order))
        ends = np.cumsum(edit.counts)[edit.rows]
        column = np.arange(len(flat)) - ends + lengths[edit.rows]  # below 0: before the window
        kept, lengths = column >= 0, lengths[order]
        groups = ((0, len(order), self.width),) if self.width else cut_groups(lengths)
        items = np.full((len(order), groups[0][2]), PAD)
        items[line[edit.rows[kept]], column[kept]] = flat[kept]
        rows, back = torch.arange(len(order)), torch.from_numpy(order)
        targets = torch.full(items.shape, PAD)
        targets[rows, torch.from_numpy(lengths - 1)] = batch.labels[back]
        return SequenceBatch(
            users=batch.users[back],
            items=torch.from_numpy(items),
            lengths=torch.from_numpy(lengths),
            targets=targets,
            select=torch.from_numpy(flat_starts(groups) + lengths - 1),
            rows=rows,
            labels=batch.labels[back],
            key=batch.key[back],
            groups=groups,
        )
