"""What do IntentRec's predictions say of users, and do they steer what it recommends?

    python benchmarks/studies/intentrec_use.py runs/ml-100k/intentrec/<trial> [--users 4000]
        [--data-root DIR] [--out use.json]

At the test queries of a trained IntentRec (arXiv:2408.05353) are measured

- agreement: how often the most likely label of an intent is one of the item ranked first, beside
  the same with the items ranked first for other queries; for intents that items decide, as genres;
- attention (Fig. 7): the mean weight of each intent, for how many queries it is the primary one,
  and the entropy of the weights over log M, for all and for quarters of the queries by the length
  of their history;
- clusters: k-means (K = 10) of Z: silhouette, NMI with what was predicted and with what is known
  of users and items, and the labels that each cluster has most more often than all queries have;
- steering: one head is told a label at the last input, in place of what it predicts. How much of
  the 20 items ranked first has that label: as predicted, told that label ("told"), and told another
  one of the five most frequent ("told others"), which is the control.

± is the standard error over queries. V0 and V1, and bridges without a mixture, have no Z: of them
the agreement alone is measured, which is what V1 and V3 are compared in.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from linear_probes import SEED, Floats, Ints, compare, find_labels
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from torch import Tensor
from torch.nn import functional

from datamodules.errors import RequestError
from datamodules.events import EventTable, IntentLabels
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, EvaluationBatch
from intentbench.metrics.intent import nmi
from intentbench.models.intentrec import IntentRec
from intentbench.nn.intent_heads import IntentMixture
from intentbench.results.store import CHECKPOINT
from intentbench.runner.intents import spread_users
from intentbench.runner.recommend import load_trained

CLUSTERS, LISTED, STEERED, SHOWN, FEWEST = 10, 20, 5, 3, 10

Bools = NDArray[np.bool_]


class Reading(NamedTuple):
    """What stands at the Q test queries, in the order of the data module.

    Attributes:
        users: (Q,).
        keys: (Q,) position of the target among the user's events.
        lengths: (Q,) inputs before the target.
        predicted: (Q,) the most likely label of each intent by name.
        first: (Q,) the item ranked first.
        mixture: (Q, D) Z; None where there is none.
        attention: (Q, M); None where there is none.
    """

    users: Ints
    keys: Ints
    lengths: Ints
    predicted: dict[str, Ints]
    first: Ints
    mixture: Floats | None
    attention: Floats | None


@torch.no_grad()
def read(model: IntentRec, data: SequenceDataModule) -> Reading:
    """Predictions, attention and first items at the test queries."""
    parts: list[dict[str, Tensor]] = []
    for batch in data.test_dataloader():
        reading, _ = model.reading(batch)
        part = {
            "users": batch.users,
            "keys": batch.key,
            "lengths": (batch.history != PAD).sum(1),
            "first": model.recommend(batch, 1)[0][:, 0],
        }
        shares = model.heads.distributions(reading.logits) if model.predicts else []
        for name, share in zip(model.predicts, shares, strict=True):
            part[f"predicted {name}"] = share.argmax(-1)
        if reading.mixture is not None and reading.attention is not None:
            part |= {"mixture": reading.mixture, "attention": reading.attention}
        parts.append(part)
    found = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    predicted = {name: found[f"predicted {name}"] for name in model.predicts}
    known = (found[name] for name in ("users", "keys", "lengths"))
    return Reading(*known, predicted, found["first"], found.get("mixture"), found.get("attention"))


def item_labels(field: IntentLabels, table: EventTable, n_items: int) -> Bools | None:
    """(V + 1, d) the labels of each item; None where it is not items that decide them."""
    if field.kind == "multi":
        labels: Bools = field.labels.numpy()
        return labels
    count = len(table.items)
    given = field.labels[:count].numpy()
    real = given >= 0
    found = np.zeros((n_items + 1, len(field.names)), bool)
    found[table.items.numpy()[real], given[real]] = True
    return found if found.sum(1).max(initial=0) <= 1 else None


def measure_agreement(predicted: Ints, first: Ints, labels: Bools) -> dict[str, Any]:
    """How often the first items (Q,) have the predicted labels (Q,), and by chance."""
    held = labels[first]  # (Q, d)
    own = held[np.arange(len(first)), predicted]
    chance = held.mean(0)[predicted]  # the first item of any query, in place of one's own
    return {
        "share": float(own.mean()),
        "of other queries": float(chance.mean()),
        "difference": compare(own.astype(float), chance),
    }


def measure_attention(attention: Floats, lengths: Ints, names: tuple[str, ...]) -> dict[str, Any]:
    """Weights of intents (Q, M), for all queries and for quarters by length of history."""
    groups = {"all": np.arange(len(lengths))}
    order = np.argsort(lengths, kind="stable")
    for number, rows in enumerate(np.array_split(order, 4)):
        groups[f"quarter {number + 1} ({lengths[rows].min()}-{lengths[rows].max()})"] = rows
    return {name: _weigh(attention[rows], names) for name, rows in groups.items()}


def _weigh(weights: Floats, names: tuple[str, ...]) -> dict[str, Any]:
    primary = np.bincount(weights.argmax(1), minlength=len(names)) / len(weights)
    entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(1) / max(np.log(len(names)), 1e-9)
    return {
        "mean weight": dict(zip(names, weights.mean(0).tolist(), strict=True)),
        "primary": dict(zip(names, primary.tolist(), strict=True)),
        "entropy": float(entropy.mean()),
    }


def measure_clusters(
    mixture: Floats, labels: Mapping[str, Ints], names: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """K-means of Z (Q, D) beside labels (Q,), -1 where not known; `names` of those to be listed."""
    means = KMeans(CLUSTERS, n_init=10, random_state=SEED)
    cluster: Ints = means.fit_predict(mixture.astype(np.float64))
    found: dict[str, Any] = {
        "silhouette": float(
            silhouette_score(
                mixture, cluster, sample_size=min(4000, len(mixture)), random_state=SEED
            )
        ),
        "nmi": {n: nmi(cluster[y >= 0], y[y >= 0]) for n, y in labels.items() if (y >= 0).any()},
        "clusters": [],
    }
    for number in range(CLUSTERS):
        inside = cluster == number
        lifts = []
        for name, texts in names.items():
            for label, times in enumerate(np.bincount(labels[name][inside], minlength=len(texts))):
                if times >= FEWEST:
                    share, everywhere = times / inside.sum(), (labels[name] == label).mean()
                    lifts.append((share / everywhere, f"{name} {texts[label]}", share))
        typical = [[text, share, lift] for lift, text, share in sorted(lifts, reverse=True)]
        found["clusters"].append({"queries": int(inside.sum()), "typical": typical[:SHOWN]})
    return found


@contextmanager
def told(mixture: IntentMixture, batch: EvaluationBatch, number: int, label: int) -> Iterator[None]:
    """Within: intent `number` is certain of `label` at the last input of each row of a batch."""
    lengths = iter([batch.lengths[start:stop] for start, stop, _ in batch.groups])

    def tell(_: torch.nn.Module, given: tuple[list[Tensor]]) -> tuple[list[Tensor]]:
        shares = list(given[0])
        share = shares[number].clone()
        last = (next(lengths) - 1).clamp(min=0)
        certain = functional.one_hot(torch.tensor(label), share.shape[-1]).to(share.dtype)
        share[torch.arange(len(share)), last] = certain
        shares[number] = share
        return (shares,)

    handle = mixture.register_forward_pre_hook(tell)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def measure_steering(
    model: IntentRec,
    mixture: IntentMixture,
    data: SequenceDataModule,
    number: int,
    labels: Bools,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Shares of the first items that have a label, as predicted and told, by label.

    Args:
        model: in evaluation mode.
        mixture: of the model.
        data: whose test queries are read.
        number: which of the predicted intents is told.
        labels: (V + 1, d) of items.
        names: d names.
    """
    times = labels.sum(0)
    steered = [n for n in np.argsort(-times, kind="stable")[:STEERED].tolist() if times[n]]
    shares: dict[int | None, list[Floats]] = {which: [] for which in (None, *steered)}
    for batch in data.test_dataloader():
        for which, found in shares.items():
            telling = nullcontext() if which is None else told(mixture, batch, number, which)
            with telling:
                listed, _ = model.recommend(batch, LISTED)
            found.append(labels[listed.numpy()][:, :, steered].mean(1))
    share = {which: np.concatenate(found) for which, found in shares.items()}  # (Q, steered)
    result = {}
    for column, label in enumerate(steered):
        others = [share[other][:, column] for other in steered if other != label]
        control = np.mean(others, 0) if others else share[None][:, column]
        own = share[label][:, column]
        result[names[label]] = {
            "as predicted": float(share[None][:, column].mean()),
            "told": float(own.mean()),
            "told others": float(control.mean()),
            "difference": compare(own, control),
        }
    return result


def study(
    model: IntentRec, data: SequenceDataModule, clustered: int | None = None
) -> dict[str, Any]:
    """Everything of the module's docstring.

    Args:
        model: in evaluation mode; it has taken the dataset.
        data: whose test queries are read.
        clustered: queries whose Z are clustered, spread evenly; None: all.

    Raises:
        RequestError: the method predicts no intents.
    """
    if not model.predicts:
        raise RequestError("a method that predicts no intents (V0); nothing to measure")
    reading = read(model, data)
    known = model.known(torch.device("cpu"))
    fields = {field.name: field for field in model.predicted(known)}
    of_items = {n: item_labels(f, known.table, data.n_items) for n, f in fields.items()}
    found: dict[str, Any] = {"queries": len(reading.users), "agreement": {}, "steering": {}}
    for name, labels in of_items.items():
        if labels is not None:
            own = measure_agreement(reading.predicted[name], reading.first, labels)
            found["agreement"][name] = own
    if model.mixture is None or reading.mixture is None or reading.attention is None:
        return found
    found["attention"] = measure_attention(reading.attention, reading.lengths, model.predicts)
    rows = spread_users(len(reading.users), clustered)
    truth = find_labels(data.dataset, reading.users, reading.keys)
    told_apart = {f"predicted {n}": y[rows] for n, y in reading.predicted.items()}
    texts = {f"predicted {n}": field.names for n, field in fields.items()}
    every = {**told_apart, **{n: y[rows] for n, y in truth.items()}}
    found["clusters"] = measure_clusters(reading.mixture[rows], every, texts)
    for number, (name, labels) in enumerate(of_items.items()):
        if labels is not None:
            steering = measure_steering(
                model, model.mixture, data, number, labels, fields[name].names
            )
            found["steering"][name] = steering
    return found


def print_study(found: Mapping[str, Any]) -> None:
    """The tables of the docstring, one a measure."""
    for name, cell in found["agreement"].items():
        gap, error = cell["difference"]
        print(
            f"first item has the predicted {name}: {cell['share']:.4f}, of other queries ", end=""
        )
        print(f"{cell['of other queries']:.4f} ({gap:+.4f} ± {error:.4f})")
    for group, cell in found.get("attention", {}).items():
        print(f"\nattention, {group}: entropy {cell['entropy']:.4f}")
        for name, weight in cell["mean weight"].items():
            print(f"  {name:12} weight {weight:.4f}  primary {cell['primary'][name]:.4f}")
    if "clusters" in found:
        print(f"\nclusters of Z: silhouette {found['clusters']['silhouette']:.4f}; NMI with")
        for name, value in found["clusters"]["nmi"].items():
            print(f"  {name:24}{value:8.4f}")
        for number, cell in enumerate(found["clusters"]["clusters"]):
            typical = ", ".join(f"{t} {s:.2f} (x {lift:.1f})" for t, s, lift in cell["typical"])
            print(f"  {number}: {cell['queries']} queries: {typical}")
    for name, labels in found["steering"].items():
        print(f"\nsteering by {name}: share of the first {LISTED}, as predicted, told, told others")
        for label, cell in labels.items():
            gap, error = cell["difference"]
            print(f"  {label:20}{cell['as predicted']:8.4f}{cell['told']:8.4f}", end="")
            print(f"{cell['told others']:8.4f} ({gap:+.4f} ± {error:.4f})")


def main() -> None:
    """Load a trial, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished trial of IntentRec")
    parser.add_argument("--users", type=int, default=4000, help="queries clustered, spread evenly")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file of all numbers")
    options = parser.parse_args()
    try:
        model, data = load_trained(options.run / CHECKPOINT, options.data_root)
        if not isinstance(model, IntentRec):
            raise RequestError(f"a trial of {type(model).__name__}, not of IntentRec")
        found = study(model, data, options.users)
    except RequestError as error:
        raise SystemExit(f"{options.run}: {error}") from None
    print(f"{data.dataset.meta.name}: {found['queries']} queries")
    print_study(found)
    if options.out:
        options.out.write_text(json.dumps({"run": str(options.run), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
