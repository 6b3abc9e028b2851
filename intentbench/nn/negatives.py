"""Negative items, drawn on the device without a loop over users."""

import torch
from torch import Tensor, nn

from datamodules.types import TrainingData

ROUNDS = 8
"""Redraws of those that hit. A user who has seen half of the catalogue keeps a wrong negative in
one of 512 draws; users that dense do not occur, and a fixed number needs no synchronisation."""


class UniformNegatives(nn.Module):
    """Items drawn uniformly from those that a user does not have in the **training** events.

    Held-out items of a user are valid negatives: excluding them would leak what they are.

    Args:
        training: the training events.
    """

    def __init__(self, training: TrainingData) -> None:
        super().__init__()
        self.n_items = training.n_items
        pairs = training.users * (training.n_items + 1) + training.items
        self.pairs: Tensor
        self.register_buffer("pairs", torch.unique(pairs), persistent=False)

    def sample(self, users: Tensor, count: int) -> Tensor:
        """Draw `count` negatives for each of T users.

        Args:
            users: (T,) rows of users.
            count: K.

        Returns:
            (T, K) items in 1..V.
        """
        shape = (len(users), count)
        drawn = torch.randint(1, self.n_items + 1, shape, device=users.device)
        base = (users * (self.n_items + 1))[:, None]
        for _ in range(ROUNDS):
            again = torch.randint(1, self.n_items + 1, shape, device=users.device)
            drawn = torch.where(self._seen(base + drawn), again, drawn)
        return drawn

    def _seen(self, pairs: Tensor) -> Tensor:
        where = torch.searchsorted(self.pairs, pairs).clamp_(max=len(self.pairs) - 1)
        return self.pairs[where] == pairs
