"""Who gains from another signal: users between two intents, or users in the middle of one?

    python benchmarks/studies/indirec_margin.py RUN OTHER [--metric ndcg@10] [--groups 4]

RUN is a finished trial of InDiRec, whose centroids tell each test query's margin: the distance of
its state to the second nearest less that to the nearest. OTHER is a trial of the same seed on the
same data, say with one member of the cluster for a signal where RUN mixes centroids. The table has
both trials' metric in groups of queries of equal number by margin, the narrowest first, and the
mean of RUN less OTHER with the standard error over queries (one seed: training adds more).
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from stored_metric import find_metric

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from intentbench.models.indirec import InDiRec
from intentbench.nn.other_clusters import OtherClusters
from intentbench.results.store import CHECKPOINT, read_record
from intentbench.runner.recommend import load_trained

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


class Group(NamedTuple):
    """Queries of like margin.

    Attributes:
        queries: their number.
        margin: mean.
        ours: mean metric of RUN.
        theirs: mean metric of OTHER.
        difference: mean of the first less the second.
        error: its standard error over queries.
    """

    queries: int
    margin: float
    ours: float
    theirs: float
    difference: float
    error: float


@torch.no_grad()
def find_margins(model: InDiRec, data: SequenceDataModule) -> tuple[Ints, Ints, Floats]:
    """User, key and margin of each test query, (Q,) each, sorted by user and key.

    Raises:
        RequestError: the method has no two centroids.
    """
    centroids = model.members.kmeans.centroids
    if not model.members.kmeans.fitted or len(centroids) < 2:
        raise RequestError("has no two centroids; give a trial whose clusters have some")
    if isinstance(model.members, OtherClusters) and model.members.clustering == "frozen":
        raise RequestError("has the centroids of its first epoch; give one with those of its last")
    users, keys, margins = [], [], []
    for batch in data.test_dataloader():
        near = torch.cdist(model.encode(batch), centroids).topk(2, largest=False).values
        users.append(batch.users)
        keys.append(batch.key)
        margins.append(near[:, 1] - near[:, 0])
    user, key, margin = (torch.cat(parts).numpy() for parts in (users, keys, margins))
    order = np.lexsort((key, user))
    return user[order], key[order], margin[order]


def check_pair(run: Path, other: Path) -> None:
    """Refuse trials that differ in more than their method.

    Raises:
        RequestError: they have not finished, or differ in data or seed.
    """
    first, second = read_record(run), read_record(other)
    if first is None or second is None:
        raise RequestError("one of the two has not finished; give two finished trials")
    if (first.data_fingerprint, first.seed) != (second.data_fingerprint, second.seed):
        raise RequestError(f"{other}: other data, or another seed; give two trials alike in both")


def group_by_margin(margin: Floats, ours: Floats, theirs: Floats, groups: int) -> list[Group]:
    """Queries in groups of equal number by margin, the narrowest first."""
    found = []
    for rows in np.array_split(np.argsort(margin, kind="stable"), groups):
        gap = ours[rows] - theirs[rows]
        error = gap.std(ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.nan
        found.append(
            Group(
                len(rows),
                float(margin[rows].mean()),
                float(ours[rows].mean()),
                float(theirs[rows].mean()),
                float(gap.mean()),
                float(error),
            )
        )
    return found


def main() -> None:
    """Load both trials, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished trial of InDiRec")
    parser.add_argument("other", type=Path, help="folder of the trial that it is set against")
    parser.add_argument("--metric", default="ndcg@10")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    try:
        check_pair(options.run, options.other)
        model, data = load_trained(options.run / CHECKPOINT, options.data_root)
        if not isinstance(model, InDiRec):
            raise RequestError(f"a trial of {type(model).__name__}, not of InDiRec")
        users, keys, margin = find_margins(model, data)
        ours, theirs = (
            find_metric(run, options.metric, users, keys) for run in (options.run, options.other)
        )
    except RequestError as error:
        raise SystemExit(f"{options.run}: {error}") from None
    print(f"{options.metric} by margin between the nearest two centroids, narrowest first")
    print(f"{'queries':>8}{'margin':>9}{'run':>9}{'other':>9}{'difference':>12}{'error':>9}")
    for one in group_by_margin(margin, ours, theirs, options.groups):
        print(f"{one.queries:8}{one.margin:9.4f}{one.ours:9.4f}{one.theirs:9.4f}", end="")
        print(f"{one.difference:+12.4f}{one.error:9.4f}")


if __name__ == "__main__":
    main()
