"""Clusters of training prefixes that do not come from k-means of the epoch's states, for studies.

What k-means is worth shows beside clusters that know less of the states, or nothing; what a hard
choice of the cluster is worth, beside mixtures of the nearest centroids.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, softmax

from datamodules.types import TrainingData
from intentbench.nn.cluster_members import ClusterMembers

Clustering = Literal["kmeans", "frozen", "random", "balanced", "feature"]
"""Where clusters come from; see `OtherClusters`."""

PASS_ROWS = 4096
"""Prefixes looked at together where each makes a wide row."""

SEED = 1
"""Of what is drawn once for all epochs, apart from training; k-means has the same."""


class OtherClusters(ClusterMembers):
    """Clusters and their members, with a choice of where clusters come from.

    Args:
        clusters: K.
        width: D.
        others_only: see `ClusterMembers`.
        clustering: "kmeans" of the states, anew each epoch; "frozen", that of the first fit for
            good; "random", the nearest of K states of the epoch, those of prefixes that are drawn
            once; "balanced", dealt out once in equal numbers, whatever the states; "feature", what
            most of a prefix's items share, see `take_feature`.
        nearest: m, how many centroids `mix` mixes; 0: it is not asked.
        temperature: of `mix`.
    """

    near: Tensor
    shares: Tensor

    def __init__(
        self,
        clusters: int,
        width: int,
        others_only: bool,
        clustering: Clustering,
        nearest: int = 0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(clusters, width, others_only, accumulate=False)
        self.clusters = clusters
        self.clustering = clustering
        self.nearest = nearest
        self.temperature = temperature
        self.register_buffer("near", torch.zeros(0, nearest, dtype=torch.int64), persistent=False)
        self.register_buffer("shares", torch.zeros(0, nearest), persistent=False)
        self._feature: tuple[Tensor, Tensor] | None = None

    def prepare(self, training: TrainingData, window: int) -> None:
        """Number the prefixes; none has a cluster yet."""
        super().prepare(training, window)
        self.labels = self.labels[:0]

    def take_feature(self, values: Tensor, offsets: Tensor) -> None:
        """Take the item feature of clustering "feature": item v has `values[offsets[v]:…[v + 1]]`.

        A prefix's cluster is the value that most of its items have, the smallest of several; those
        without any value are a cluster of their own.
        """
        self._feature = values, offsets

    def cluster(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(S,) the cluster of each prefix."""
        if self.clustering in ("frozen", "feature") and len(self.labels):
            return self.labels
        if self.clustering == "feature":
            return self._majorities()
        if self.clustering == "balanced":
            return self._shuffled() % self.clusters
        states = self.prefixes.encode_all(encode)
        if self.clustering == "random":
            drawn = self._shuffled()
            self.kmeans.centroids = states[drawn[torch.arange(self.clusters) % len(drawn)]]
            self.kmeans.fitted = torch.ones_like(self.kmeans.fitted)
            labels = self.kmeans.assign(states)
        else:
            labels = self.kmeans.fit(states)
        if self.nearest:
            self._weigh(states)
        return labels

    def _shuffled(self) -> Tensor:
        """(S,) the numbers of all prefixes, in the same random order each time."""
        generator = torch.Generator().manual_seed(SEED)
        return torch.randperm(len(self.prefixes), generator=generator).to(self.codes.device)

    def _majorities(self) -> Tensor:
        """(S,) the value that most items of each prefix have."""
        if self._feature is None:
            raise RuntimeError("clusters of a feature need it: call take_feature first")
        values, offsets = (tensor.to(self.codes.device) for tensor in self._feature)
        known, codes = torch.unique(values, return_inverse=True)
        items = torch.repeat_interleave(offsets.diff())
        has = torch.zeros(len(offsets) - 1, len(known), device=values.device)
        has[items, codes] = 1.0
        labels = []
        for start in range(0, len(self.prefixes), PASS_ROWS):
            stop = min(start + PASS_ROWS, len(self.prefixes))
            windows, _ = self.prefixes.windows(torch.arange(start, stop, device=values.device))
            most = embedding_bag(windows, has, mode="sum").max(1)  # the first of the largest
            labels.append(most.indices.where(most.values > 0, len(known)))
        return torch.cat(labels)

    def _weigh(self, states: Tensor) -> None:
        """Note which centroids are nearest to each prefix, and the shares of `mix`."""
        near, shares = [], []
        for start in range(0, len(states), PASS_ROWS):
            part = states[start : start + PASS_ROWS]
            closest = torch.cdist(part, self.kmeans.centroids).topk(self.nearest, largest=False)
            near.append(closest.indices)
            shares.append(softmax(-closest.values / self.temperature, 1))
        self.near, self.shares = torch.cat(near), torch.cat(shares)

    def mix(self, own: Tensor) -> Tensor:
        """Σ_j a_j c_j (B, D) of the m centroids nearest to prefixes (B,) when they were fitted.

        The shares a are the softmax of -‖h - c_j‖ / temperature. No gradient passes.
        """
        return (self.shares[own][:, :, None] * self.kmeans.centroids[self.near[own]]).sum(1)

    def get_extra_state(self) -> Tensor:
        """The members of frozen clusters, which no later fit finds again; else nothing."""
        return self.codes if self.clustering == "frozen" else self.codes[:0]

    def set_extra_state(self, state: Tensor) -> None:
        """Take up frozen clusters."""
        super().set_extra_state(state)
        if self._prefixes is not None and len(state):
            count = len(self.prefixes)
            self.labels = self.codes.new_zeros(count)
            self.labels[self.codes % count] = self.codes // count
