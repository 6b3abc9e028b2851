"""Does a method on the graph tell its intents apart, and does it use all of them?

    python benchmarks/studies/prototype_use.py RUN [RUN …]

RUN is the folder of a finished trial of IRLLRec or DCCF. Each of their nodes is a mixture of K
prototypes, softmax_K(E C), in every layer of the graph. Printed as CSV, a line for each side and
layer: the mean entropy of a node's mixture over log K (1 all prototypes alike, 0 one alone); the
entropy of the mean mixture over log K (1 all are used as much); how many prototypes are the largest
of some node, and the share of nodes of the most frequent one; and how far the mixtures differ, the
mean of |p - p̄|₁ / 2 over nodes (0 where all nodes have the same one, at most 1).
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.errors import RequestError
from intentbench.models.dccf import DCCF
from intentbench.models.irllrec import IRLLRec
from intentbench.models.takes import TakesDataset
from intentbench.nn.graph_intents import Prototypes, shares
from intentbench.results.store import CHECKPOINT, read_record
from intentbench.runner.recommend import load_trained

COLUMNS = ("prototypes", "entropy", "entropy_of_mean", "used", "largest", "distance_to_mean")


def describe_mixtures(mixtures: Tensor) -> dict[str, float]:
    """What is printed of mixtures (rows, K) that sum to 1."""
    mean, count = mixtures.mean(0), mixtures.shape[1]
    whole = torch.tensor(max(count, 2)).log()
    first = torch.bincount(mixtures.argmax(1), minlength=count)
    return {
        "prototypes": count,
        "entropy": float(torch.special.entr(mixtures).sum(1).mean() / whole),
        "entropy_of_mean": float(torch.special.entr(mean).sum() / whole),
        "used": int((first > 0).sum()),
        "largest": float(first.max() / len(mixtures)),
        "distance_to_mean": float((mixtures - mean).abs().sum(1).mean() / 2),
    }


@torch.no_grad()
def find_mixtures(run: Path, data_root: Path | None) -> Iterator[tuple[str, int, Tensor]]:
    """Side, layer and mixtures (rows, K) of each side in each layer, in the order of layers.

    Raises:
        RequestError: its method has no mixtures of prototypes.
    """
    model, data = load_trained(run / CHECKPOINT, data_root)
    if not isinstance(model, IRLLRec | DCCF):
        raise RequestError(f"{type(model).__name__} has no mixtures of prototypes in layers")
    if isinstance(model, TakesDataset):
        model.take(data.dataset)
    model.prepare(data.training())
    model.eval()
    seen: list[tuple[Prototypes, Tensor]] = []

    def keep(module: nn.Module, given: tuple[Any, ...], made: Tensor) -> None:
        seen.append((module, given[0]))  # type: ignore[arg-type]  # hooked to these alone

    for module in model.modules():
        if isinstance(module, Prototypes):
            module.register_forward_hook(keep)
    if isinstance(model, DCCF):
        model.views(model.nodes())
    elif model.aligns and model.graph_intents:
        model(torch.arange(1))
    if not seen:
        raise RequestError("this row makes no mixtures of prototypes")
    for layer, (prototypes, vectors) in enumerate(seen):
        yield "users", layer, shares(vectors[: model.n_users], prototypes.users)
        yield "items", layer, shares(vectors[model.n_users :], prototypes.items)


def main() -> None:
    """Load each trial, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folder of a finished trial")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["row", "seed", "side", "layer", *COLUMNS])
    for run in options.runs:
        try:
            found = list(find_mixtures(run, options.data_root))
        except RequestError as error:
            raise SystemExit(f"{run}: {error}") from None
        record = read_record(run)
        for side, layer, mixtures in found:
            numbers = describe_mixtures(mixtures)
            figures = [f"{numbers[name]:.4g}" for name in COLUMNS]
            table.writerow([run.parent.name, record.seed if record else "", side, layer, *figures])


if __name__ == "__main__":
    main()
