"""A dataset's events as flat NumPy arrays, for rules: looking back, comparing, counting.

There is no loop over users or events.
"""

from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.noise import without_noise
from datamodules.prepared import TRAIN, PreparedDataset

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class ItemValues(NamedTuple):
    """A multi-valued item feature; item 0 is padding and has none.

    Attributes:
        codes: item v has `codes[offsets[v]:offsets[v + 1]]`, each 0..K-1.
        offsets: (V + 2,).
        names: the K names.
    """

    codes: Ints
    offsets: Ints
    names: tuple[str, ...]

    @property
    def items(self) -> Ints:
        """The item that each code belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def first(self) -> Ints:
        """(V + 1,) the first value of each item, in the order of the source; -1 if it has none."""
        begin = self.offsets[:-1]
        return np.where(self.offsets[1:] > begin, np.append(self.codes, -1)[begin], -1)

    def distinct(self) -> "ItemValues":
        """The same with the values of each item sorted and none twice."""
        width = max(len(self.names), 1)
        items, codes = np.divmod(np.unique(self.items * width + self.codes), width)
        counts = np.bincount(items, minlength=len(self.offsets) - 1)
        return ItemValues(codes, np.concatenate([[0], np.cumsum(counts)]), self.names)

    def of_events(self, items: Ints) -> tuple[Ints, Ints]:
        """The values of each event's item, event by event.

        Args:
            items: (E,) the item of each event.

        Returns:
            The number of the event, 0..E-1, and the value, for each value of each event.
        """
        begin = self.offsets[items]
        counts = self.offsets[items + 1] - begin
        events = np.repeat(np.arange(len(items)), counts)
        within = np.arange(len(events)) - np.repeat(np.cumsum(counts) - counts, counts)
        return events, self.codes[begin[events] + within]


class EventArrays:
    """A dataset's events as arrays, and the refusal of what a rule asks for in vain.

    Attributes:
        items: (E,) item of each event.
        training: (E,) whether it is a training event.
        users: (E,) user of each event, rising.
        start: (E,) whether it is its user's first.
        clean: the events without noise, where rules count; itself where there is none.
    """

    def __init__(self, dataset: PreparedDataset, rule: str) -> None:
        self.dataset = dataset
        self.rule = rule
        self.items: Ints = dataset.items.numpy().astype(np.int64)
        self.training: Bools = dataset.split.numpy() == TRAIN
        counts = dataset.offsets.diff().numpy()
        self.users: Ints = np.repeat(np.arange(len(counts)), counts)
        self.start: Bools = np.diff(self.users, prepend=-1) > 0
        clean = without_noise(dataset)
        self.clean: EventArrays = self if clean is dataset else EventArrays(clean, rule)

    def refuse(self, problem: str) -> NoReturn:
        """Raise a RequestError that names dataset and rule."""
        raise RequestError(f"{self.dataset.meta.name}: intent rule {self.rule}: {problem}")

    def timestamps(self) -> Ints:
        """(E,) seconds."""
        if self.dataset.timestamps is None:
            self.refuse("the dataset has no timestamps")
        return self.dataset.timestamps.numpy().astype(np.int64)

    def actions(self, limit: int) -> tuple[Ints, tuple[str, ...]]:
        """(E,) codes from 0 and their names, at most `limit`."""
        names = self.dataset.meta.actions
        if self.dataset.actions is None:
            self.refuse("the dataset has no actions")
        if len(names) > limit:
            self.refuse(f"the dataset has {len(names)} actions, at most {limit}")
        return self.dataset.actions.numpy().astype(np.int64), names

    def ratings(self) -> NDArray[np.float32]:
        """(E,), NaN where an event has none."""
        if self.dataset.ratings is None:
            self.refuse("the dataset has no ratings")
        return self.dataset.ratings.numpy()

    def feature(self, name: str) -> ItemValues:
        """An item feature."""
        if name not in self.dataset.meta.item_features:
            known = ", ".join(self.dataset.meta.item_features) or "none"
            self.refuse(f"the dataset has no item feature {name!r}; it has: {known}")
        values, offsets = self.dataset.item_feature(name)
        names = self.dataset.texts(f"item.{name}")
        if names is None:  # made in memory
            names = [f"value {code}" for code in range(1, 1 + int(values.numpy().max(initial=0)))]
        codes = values.numpy().astype(np.int64) - 1
        return ItemValues(codes, offsets.numpy().astype(np.int64), tuple(names))

    def numbers(
        self, feature: str, low: float = -np.inf, high: float = np.inf
    ) -> NDArray[np.float64]:
        """(E,) the first value of each event's item as a number, NaN where it has none.

        Values that are no numbers, or not between `low` and `high`, are refused.
        """
        values = self.feature(feature)
        numbers = np.array([_as_number(name) for name in values.names])
        wrong = ~((low < numbers) & (numbers < high))
        if wrong.any():
            between = f" between {low:g} and {high:g}" if np.isfinite(low) else ""
            name = values.names[int(wrong.argmax())]
            self.refuse(f"{feature!r} has the value {name!r}, which is no number{between}")
        found: NDArray[np.float64] = np.append(numbers, np.nan)[values.first()][self.items]
        return found


def first_events(users: Ints, values: Ints, events: Ints) -> Ints:
    """The first event in which the same user had the same value, for each entry.

    Args:
        users: (P,) user of each entry.
        values: (P,) value of each entry, from 0.
        events: (P,) event of each entry, rising.
    """
    pairs = users * (values.max(initial=0) + 1) + values
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    return events[first][inverse]


def shared_with_previous(events: Ints, values: Ints, start: Bools, width: int) -> Ints:
    """(E,) how many values an event shares with the event before it.

    Args:
        events: (P,) event of each entry, rising.
        values: (P,) value of each entry, below `width`, rising within an event.
        start: (E,) whether an event has none before it.
        width: K, the number of values.
    """
    own = events * width + values  # rises, so that a search finds what both have
    followed = np.append(~start[1:], False)[events]
    before = own[followed] + width
    place = np.searchsorted(before, own)
    same = np.append(before, -1)[place] == own
    return np.bincount(events[same], minlength=len(start))


def most_frequent(
    occurrences: Ints, names: tuple[str, ...], top: int
) -> tuple[Ints, tuple[str, ...]]:
    """Number the most frequent values from 0; the others are all `top`.

    Args:
        occurrences: the values to count, 0..K-1; of equally frequent ones the smaller come first.
        names: of the K values.
        top: how many to keep.

    Returns:
        (K,) the number of each value, and the names of the numbers; "other" only if there are any.
    """
    order = np.argsort(-np.bincount(occurrences, minlength=len(names)), kind="stable")[:top]
    number = np.full(len(names), top)
    number[order] = np.arange(len(order))
    kept = tuple(names[value] for value in order)
    return number, (*kept, "other") if len(names) > top else kept


def _as_number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return np.nan
