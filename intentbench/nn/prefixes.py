"""Every training prefix of every user, as index tables on the device.

A prefix is named by one number: those of user 0 come first, oldest first. It is the input up to
some event, and its target is the event after. Nothing is copied: windows are gathered when asked.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.loader import Gatherer
from datamodules.rows import training_rows
from datamodules.types import PAD, SequenceBatch, TrainingData
from intentbench.nn.grouping import encode_groups
from intentbench.nn.together import encode_together

PASS_ROWS = 512
"""Rows encoded at a time in a pass over all prefixes."""


class Prefixes(nn.Module):
    """The prefixes of the training events; buffers stay out of checkpoints.

    Args:
        training: the training events.
        window: inputs of a prefix at most: the last ones.

    Attributes:
        items: (E,) training events.
        last: (S,) event that ends the input of each prefix.
        target: (S,) next item.
        users: (S,) row of the user.
        first: (N + 1,) number of the first prefix of each user.
    """

    items: Tensor
    last: Tensor
    target: Tensor
    users: Tensor
    first: Tensor
    starts: Tensor
    by_target: Tensor
    target_first: Tensor

    def __init__(self, training: TrainingData, window: int) -> None:
        super().__init__()
        self.window = window
        counts = (training.offsets.diff() - 1).clamp(min=0)
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        users = torch.repeat_interleave(torch.arange(len(counts)), counts)
        last = training.offsets[users] + torch.arange(len(users)) - first[users]
        target = training.items[last + 1]
        buffers = {
            "items": training.items,
            "last": last,
            "target": target,
            "users": users,
            "first": first,
            "starts": torch.maximum(training.offsets[users], last + 1 - window),
            "by_target": target.argsort(stable=True),
            "target_first": torch.searchsorted(
                target.sort().values, torch.arange(training.n_items + 2)
            ),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)
        self.offsets = training.offsets.numpy()
        self.rows = training_rows(self.offsets[:-1], np.diff(self.offsets), "all", window, "every")

    def __len__(self) -> int:
        """S, the number of prefixes."""
        return len(self.last)

    def numbers(self, users: Tensor, key: Tensor) -> Tensor:
        """The prefixes whose targets stand at positions `key` among the events of `users`, (B,)."""
        return self.first[users] + key - 1

    def same_target(self, prefixes: Tensor, noise: Tensor) -> Tensor:
        """For each prefix another one with the same target, drawn uniformly; itself if none is.

        Args:
            prefixes: (B,) numbers.
            noise: (B,) uniform in [0, 1).

        Returns:
            (B,) numbers.
        """
        target = self.target[prefixes]
        begin = self.target_first[target]
        count = self.target_first[target + 1] - begin
        drawn = (noise * (count - 1)).long().clamp(min=0)
        # the list less the prefix itself: its own place is taken by the list's last
        found = self.by_target[begin + drawn]
        return torch.where(found == prefixes, self.by_target[begin + count - 1], found)

    def partners(self, users: Tensor, key: Tensor) -> Tensor:
        """`same_target` of rows named as in `numbers`, drawn from the global generator, (B,)."""
        return self.same_target(self.numbers(users, key), torch.rand(len(users), device=key.device))

    def windows(self, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, W) of prefixes (B,), `PAD` on the right, and their lengths (B,)."""
        lengths = self.last[prefixes] + 1 - self.starts[prefixes]
        width = self.window if lengths.is_cuda else int(lengths.max())  # a GPU is not waited for
        column = torch.arange(width, device=lengths.device)
        where = (self.starts[prefixes][:, None] + column).clamp(max=len(self.items) - 1)
        return torch.where(column < lengths[:, None], self.items[where], PAD), lengths

    def encode(self, prefixes: Tensor, encode: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """States (B, D) of prefixes (B,), in their order.

        Args:
            prefixes: numbers.
            encode: (b, w) items and (b,) lengths -> (b, D), as `SequenceEncoder.last_state`.
        """
        (states,) = encode_together([self.windows(prefixes)], encode)
        return states

    def encode_all(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """States (S, D) of all prefixes, in one pass over the users' windows.

        Exact where `encode` is causal and counts positions from the first item: the state after
        an item does not know whether more follow.

        Args:
            encode: (b, w) items -> (b, w, D) states, as a `SequenceEncoder`.
        """
        gatherer = Gatherer(self.items, self.offsets, self.window, False, False, False)
        order = np.argsort(self.rows.start - self.rows.stop, kind="stable")  # longest first
        states: Tensor | None = None
        for begin in range(0, len(order), PASS_ROWS):
            batch = gatherer.training(self.rows, order[begin : begin + PASS_ROWS])
            found = encode_groups(batch, encode)[batch.select]
            if states is None:
                states = found.new_zeros(len(self), found.shape[1])
            states[self.numbers(batch.users[batch.rows], target_keys(batch))] = found
        if states is None:
            raise ValueError("there is no prefix: no user has two training events")
        return states


def target_keys(batch: SequenceBatch) -> Tensor:
    """Position of each real target of a batch among its user's events, (T,)."""
    ends = torch.bincount(batch.rows, minlength=len(batch.users)).cumsum(0)
    before_last = ends[batch.rows] - 1 - torch.arange(len(batch.rows), device=ends.device)
    return batch.key[batch.rows] - before_last
