"""Are items missed where intents are? Item accuracy by whether each intent was predicted right.

    python benchmarks/studies/intent_errors.py runs/trivago/intentrec/<trial> [--metric ndcg@10]

RUN is a finished trial of a method that predicts intents of the next event (intentrec, transact,
intent_sequence). An intent is right at a test query if its most likely label is the target's, or
one of the target's where it has several; queries without a label are left out. The table has, by
intent, the share that is right and the metric where it is and where it is not, with standard
errors over queries. A gap is no proof that errors pass on: a target that is easy is easy for both.
Set the gaps of a method that feeds predictions to items (V2, V3) beside those of one that does not
(V1).
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
from intentbench.models.events import EventRecommender
from intentbench.results.store import CHECKPOINT
from intentbench.runner.recommend import load_trained

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]


class Split(NamedTuple):
    """Queries by whether an intent was predicted right.

    Attributes:
        queries: those whose target has a label.
        share: of these, where the prediction is right.
        right: mean metric there, and its standard error.
        wrong: the same of the others.
    """

    queries: int
    share: float
    right: tuple[float, float]
    wrong: tuple[float, float]


@torch.no_grad()
def find_hits(model: EventRecommender, data: SequenceDataModule) -> tuple[Ints, dict[str, Ints]]:
    """Whether each intent is right at the test queries: (Q, 2) user and key, and by name (Q,).

    1: right, 0: wrong, -1: the target has no label.
    """
    known = model.known(torch.device("cpu"))
    fields = model.predicted(known)
    places, hits = [], []
    for batch in data.test_dataloader():
        shares = model.heads.distributions(model.reading(batch)[0].logits)
        target = known.table.target_rows(batch)
        columns = []
        for share, field in zip(shares, fields, strict=True):
            likeliest = share.argmax(-1)
            if field.kind == "single":
                truth = field.labels[target]
                hit = (likeliest == truth).long().where(truth >= 0, -1)
            else:
                truth = field.labels[batch.target]
                hit = truth.gather(1, likeliest[:, None])[:, 0].long()
                hit = hit.where(truth.any(1), -1)
            columns.append(hit)
        places.append(torch.stack([batch.users, batch.key], 1))
        hits.append(torch.stack(columns, 1))
    found = torch.cat(hits).numpy()
    names = [field.name for field in fields]
    return torch.cat(places).numpy(), {name: found[:, i] for i, name in enumerate(names)}


def split_metric(hit: Ints, metric: Floats) -> Split:
    """A metric (Q,) where an intent was right and where it was wrong; see `find_hits`."""
    right, wrong = metric[hit == 1], metric[hit == 0]
    queries = len(right) + len(wrong)
    return Split(queries, len(right) / max(queries, 1), _mean(right), _mean(wrong))


def _mean(values: Floats) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def study(run: Path, data_root: Path | None, metric: str) -> dict[str, Split]:
    """The splits of a trial by intent.

    Raises:
        RequestError: the method predicts no intents, or the ranks are of other queries.
    """
    model, data = load_trained(run / CHECKPOINT, data_root)
    if not isinstance(model, EventRecommender) or not model.predicts:
        raise RequestError("predicts no intents; nothing to measure")
    places, hits = find_hits(model, data)
    values = find_metric(run, metric, *places.T)
    return {name: split_metric(hit, values) for name, hit in hits.items()}


def main() -> None:
    """Load a trial, split, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished trial")
    parser.add_argument("--metric", default="ndcg@10")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    try:
        found = study(options.run, options.data_root, options.metric)
    except RequestError as error:
        raise SystemExit(f"{options.run}: {error}") from None
    print(f"{options.metric} where an intent was predicted right, and where wrong")
    print(f"{'intent':16}{'queries':>8}{'right':>8}{'where right':>18}{'where wrong':>18}")
    for name, one in found.items():
        print(f"{name:16}{one.queries:8}{one.share:8.4f}", end="")
        print("".join(f"{mean:9.4f} ± {error:.4f}" for mean, error in (one.right, one.wrong)))


if __name__ == "__main__":
    main()
