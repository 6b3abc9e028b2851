"""Augmented views of sequences, and states pooled over them (CoSeRec, ICLRec, ELCRec, IOCRec).

A view is a row of a batch after one random edit. Views are compared by their mean state or by all
their states, flattened from the last item backwards where published code pads on the left, from the
first item on where it pads on the right (IOCRec). That code pools over the padded positions too;
here padding counts for nothing, so that a trimmed batch gives what a padded one gives, and items
meet as they do there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from datamodules.augment import Edited, crop, mask, reorder
from datamodules.loader import Gatherer
from datamodules.rows import Groups, cut_groups, training_rows
from datamodules.types import SequenceBatch, TrainingData
from intentbench.nn.info_nce import info_nce
from intentbench.nn.losses import binary_cross_entropy, positive_and_negative_scores
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.processes import widest

Edit = Callable[..., Edited]
"""(items (B, L), lengths (B,), noise=(B, N + 1) with N ≥ L) -> edited items and lengths."""

PASS_ROWS = 512
"""Rows encoded at a time in a pass over all users."""


def crop_mask_reorder(
    crop_ratio: float, mask_ratio: float, reorder_ratio: float, token: int | None = None
) -> tuple[Edit, Edit, Edit]:
    """The three edits of CL4SRec: keep a part, mask items, shuffle a part.

    Args:
        crop_ratio: share that is kept.
        mask_ratio: share that is masked.
        reorder_ratio: share that is shuffled.
        token: what stands for a masked item; None: it is taken away.
    """
    return (
        partial(_crop, ratio=crop_ratio),
        partial(mask, ratio=mask_ratio, token=token),
        partial(reorder, ratio=reorder_ratio),
    )


def _crop(items: Tensor, lengths: Tensor, ratio: float, noise: Tensor) -> Edited:
    return crop(items, lengths, ratio, noise[:, 0])


def random_view(
    items: Tensor,
    lengths: Tensor,
    edits: Sequence[Edit],
    window: int,
    allowed: Tensor | None = None,
) -> Edited:
    """Each row after one of the edits, drawn uniformly from those that it may take.

    The draw comes from the global generator and depends on the number of rows and on the window,
    not on how far the batch was trimmed.

    Args:
        items: (B, L).
        lengths: (B,).
        edits: E edits.
        window: N, the longest row.
        allowed: (B, E) bool, at least one a row; None: all.

    Returns:
        Items, as wide as the widest edit makes them, and their lengths (B,).
    """
    noise = torch.rand(len(items), window + 2, device=items.device)
    choice = _chosen(noise[:, 0], len(edits), allowed)
    results = [edit(items, lengths, noise=noise[:, 1:]) for edit in edits]
    width = max(edited.shape[1] for edited, _ in results)
    rows = torch.stack([pad(edited, (0, width - edited.shape[1])) for edited, _ in results])
    row = torch.arange(len(items), device=items.device)
    return rows[choice, row], torch.stack([kept for _, kept in results])[choice, row]


def _chosen(noise: Tensor, count: int, allowed: Tensor | None) -> Tensor:
    """(B,) number of one of the allowed edits, by noise (B,) in [0, 1)."""
    if allowed is None:
        return (noise * count).long()
    place = (noise * allowed.sum(1)).long()
    return (allowed.cumsum(1) > place[:, None]).long().argmax(1)


@dataclass(frozen=True)
class EncodedRows:
    """States of B rows, in groups of similar length.

    Attributes:
        parts: (b, w, …) states of each group, what stands at padding is meaningless.
        lengths: (B,) number of real positions of each row, at least 1, in the order of the parts.
        order: (B,) which row each row of the parts is; None where they are in order.
    """

    parts: tuple[Tensor, ...]
    lengths: Tensor
    order: Tensor | None = None

    @property
    def width(self) -> int:
        """Of the widest group."""
        return max(part.shape[1] for part in self.parts)

    def map(self, change: Callable[[Tensor], Tensor]) -> "EncodedRows":
        """The same rows with changed states: (b, w, …) to (b, w, …)."""
        return replace(self, parts=tuple(change(part) for part in self.parts))

    def flat(self) -> Tensor:
        """(sum of b * w, D), to be indexed with the `select` of the batch that was encoded."""
        return torch.cat([part.flatten(0, 1) for part in self.parts])

    def means(self) -> Tensor:
        """The mean state over the real positions of each row, (B, D)."""
        parts = []
        for part, lengths in self._with_lengths():
            real = torch.arange(part.shape[1], device=part.device) < lengths[:, None]
            parts.append((part * real[:, :, None]).sum(1) / lengths[:, None])
        return self._in_order(torch.cat(parts))

    def running_means(self) -> "EncodedRows":
        """At each position the mean over what stands up to it: the mean state of that prefix."""
        return self.map(
            lambda part: (
                part.cumsum(1) / torch.arange(1, part.shape[1] + 1, device=part.device)[:, None]
            )
        )

    def right_aligned(self, width: int) -> Tensor:
        """(B, width, D): each row ends in the last column, and zeros stand before it."""
        parts = []
        for part, lengths in self._with_lengths():
            found = part.shape[1]
            source = torch.arange(found, device=part.device) - (found - lengths)[:, None]
            index = source.clamp(min=0)[:, :, None].expand(part.shape)
            moved = part.gather(1, index) * (source >= 0)[:, :, None]
            parts.append(pad(moved, (0, 0, width - found, 0)))
        return self._in_order(torch.cat(parts))

    def left_aligned(self, width: int) -> Tensor:
        """(B, width, D): each row begins in the first column, and zeros stand after it."""
        parts = []
        for part, lengths in self._with_lengths():
            found = part.shape[1]
            real = torch.arange(found, device=part.device) < lengths[:, None]
            parts.append(pad(part * real[:, :, None], (0, 0, 0, width - found)))
        return self._in_order(torch.cat(parts))

    def _with_lengths(self) -> list[tuple[Tensor, Tensor]]:
        sizes = [len(part) for part in self.parts]
        return list(zip(self.parts, torch.split(self.lengths, sizes), strict=True))

    def _in_order(self, values: Tensor) -> Tensor:
        return values if self.order is None else values[self.order.argsort()]


def encode_rows(
    items: Tensor, lengths: Tensor, groups: Groups, encode: Callable[[Tensor], Tensor]
) -> EncodedRows:
    """States of rows, each group at its own width.

    Args:
        items: (B, L).
        lengths: (B,).
        groups: (start, stop, width), as of a batch.
        encode: (b, w) items -> (b, w, …) states. It must not look at padding on the right.
    """
    parts = tuple(encode(items[start:stop, :width]) for start, stop, width in groups)
    return EncodedRows(parts, lengths)


def encode_view(view: Edited, groups: Groups, encode: Callable[[Tensor], Tensor]) -> EncodedRows:
    """States of a view: on the host in new groups, as edits shorten rows; else in those given.

    Args:
        view: items and lengths.
        groups: of the batch that was edited, wide enough for the view: a GPU is not asked for
            lengths.
        encode: as in `encode_rows`.
    """
    items, lengths = view
    if lengths.device.type != "cpu":
        return encode_rows(items, lengths, groups, encode)
    order = lengths.argsort(descending=True, stable=True)
    items, lengths = items[order], lengths[order]
    rows = encode_rows(items, lengths, cut_groups(lengths.numpy()), encode)
    return replace(rows, order=order)


def instance_contrast(first: EncodedRows, second: EncodedRows, temperature: float) -> Tensor:
    """InfoNCE between the flattened states of two views: how alike they are, place by place."""
    width = widest(max(first.width, second.width), first.lengths.device)
    return info_nce(
        first.right_aligned(width).flatten(1), second.right_aligned(width).flatten(1), temperature
    )


def intent_contrast(
    first: EncodedRows,
    second: EncodedRows,
    prototypes: Tensor,
    temperature: float,
    groups: Tensor | None = None,
) -> Tensor:
    """Half of InfoNCE(mean H(x1), c) + InfoNCE(mean H(x2), c), as in ICLRec.

    Args:
        first: states of view x1.
        second: states of view x2.
        prototypes: (B, D) c, that of each row's intent.
        temperature: τ.
        groups: (B,) rows of one group are no negatives of each other; None: all are.
    """
    terms = [info_nce(view.means(), prototypes, temperature, groups) for view in (first, second)]
    return (terms[0] + terms[1]) / 2


def bce_with_one_negative(
    states: Tensor, table: Tensor, batch: SequenceBatch, sampler: UniformNegatives | None
) -> Tensor:
    """`bce1`, the main loss: each target against one item that its user has not had.

    Args:
        states: (T, D) at the real targets of the batch.
        table: (V + 1, D) item vectors.
        batch: the batch.
        sampler: of negatives; None before the method has seen the training events.
    """
    if sampler is None:
        raise RuntimeError("prepare must see the training events before the loss")
    negatives = sampler.sample(batch.users[batch.rows], 1)
    return binary_cross_entropy(
        *positive_and_negative_scores(states, table, batch.labels, negatives)
    )


class UserWindows(nn.Module):
    """The training window of each user, for E-steps; buffers stay out of checkpoints.

    A user's window are the last inputs that have a target, as in the training rows.

    Args:
        training: the training events.
        window: inputs at most.
    """

    items: Tensor

    def __init__(self, training: TrainingData, window: int) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("items", training.items, persistent=False)
        self.offsets = training.offsets.cpu().numpy()
        counts = np.diff(self.offsets)
        self.rows = training_rows(self.offsets[:-1], counts, "all", window, "last")

    def __len__(self) -> int:
        """R, the number of users who have a training target."""
        return len(self.rows)

    def means(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean state of each window, (R, D), longest windows first.

        Args:
            encode: (b, w) items -> (b, w, D) states, as a `SequenceEncoder`.
        """
        gatherer = Gatherer(self.items, self.offsets, self.window, False, False, False)
        order = np.argsort(self.rows.start - self.rows.stop, kind="stable")
        found = []
        for begin in range(0, len(order), PASS_ROWS):
            batch = gatherer.training(self.rows, order[begin : begin + PASS_ROWS])
            found.append(encode_rows(batch.items, batch.lengths, batch.groups, encode).means())
        return torch.cat(found)
