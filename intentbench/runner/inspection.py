"""What can be said of a method's intents in numbers, and as a table for other tools."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.tensorboard import SummaryWriter

from datamodules.sequence import SequenceDataModule
from intentbench.metrics.disentangle import (
    SAMPLE,
    distance_correlation,
    linear_cka,
    reconstruction_r2,
)
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.geometry import (
    effective_rank,
    lag_cosines,
    length_ratio,
    mean_pairwise_cosine,
)
from intentbench.metrics.intent import ari, nmi
from intentbench.metrics.mutual_information import mutual_information
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.models.intent import IntentRecommender
from intentbench.runner.intents import Floats, IntentTable

ATTRIBUTE_VALUES = 10
"""Most frequent values of an item attribute that are told apart."""


def intent_frame(table: IntentTable) -> pl.DataFrame:
    """Columns user, position, item (original ids), intent, vector, and interest if there is."""
    users = pl.Series(table.dataset.original_ids("users"))
    items = pl.Series(["", *table.dataset.original_ids("items")])
    columns: dict[str, Any] = {
        "user": users.gather(table.user),
        "position": table.position.astype(np.int32),
        "item": items.gather(table.item),
        "intent": table.intent.astype(np.int32),
        "vector": table.vectors,
    }
    if table.interests is not None:
        columns["interest"] = table.interests
    return pl.DataFrame(columns)


def measure_intents(
    table: IntentTable, model: IntentRecommender, data: SequenceDataModule
) -> dict[str, Any]:
    """What can be said of intents in numbers.

    Geometry, and where the method has interests too, how far apart the two are (IDCLRec, study
    5): over the last position of each user, but for the cosines over lags. With planted intents,
    the agreement of the categories with them, at every position.
    """
    last = table.last_of_users()
    sample = np.random.default_rng(0).permutation(len(last.user))[:SAMPLE]
    last = last.take(sample)
    share = np.bincount(table.intent) / len(table.intent)
    numbers: dict[str, Any] = {
        "positions": len(table.user),
        "users": len(np.unique(table.user)),
        "categories": "the method's" if table.own else "k-means on the vectors",
        "categories_used": int((share > 0).sum()),
        "largest_category": float(share.max()),
        "intent": _geometry(last.vectors, last.states, table.vectors, table),
    }
    if table.view is not None:
        numbers["view_same_intent"] = float((table.view == table.intent).mean())
        numbers["view_same_intent_by_chance"] = float(np.square(share).sum())
    if table.interests is not None and last.interests is not None:
        numbers["interest"] = _geometry(last.interests, last.states, table.interests, table)
        numbers["interest_and_intent"] = _relation(last.interests, last.vectors, last.states)
        numbers["ndcg@20"] = {
            "interest alone": _alone(table, table.interests, model, data),
            "intent alone": _alone(table, table.vectors, model, data),
        }
        numbers["attributes"] = _attributes(last)
    if (planted := table.planted()) is not None:
        numbers["planted"] = {"nmi": nmi(table.intent, planted), "ari": ari(table.intent, planted)}
    return numbers


def _geometry(
    last: Floats, states: Floats, everywhere: Floats, table: IntentTable
) -> dict[str, Any]:
    return {
        "length_ratio": length_ratio(last, states),
        "effective_rank": effective_rank(last),
        "mean_pairwise_cosine": mean_pairwise_cosine(last),
        "lag_cosines": lag_cosines(everywhere, table.user, table.position),
    }


def _relation(interests: Floats, intents: Floats, states: Floats) -> dict[str, float]:
    return {
        "linear_cka": linear_cka(interests, intents),
        "distance_correlation": distance_correlation(interests, intents),
        "mutual_information_bound": mutual_information(interests, intents),
        "r2_interest_to_intent": reconstruction_r2(interests, intents),
        "r2_interest_to_behaviour": reconstruction_r2(interests, states),
        "r2_intent_to_behaviour": reconstruction_r2(intents, states),
    }


@torch.no_grad()
def _alone(
    table: IntentTable, vectors: Floats, model: IntentRecommender, data: SequenceDataModule
) -> float:
    """NDCG@20 of the test targets where these vectors alone are the query."""
    span = int(table.position.max()) + 2
    keys = table.user * span + table.position  # rising
    ranks = []
    for batch in data.test_dataloader():
        wanted = (batch.users * span + batch.key - 1).numpy()
        row = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        known = keys[row] == wanted
        query = torch.from_numpy(vectors[row[known]])
        scores = query @ model.item_table().cpu().T
        scores[:, 0] = -torch.inf
        ranks.append(ranks_from_scores(scores, batch.target[known], batch.masked[known]))
    return float(compute_metric("ndcg@20", torch.cat(ranks).numpy()).mean())


def _attributes(last: IntentTable) -> dict[str, Any]:
    """Accuracy of telling an attribute of the last item, from interest and from intent.

    The most frequent values are told apart by logistic regression, fitted on half of the users
    and judged on the others, beside the share of the most frequent value.
    """
    found: dict[str, Any] = {}
    for name in last.dataset.meta.item_features:
        values, offsets = (tensor.numpy() for tensor in last.dataset.item_feature(name))
        has = offsets[last.item + 1] > offsets[last.item]
        if values.dtype.kind not in "iu" or has.sum() < 100:
            continue
        first = values[offsets[last.item[has]]]
        frequent = np.argsort(-np.bincount(first), kind="stable")[:ATTRIBUTE_VALUES]
        rows = np.flatnonzero(has)[np.isin(first, frequent)]
        label = values[offsets[last.item[rows]]]
        if len(np.unique(label[::2])) < 2:
            continue
        found[name] = {"majority": float(np.bincount(label[1::2]).max() / len(label[1::2]))}
        for kind, vectors in (("interest", last.interests), ("intent", last.vectors)):
            if vectors is not None:
                model = LogisticRegression(max_iter=500).fit(vectors[rows][::2], label[::2])
                found[name][kind] = float(model.score(vectors[rows][1::2], label[1::2]))
    return found


def write_projector(folder: Path, table: IntentTable) -> None:
    """Write intents, and interests where there are any, for TensorBoard's projector.

    Args:
        folder: a log directory; `tensorboard --logdir` shows it.
        table: positions, one dot each.
    """
    items = ["", *table.dataset.original_ids("items")]
    labels = [
        [str(user), str(position), items[item], str(intent)]
        for user, position, item, intent in zip(
            table.user.tolist(),
            table.position.tolist(),
            table.item.tolist(),
            table.intent.tolist(),
            strict=True,
        )
    ]
    header = ["user", "position", "item", "intent"]
    with SummaryWriter(str(folder)) as writer:
        for tag, vectors in (("intents", table.vectors), ("interests", table.interests)):
            if vectors is not None:
                writer.add_embedding(vectors, labels, tag=tag, metadata_header=header)
