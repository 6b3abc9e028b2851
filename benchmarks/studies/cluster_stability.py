"""How do InDiRec's clusters come to rest? Sizes, and agreement with the epoch before.

    python benchmarks/studies/cluster_stability.py RUN [RUN …]

RUN is the folder of a trial of InDiRec, or of a method with the same kind of clusters. It is
trained once more in a folder that is thrown away, and after each epoch the clusters of all training
prefixes are set against those of the epoch before: adjusted Rand index (1 the same clusters, 0 as
much as chance), and normalised mutual information. Beside them the share of clusters without a
member, the share of prefixes in the largest, the entropy of sizes over log K (1 all alike), and η²,
the share of the variance of a user's activity (log of the number of events) that the cluster of a
prefix tells. Printed as CSV.
"""

import argparse
import csv
import logging
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from datamodules.errors import RequestError
from intentbench.nn.cluster_members import ClusterMembers
from intentbench.results.store import CONFIG
from intentbench.runner.config import read_config
from intentbench.runner.fit import fit_trial

COLUMNS = ("rand_index", "mutual_information", "empty", "largest", "entropy", "eta_squared")


class ClusterWatch(Callback):
    """Measures the clusters of every epoch.

    Attributes:
        rows: the numbers of each epoch by column; NaN what the first has no epoch before for.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._last: NDArray[np.int64] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before the first epoch where there is nothing to watch.

        Raises:
            RequestError: the method has no clusters of prefixes.
        """
        if not isinstance(getattr(pl_module, "members", None), ClusterMembers):
            raise RequestError(f"{type(pl_module).__name__} has no clusters of prefixes")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        members: Any = pl_module.members
        labels = members.labels.cpu().numpy()
        prefixes = members.prefixes
        activity = (prefixes.first.diff() + 1)[prefixes.users].cpu().numpy()
        row = describe_clusters(labels, np.log(activity), len(members.kmeans.centroids))
        row["rand_index"] = row["mutual_information"] = float("nan")
        if self._last is not None:
            row["rand_index"] = float(adjusted_rand_score(self._last, labels))
            row["mutual_information"] = float(normalized_mutual_info_score(self._last, labels))
        self.rows.append(row)
        self._last = labels


def describe_clusters(
    labels: NDArray[np.int64], values: NDArray[np.floating], clusters: int
) -> dict[str, float]:
    """Sizes, and η² of a value.

    Args:
        labels: (S,) clusters from 0.
        values: (S,) of the members.
        clusters: K; more where labels say so.
    """
    counts = np.bincount(labels, minlength=clusters)
    shares = counts[counts > 0] / len(labels)
    means = np.bincount(labels, values, minlength=clusters) / np.maximum(counts, 1)
    between = float((counts * (means - values.mean()) ** 2).sum())
    total = float(((values - values.mean()) ** 2).sum())
    return {
        "empty": float((counts == 0).mean()),
        "largest": float(shares.max()),
        "entropy": float(-(shares * np.log(shares)).sum() / np.log(max(len(counts), 2))),
        "eta_squared": between / total if total else 0.0,
    }


def watch_clusters(run: Path) -> list[dict[str, float]]:
    """Train a trial once more; the numbers of each epoch.

    Raises:
        RequestError: it is no trial of a method with clusters of prefixes.
    """
    if not (run / CONFIG).is_file():
        raise RequestError(f"no trial (no {CONFIG})")
    watch = ClusterWatch()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "row" / "trial"
        folder.mkdir(parents=True)
        shutil.copy(run / CONFIG, folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Checkpoint directory .* not empty")
            fit_trial(folder, callbacks=[watch])
    return watch.rows


def main() -> None:
    """Train each, print a line an epoch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folder of a trial of InDiRec")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["row", "seed", "epoch", *COLUMNS])
    for run in options.runs:
        try:
            rows = watch_clusters(run)
        except RequestError as error:
            raise SystemExit(f"{run}: {error}") from None
        seed = read_config(run)["seed_everything"]
        for epoch, row in enumerate(rows):
            figures = ["" if np.isnan(row[name]) else f"{row[name]:.4f}" for name in COLUMNS]
            table.writerow([run.parent.name, seed, epoch, *figures])


if __name__ == "__main__":
    main()
