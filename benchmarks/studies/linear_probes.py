"""What a linear model can tell of users from vectors: the labels, and probes beside controls.

Shared by the scripts of this folder.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datamodules.event_arrays import EventArrays, ItemValues
from datamodules.prepared import TEST, PreparedDataset
from datamodules.rows import evaluation_queries

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

CATEGORIES = ("category", "category_code", "genre", "attribute", "brand", "city")
CLASSES, FEWEST, FOLDS, SEED = 20, 10, 5, 0
PENALTIES = (0.001, 0.01, 0.1, 1.0)


def find_labels(dataset: PreparedDataset, users: Ints, keys: Ints) -> dict[str, Ints]:
    """What may be told of each query, by name; -1 where it is not known.

    Args:
        dataset: prepared.
        users: (Q,).
        keys: (Q,) position of the target among the user's events.
    """
    offsets, events = dataset.offsets.numpy(), EventArrays(dataset, "probes")
    queries = evaluation_queries(offsets, dataset.split.numpy(), TEST, dataset.meta.history)
    begin, target = offsets[users], offsets[users] + keys
    stop = queries.stop[np.searchsorted(queries.target, target)]
    rows = np.repeat(np.arange(len(users)), stop - begin)
    known = np.arange(len(rows)) + (begin - np.cumsum(stop - begin) + stop - begin)[rows]
    found: dict[str, Ints] = {}
    for name in CATEGORIES:
        if name in dataset.meta.item_features:
            values = events.feature(name)
            had = (events.items[known], rows, len(users))
            found[f"user's {name}"] = most_frequent(values.distinct(), *had)
            found[f"next {name}"] = values.first()[events.items[target]]
    if "price" in dataset.meta.item_features:
        prices = events.numbers("price")[known]
        found["user's price"] = mean_quintile(prices, rows, len(users))
    truth = {n[6:]: t.numpy() for n, t in dataset.features.items() if n.startswith("truth.")}
    if "intent" in truth:
        found["last planted"] = np.where(stop > begin, truth["intent"][stop - 1], -1)
        found["next planted"] = truth["intent"][target]
    if "user_type" in truth:
        found["user's type"] = truth["user_type"][users]
    return found


def most_frequent(values: ItemValues, items: Ints, rows: Ints, count: int) -> Ints:
    """(count,) the most frequent value among the items of each row; -1 where there is none.

    Args:
        values: of the items; of equally frequent ones the first counts.
        items: (P,).
        rows: (P,) row of each item.
        count: number of rows.
    """
    event, code = values.of_events(items)
    stride = max(len(values.names), 1)
    pairs, times = np.unique(rows[event] * stride + code, return_counts=True)
    row, code = np.divmod(pairs, stride)
    order = np.lexsort([-code, times, row])  # the last of each row has most
    found = np.full(count, -1)
    found[row[order]] = code[order]
    return found


def mean_quintile(prices: NDArray[np.float64], rows: Ints, count: int) -> Ints:
    """(count,) in which fifth of the rows the mean price of each falls; -1 where it has none."""
    real = ~np.isnan(prices)
    sums = np.bincount(rows[real], prices[real], count)
    number = np.bincount(rows[real], minlength=count)
    mean = sums / np.maximum(number, 1)
    if not real.any():
        return np.full(count, -1)
    edges = np.quantile(mean[number > 0], np.arange(1, 5) / 5)
    return np.where(number > 0, np.searchsorted(edges, mean), -1)


def keep_frequent(labels: Ints) -> Ints:
    """The labels, -1 but for the `CLASSES` most frequent with at least `FEWEST` rows each."""
    times = np.bincount(labels[labels >= 0])
    kept = np.argsort(-times, kind="stable")[:CLASSES]
    return np.where(np.isin(labels, kept[times[kept] >= FEWEST]), labels, -1)


def probe(vectors: Floats, labels: Ints, users: Ints) -> NDArray[np.float64]:
    """Whether logistic regression tells each label, (Q,), from rows of other users.

    Args:
        vectors: (Q, width), made of mean 0 and variance 1 over the rows that are fitted.
        labels: (Q,).
        users: (Q,); all rows of a user are in the same fold.
    """
    names, user = np.unique(users, return_inverse=True)
    fold = np.random.default_rng(SEED).permutation(len(names))[user] % FOLDS
    right = np.zeros(len(labels))

    def fit(rows: NDArray[np.bool_], penalty: float, judged: NDArray[np.bool_]) -> Any:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))
        return model.fit(vectors[rows], labels[rows]).predict(vectors[judged]) == labels[judged]

    for number in range(FOLDS):
        held, choice = fold == number, fold == (number + 1) % FOLDS
        best = max(PENALTIES, key=lambda c: (fit(~held & ~choice, c, choice).mean(), -c))
        right[held] = fit(~held, best, held)
    return right


def compare(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[float]:
    """Mean of first - second and its standard error."""
    gap = first - second
    return [float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap)))]


def run_probes(
    sources: Mapping[str, Floats], labels: Mapping[str, Ints], users: Ints
) -> dict[str, Any]:
    """Accuracies by label and source, and their differences from the encoder's state.

    Args:
        sources: vectors (Q, width) by name, with "intents" and "encoder state".
        labels: (Q,) by name, -1 where not known.
        users: (Q,).
    """
    rng = np.random.default_rng(SEED)
    width = sources["intents"].shape[1]
    controls = {
        "noise": rng.standard_normal((len(users), width), np.float32),
        "constant": np.ones((len(users), 1), np.float32),
    }
    found: dict[str, Any] = {}
    for name, given in labels.items():
        label = keep_frequent(given)
        rows = np.flatnonzero(label >= 0)
        label, who = label[rows], users[rows]
        if len(np.unique(label)) < 2:
            continue
        right = {n: probe(v[rows], label, who) for n, v in {**sources, **controls}.items()}
        mixed = rng.permutation(label)
        base = right["encoder state"]
        gaps = {n: compare(r, base) for n, r in right.items() if n != "encoder state"}
        right["shuffled labels"] = probe(sources["intents"][rows], mixed, who)
        found[name] = {
            "queries": len(rows),
            "classes": len(np.unique(label)),
            "accuracy": {source: float(r.mean()) for source, r in right.items()},
            "difference": gaps,
        }
    return found
