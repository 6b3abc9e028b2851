"""K-means on the device of the points, for the E-step of methods with intent prototypes."""

import torch
from torch import Tensor, nn

CHUNK_CELLS = 8_000_000
"""Distances made at a time: 32 MB in float32."""

TOLERANCE = 1e-4
"""Fitting stops once the centroids' mean squared move is below this share of the variance."""


class KMeans(nn.Module):
    """Centroids in a buffer, fitted by Lloyd's algorithm.

    The first fit starts from k-means++ (Arthur & Vassilvitskii 2007); later ones start from the
    centroids that there are, which keeps the clusters' numbers stable between epochs.

    Args:
        clusters: K.
        width: D.
        iterations: of Lloyd's algorithm at most (20, as in faiss's default for the lineage).
        restarts: of the first fit; the best by inertia is kept.
        seed: of k-means++.
        points_per_cluster: fit on a random sample of K times as many points at most; every point
            is assigned all the same (faiss samples too).
    """

    def __init__(
        self,
        clusters: int,
        width: int,
        iterations: int = 20,
        restarts: int = 1,
        seed: int = 1,
        points_per_cluster: int = 4096,
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.restarts = restarts
        self.seed = seed
        self.points_per_cluster = points_per_cluster
        self.centroids: Tensor
        self.fitted: Tensor
        self.register_buffer("centroids", torch.zeros(clusters, width))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def fit(self, points: Tensor) -> Tensor:
        """Move the centroids to the points (P, D).

        Fewer points than clusters leave the surplus centroids where other points are: they get
        no members. The global generators are left alone.

        Returns:
            (P,) the cluster of each point.
        """
        generator = torch.Generator().manual_seed(self.seed)
        chosen = points
        if len(points) > (limit := self.points_per_cluster * len(self.centroids)):
            chosen = points[
                torch.randperm(len(points), generator=generator)[:limit].to(points.device)
            ]
        if self.fitted:
            self.centroids = self._lloyd(chosen, self.centroids)[0]
        else:
            fits = [
                self._lloyd(chosen, _plus_plus(chosen, len(self.centroids), generator))
                for _ in range(self.restarts)
            ]
            self.centroids = min(fits, key=lambda fit: fit[1])[0]
            self.fitted = torch.ones_like(self.fitted)
        return self.assign(points)

    def assign(self, points: Tensor) -> Tensor:
        """(P,) the nearest centroid of each point (P, D), by Euclidean distance."""
        return _nearest(points, self.centroids)[0]

    def _lloyd(self, points: Tensor, centroids: Tensor) -> tuple[Tensor, float]:
        """Centroids and inertia after at most `iterations` rounds."""
        limit = TOLERANCE * points.var(0, unbiased=False).mean()
        for _ in range(self.iterations):
            labels, distances = _nearest(points, centroids)
            sums = torch.zeros_like(centroids).index_add_(0, labels, points)
            counts = torch.bincount(labels, minlength=len(centroids)).to(points.dtype)
            moved = sums / counts.clamp(min=1)[:, None]
            # an empty cluster takes one of the points that are worst served
            empty = counts == 0
            far = distances.topk(min(len(centroids), len(points))).indices
            place = (empty.cumsum(0) - 1).clamp(0, len(far) - 1)
            moved = torch.where(empty[:, None], points[far[place]], moved)
            shift = (moved - centroids).square().sum(1).mean()
            centroids = moved
            if shift <= limit:  # one synchronisation a round; a fit is once an epoch
                break
        return centroids, float(_nearest(points, centroids)[1].sum())


def _nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centroid of each point and the squared distance to it, both (P,)."""
    norms = centroids.square().sum(1)
    rows = max(1, CHUNK_CELLS // len(centroids))
    labels, distances = [], []
    for start in range(0, len(points), rows):
        part = points[start : start + rows]
        # ‖x - c‖² less ‖x‖², which changes no argmin
        best = torch.addmm(norms, part, centroids.T, alpha=-2).min(1)
        labels.append(best.indices)
        distances.append((best.values + part.square().sum(1)).clamp(min=0))
    return torch.cat(labels), torch.cat(distances)


def _plus_plus(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """First centroids (K, D): each a point drawn by its squared distance to those before it."""
    draws = torch.rand(clusters, generator=generator).to(points)
    centroids = points[(draws[:1] * len(points)).long().clamp(max=len(points) - 1)]
    distances = (points - centroids).square().sum(1)
    chosen = [centroids]
    for draw in draws[1:]:
        mass = distances.double().cumsum(0)
        where = torch.searchsorted(mass, (draw.double() * mass[-1]).reshape(1))
        chosen.append(points[where.clamp(max=len(points) - 1)])
        distances = torch.minimum(distances, (points - chosen[-1]).square().sum(1))
    return torch.cat(chosen)
