"""InDiRec with other clusters, or another signal of them: what studies set against its own.

    s_e = the state of a member of the row's cluster, wherever clusters come from; or
    s_e = Σ_j a_j c_j,  a = softmax(-‖h - c_j‖ / θ) over the m centroids nearest to the row

All else is `indirec` as the suite repairs it, which is `clustering: kmeans`, `signal: member` here,
bit for bit.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from datamodules.types import SequenceBatch
from intentbench.models.indirec import CARD as PLAIN
from intentbench.models.indirec import InDiRec
from intentbench.models.takes import TakesDataset
from intentbench.nn.diffusion import Schedule
from intentbench.nn.other_clusters import Clustering, OtherClusters

WITH_CENTROIDS = ("kmeans", "random")
"""Clusterings whose centroids are those of the epoch."""

CARD = replace(
    PLAIN,
    title="InDiRec, other clusters",
    tiny={**PLAIN.tiny, "signal": "centroids", "nearest": 2},
    published=(),
    deviations=(
        *PLAIN.deviations,
        "the paper has k-means and members alone: other clusters and signals are the suite's "
        "studies of them",
        "distances to centroids are those at the beginning of the epoch, as the clusters are",
    ),
    effects={"feature": "clustering feature only"},
)


class InDiRecClusters(TakesDataset, InDiRec):
    """InDiRec (repaired) with a choice of clusters and signals.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        clustering: where clusters come from, see `OtherClusters`.
        feature: of clustering "feature": the item feature.
        signal: the state of a "member" of the row's cluster, or a mixture of "centroids".
        nearest: m of the mixture; 1 is the centroid of the row's own cluster.
        signal_temperature: θ of the mixture.
        clusters: as all that follow, see `InDiRec`; not of clustering "feature".
        steps: T.
        guidance: w.
        signal_dropout: p.
        lambda_diff: weight of L_diff.
        lambda_cl: weight of L_cl.
        temperature: τ of L_cl.
        schedule: of the noise.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        clip_norm: of the gradient.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD
    members: OtherClusters

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        clustering: Clustering = "kmeans",
        feature: str = "",
        signal: Literal["member", "centroids"] = "member",
        nearest: int = 1,
        signal_temperature: float = 1.0,
        clusters: int = 32,
        steps: int = 50,
        guidance: float = 2.0,
        signal_dropout: float = 0.1,
        lambda_diff: float = 1.0,
        lambda_cl: float = 0.2,
        temperature: float = 1.0,
        schedule: Schedule = "exp",
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        clip_norm: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            n_items, n_users, window, clusters=clusters, steps=steps, guidance=guidance,
            signal_dropout=signal_dropout, lambda_diff=lambda_diff, lambda_cl=lambda_cl,
            temperature=temperature, schedule=schedule, width=width, blocks=blocks, heads=heads,
            dropout=dropout, clip_norm=clip_norm, learning_rate=learning_rate,
            weight_decay=weight_decay,
        )  # fmt: skip
        if signal == "centroids" and clustering not in WITH_CENTROIDS:
            raise RequestError(
                f"indirec_clusters: clustering {clustering!r} has no centroids of the epoch for "
                f"signal 'centroids'; give signal 'member', or clustering one of {WITH_CENTROIDS}"
            )
        self.signal = signal
        self.feature = feature
        mixed = min(nearest, clusters) if signal == "centroids" else 0
        self.members = OtherClusters(clusters, width, True, clustering, mixed, signal_temperature)

    @classmethod
    def check(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """Refuse a dataset without the item feature that makes the clusters.

        Raises:
            RequestError: it has none of that name.
        """
        wanted, known = arguments["feature"], dataset.meta.item_features
        if arguments["clustering"] == "feature" and wanted not in known:
            raise RequestError(
                f"{dataset.meta.name}: no item feature {wanted!r} to make clusters of; it has: "
                f"{', '.join(known) or 'none'}"
            )

    def take(self, dataset: PreparedDataset) -> None:
        """Look up the feature that makes the clusters, where one does.

        Raises:
            RequestError: there is none of that name.
        """
        self.check(dataset, self.hparams)
        if self.members.clustering == "feature":
            self.members.take_feature(*dataset.item_feature(self.feature))

    def setup(self, stage: str) -> None:
        """Take the feature for training; ranking needs no clusters. Then as for every method."""
        if stage == "fit":
            self.take(self.trainer.datamodule.dataset)  # type: ignore[attr-defined]  # Lightning sets it
        super().setup(stage)

    def _signal(self, batch: SequenceBatch, clusters: Tensor) -> Tensor | None:
        if self.signal == "member":
            return super()._signal(batch, clusters)
        return self.members.mix(self.members.prefixes.numbers(batch.users, batch.key))
