"""The intents of a trained method, collected at the events of users."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.loader import Gatherer
from datamodules.prepared import PreparedDataset
from datamodules.rows import TrainingRows, training_rows
from datamodules.types import SequenceBatch
from intentbench.models.intent import IntentRecommender
from intentbench.nn.kmeans import KMeans
from intentbench.nn.prefixes import target_keys

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

ROWS = 512
"""Users' windows encoded at a time."""

CATEGORIES = 8
"""Categories found by k-means where neither the method nor the dataset says how many."""


@dataclass(frozen=True)
class IntentTable:
    """Intents at T positions, in the order of (user, position).

    Attributes:
        dataset: what the numbers refer to.
        user: (T,) row of the user.
        position: (T,) of the event among the user's events.
        item: (T,) the item of that event, the last that the state has seen.
        vectors: (T, D) intents.
        states: (T, D) behaviour.
        intent: (T,) category; found afterwards by k-means where the method has none.
        own: whether the categories are the method's own.
        interests: (T, D), None where the method has none.
        view: (T,) category of the generated view, None where none is generated.
    """

    dataset: PreparedDataset
    user: Ints
    position: Ints
    item: Ints
    vectors: Floats
    states: Floats
    intent: Ints
    own: bool
    interests: Floats | None = None
    view: Ints | None = None

    def take(self, rows: NDArray[Any]) -> "IntentTable":
        """The table of these rows."""
        columns = ("user", "position", "item", "vectors", "states", "intent", "interests", "view")
        taken: dict[str, Any] = {
            name: values[rows]
            for name in columns
            if isinstance(values := getattr(self, name), np.ndarray)
        }
        return replace(self, **taken)

    def last_of_users(self) -> "IntentTable":
        """One row a user: the last position before the held-out test item, or the last at all."""
        return self.take(np.flatnonzero(self.position == last_positions(self.dataset)[self.user]))

    def planted(self) -> Ints | None:
        """(T,) the planted intent of each event; None where the data has none."""
        truth = self.dataset.features.get("truth.intent")
        if truth is None:
            return None
        found: Ints = truth.numpy()[self.dataset.offsets.numpy()[self.user] + self.position]
        return found.astype(np.int64)


def last_positions(dataset: PreparedDataset) -> Ints:
    """(N,) position of each user's event before the held-out test item, or the last at all."""
    counts: Ints = np.diff(dataset.offsets.numpy())
    return np.maximum(counts - 2, 0)


def spread_users(n_users: int, count: int | None) -> Ints:
    """At most `count` rows of users, spread evenly over all; all of them when None."""
    if count is None:
        return np.arange(n_users)
    return np.unique(np.linspace(0, n_users - 1, count).astype(np.int64))


def position_batches(
    dataset: PreparedDataset,
    window: int,
    users: Ints,
    pad_to_window: bool = False,
    last: bool = False,
) -> Iterator[SequenceBatch]:
    """Every event of these users once, as a position of a batch of layout "all".

    `labels` are the items at the positions themselves, `key` of a row is its last position.

    Args:
        dataset: prepared.
        window: inputs of a row at most.
        users: rows of users.
        pad_to_window: whether rows are as wide as the window.
        last: only the event of each user that `last_positions` names, in a row of its own. The
            others cost much where users have more events than the window: a row each.
    """
    offsets = dataset.offsets.numpy()
    first = offsets[:-1][users]
    if last:
        stop = first + last_positions(dataset)[users] + 1
        rows = TrainingRows(users, np.maximum(stop - window, first), stop, stop - 1, shift=0)
    else:
        rows = training_rows(first, np.diff(offsets)[users] + 1, "all", window, "every")
        rows = replace(rows, users=users[rows.users], shift=0)
    gatherer = Gatherer(dataset.items.long(), offsets, window, pad_to_window, False, False)
    longest = np.argsort(rows.start - rows.stop, kind="stable")
    for begin in range(0, len(longest), ROWS):
        yield gatherer.training(rows, longest[begin : begin + ROWS])


@torch.no_grad()
def collect_intents(
    model: IntentRecommender,
    dataset: PreparedDataset,
    window: int,
    users: Ints,
    last: bool = False,
) -> IntentTable:
    """The intents of a method at every event of some users, or at the last one of each.

    Args:
        model: in evaluation mode.
        dataset: prepared.
        window: inputs of a row at most.
        users: rows of users.
        last: only at the events that `last_positions` names.
    """
    parts: list[dict[str, Tensor | None]] = []
    for batch in position_batches(dataset, window, users, model.CARD.fixed_window, last):
        found = model.intents(batch.to(model.device))
        parts.append(
            {
                "user": batch.users[batch.rows],
                "position": target_keys(batch),
                "item": batch.labels,
                "vectors": found.vectors,
                "states": found.states,
                "intent": found.assignment,
                "interests": found.interests,
                "view": found.view_assignment,
            }
        )
    joined = {
        name: torch.cat([part[name] for part in parts])  # type: ignore[misc]  # all or none
        for name, first in parts[0].items()
        if first is not None
    }
    own = "intent" in joined
    if not own:
        joined["intent"] = _categories(joined["vectors"].float(), dataset)
    columns: dict[str, Any] = {name: column.cpu().numpy() for name, column in joined.items()}
    order = np.lexsort([columns["position"], columns["user"]])
    return IntentTable(dataset, **{n: c[order] for n, c in columns.items()}, own=own)


def _categories(vectors: Tensor, dataset: PreparedDataset) -> Tensor:
    planted = dataset.features.get("truth.item_intent")
    count = CATEGORIES if planted is None else int(planted.max()) + 1
    return KMeans(count, vectors.shape[1]).fit(vectors)


def check_intents(model: object, where: str) -> IntentRecommender:
    """The model, if it has intents.

    Raises:
        RequestError: it has none.
    """
    if not isinstance(model, IntentRecommender):
        raise RequestError(f"{where}: {type(model).__name__} models no intents; nothing to inspect")
    return model
