"""Behaviours as a part of items' codes, and clusters of prefixes within each behaviour.

An event of item v under behaviour a (1..A) is written v + (V + 1) a; v alone, without behaviour,
stays v. So encoders, windows and prefixes that know of items alone carry both.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from intentbench.nn.cluster_members import ClusterMembers
from intentbench.nn.kmeans import KMeans


class BehaviourEmbedding(nn.Module):
    """The vector of an item, and added to it that of the behaviour which its code names.

    Args:
        items: of V items and padding, (V + 1, D).
        behaviours: A.

    Attributes:
        weight: the items' table (V + 1, D), as of a plain embedding.
    """

    def __init__(self, items: nn.Embedding, behaviours: int) -> None:
        super().__init__()
        self.items = items
        with torch.random.fork_rng(devices=()):  # the other weights are those without behaviours
            self.behaviours = nn.Embedding(behaviours + 1, items.embedding_dim, padding_idx=0)
            nn.init.normal_(self.behaviours.weight[1:], std=0.02)

    @property
    def weight(self) -> Tensor:
        """(V + 1, D)."""
        return self.items.weight

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors (…, D) of codes (…)."""
        count = self.items.num_embeddings
        vectors: Tensor = self.items(codes % count) + self.behaviours(codes // count)
        return vectors


class ClustersByBehaviour(ClusterMembers):
    """K clusters of the prefixes whose last event has one behaviour, for each of A.

    Args:
        clusters: K.
        width: D.
        others_only: see `ClusterMembers`.
        behaviours: A.
    """

    def __init__(self, clusters: int, width: int, others_only: bool, behaviours: int) -> None:
        super().__init__(clusters, width, others_only, accumulate=False)
        self.clusters = clusters
        self.apart = nn.ModuleList(KMeans(clusters, width) for _ in range(behaviours + 1))
        self._behaviours: Tensor | None = None

    def take_behaviours(self, behaviours: Tensor) -> None:
        """Take the behaviours of the training events, (E,) codes 1..A or 0 for none."""
        self._behaviours = behaviours

    def cluster(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(S,) the cluster of each prefix: those of behaviour a are a K … a K + K - 1."""
        if self._behaviours is None:
            raise RuntimeError("clusters by behaviour need it: call take_behaviours first")
        states = self.prefixes.encode_all(encode)
        last = self._behaviours.to(states.device)[self.prefixes.last]
        labels = torch.zeros_like(last)
        for number, kmeans in enumerate(cast("list[KMeans]", list(self.apart))):
            inside = (last == number).nonzero()[:, 0]
            if len(inside):
                labels[inside] = number * self.clusters + kmeans.fit(states[inside])
        return labels
