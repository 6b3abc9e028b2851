"""Clusters of training prefixes, and their members as one sorted list to draw from.

The list holds `cluster * S + number` of S prefixes. Numbers grow by user and then by length
(`nn.prefixes`), so each cluster, each user in it, and each user's shorter prefixes are contiguous.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from datamodules.types import TrainingData
from intentbench.nn.kmeans import KMeans
from intentbench.nn.prefixes import Prefixes


class ClusterMembers(nn.Module):
    """K-means over the states of all prefixes, and members of clusters drawn uniformly.

    Args:
        clusters: K.
        width: D.
        others_only: never draw a prefix of the row's own user: a longer one holds the row's
            target as an input and would tell it. Where the cluster has nobody else, the user's
            prefixes that are no longer than the row's own are drawn from.
        accumulate: keep the members of earlier fits beside those of the last; one that stands in
            the list twice is drawn twice as often.

    Attributes:
        labels: (S,) the cluster of each prefix at the last fit.
        codes: (M,) the sorted list. It is part of the state where it cannot be made anew.
    """

    codes: Tensor
    labels: Tensor

    def __init__(self, clusters: int, width: int, others_only: bool, accumulate: bool) -> None:
        super().__init__()
        self.kmeans = KMeans(clusters, width)
        self.others_only = others_only
        self.accumulate = accumulate
        for name in ("codes", "labels"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64), persistent=False)
        self._prefixes: Prefixes | None = None

    def prepare(self, training: TrainingData, window: int) -> None:
        """Number the prefixes; no cluster has members yet."""
        self._prefixes = Prefixes(training, window).to(self.codes.device)
        self.codes = self.codes[:0]

    @property
    def prefixes(self) -> Prefixes:
        """All prefixes."""
        if self._prefixes is None:
            raise RuntimeError("the method's prepare must see the training events first")
        return self._prefixes

    def fit(self, encode: Callable[[Tensor], Tensor]) -> None:
        """Cluster every prefix, and list the members of each cluster.

        Args:
            encode: (b, w) items -> (b, w, D) states; causal, as in `Prefixes.encode_all`.
        """
        self.labels = labels = self.cluster(encode)
        codes = labels * len(labels) + torch.arange(len(labels), device=labels.device)
        if self.accumulate:
            codes = torch.cat([self.codes, codes])
        self.codes = codes.sort().values

    def cluster(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Encode every prefix, and move the centroids; (S,) the cluster of each prefix."""
        return self.kmeans.fit(self.prefixes.encode_all(encode))

    def draw(self, clusters: Tensor, own: Tensor, noise: Tensor) -> Tensor:
        """A prefix of a given cluster for each row.

        Args:
            clusters: (B,) where to draw from.
            own: (B,) number of the row's own prefix.
            noise: (B,) uniform in [0, 1), float64: float32 cannot name every place of a long list.

        Returns:
            (B,) numbers; the row's own where the cluster has nobody to draw.
        """
        base = clusters * len(self.prefixes)
        ends = torch.stack([base, base + len(self.prefixes)])
        begin, end = torch.searchsorted(self.codes, ends)
        mine, after = begin, begin  # the block of the row's user, empty if it may be drawn from
        if self.others_only:
            user = self.prefixes.users[own]
            block = torch.stack([self.prefixes.first[user], self.prefixes.first[user + 1]])
            mine, after = torch.searchsorted(self.codes, base + block)
        others = end - begin - (after - mine)
        place = begin + (noise * others).long()
        place = torch.where(place >= mine, place + (after - mine), place)
        not_longer = torch.searchsorted(self.codes, base + own, right=True) - mine
        place = torch.where(others > 0, place, mine + (noise * not_longer).long())
        found = self.codes[place.clamp(max=len(self.codes) - 1)] - base
        return torch.where((others > 0) | (not_longer > 0), found, own)

    def get_extra_state(self) -> Tensor:
        """The accumulated members, whose number a fresh object does not know; else nothing."""
        return self.codes if self.accumulate else self.codes[:0]

    def set_extra_state(self, state: Tensor) -> None:
        """Take up accumulated members."""
        self.codes = state.to(self.codes.device)
