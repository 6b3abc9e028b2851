"""What is known in words of items and users, from metadata and training interactions alone.

A user's texts are those of the user's training items and training reviews; an item's are its
metadata and the training reviews that it received. Held-out interactions and their reviews never
get in here, so nothing that is made of these texts can know them. A text that the data itself has
of users (`PreparedDataset.texts("users")`) is left aside: nothing says what it was written from.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from datamodules.errors import RequestError
from datamodules.prepared import TRAIN, PreparedDataset
from datamodules.types import PAD


@dataclass(frozen=True)
class ItemText:
    """An item's metadata; what is missing is empty."""

    title: str = ""
    categories: tuple[str, ...] = ()
    description: str = ""

    def __str__(self) -> str:
        """All of it, a line a part."""
        parts = (self.title, ", ".join(self.categories), self.description)
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Review:
    """A review as a file has it, its user and item numbered as in the prepared dataset.

    Attributes:
        user: row, 0..N-1.
        item: 1..V.
        seconds: when it was written, None where the file does not say.
        rating: stars, 1 to 5, or None.
        text: in words, without markup.
    """

    user: int
    item: int
    seconds: int | None
    rating: float | None
    text: str


@dataclass(frozen=True)
class Interaction:
    """A training interaction: the item, the user's rating or None, the user's review or ""."""

    item: int
    rating: float | None = None
    review: str = ""


@dataclass(frozen=True)
class RawTexts:
    """What raw files add to a prepared dataset.

    Attributes:
        items: metadata by item; stands in place of what the prepared dataset has.
        reviews: of any interactions; those of held-out ones are dropped by `collect_texts`.
    """

    items: Mapping[int, ItemText] = field(default_factory=dict)
    reviews: Iterable[Review] = ()


@dataclass(frozen=True)
class TextData:
    """Everything that texts of users and items may be made from.

    Attributes:
        items: position v, 0..V; that of `PAD` is empty.
        histories: of each user the training interactions, newest first.
        timed: whether "newest" is known; without timestamps the order means nothing.
    """

    items: list[ItemText]
    histories: list[list[Interaction]]
    timed: bool

    def received(self) -> list[list[Interaction]]:
        """Position v: the training interactions with item v that have a review, user by user."""
        found: list[list[Interaction]] = [[] for _ in self.items]
        for history in self.histories:
            for event in history:
                if event.review:
                    found[event.item].append(event)
        return found

    def checksum(self) -> str:
        """sha256 of all of it; two text data with the same one give the same texts."""
        digest = hashlib.sha256()
        for part in (self.items, self.histories, self.timed):
            digest.update(repr(part).encode())
        return digest.hexdigest()


def collect_texts(dataset: PreparedDataset, raw: RawTexts | None = None) -> TextData:
    """The words known of a dataset's items, and its training interactions.

    Args:
        dataset: its item texts count as titles; item features whose values have names in letters
            (genres, categories, not numbers) count as categories.
        raw: metadata and reviews read from raw files.

    Raises:
        RequestError: nothing is known in words of any item.
    """
    raw = raw or RawTexts()
    items = _item_texts(dataset)
    for item, text in raw.items.items():
        items[item] = text
    histories = _histories(dataset, raw.reviews)
    if not any(str(text) for text in items) and not any(
        event.review for history in histories for event in history
    ):
        raise RequestError(
            f"{dataset.meta.name}: no item has a text: prepare it with its item files, or give raw "
            "texts with --metadata and --reviews"
        )
    return TextData(items, histories, dataset.timestamps is not None)


def collect_ids(dataset: PreparedDataset) -> TextData:
    """A control: each item's text is one word of its own, there are no reviews."""
    items = [ItemText(), *(ItemText(f"item{v}") for v in range(1, dataset.n_items + 1))]
    return TextData(items, _histories(dataset, ()), dataset.timestamps is not None)


def _item_texts(dataset: PreparedDataset) -> list[ItemText]:
    titles = dataset.texts("items") or [""] * dataset.n_items
    categories: list[list[str]] = [[] for _ in range(dataset.n_items + 1)]
    for feature in dataset.meta.item_features:
        names = dataset.texts(f"item.{feature}") or []
        if not any(character.isalpha() for name in names for character in name):
            continue  # numbers say nothing in words: years, prices, nameless attributes
        values, offsets = (tensor.tolist() for tensor in dataset.item_feature(feature))
        for item in range(1, dataset.n_items + 1):
            categories[item] += [names[c - 1] for c in values[offsets[item] : offsets[item + 1]]]
    words = [ItemText(title, tuple(categories[v])) for v, title in enumerate(titles, start=1)]
    return [ItemText(), *words]


_Key = tuple[int, int, int | None]
"""User, item and, where both the data and the review have it, the second."""


def _histories(dataset: PreparedDataset, reviews: Iterable[Review]) -> list[list[Interaction]]:
    """Training interactions, newest first, each with its review.

    A review belongs to a training interaction of the same user, item and second. Where the data
    or the review has no time, the user must have no held-out interaction with the item, for the
    review might be of that one.
    """
    items, split = dataset.items.tolist(), dataset.split.tolist()
    times = dataset.timestamps.tolist() if dataset.timestamps is not None else None
    ratings = dataset.ratings.tolist() if dataset.ratings is not None else None
    offsets = dataset.offsets.tolist()
    written = _by_key(reviews, timed=times is not None)
    held: set[_Key] = set()
    for user in range(dataset.n_users) if written else ():
        for event in range(offsets[user], offsets[user + 1]):
            if split[event] != TRAIN:
                held |= {(user, items[event], None)}
                held |= {(user, items[event], times[event])} if times is not None else set()
    histories: list[list[Interaction]] = []
    for user in range(dataset.n_users):
        history: list[Interaction] = []
        for event in reversed(range(offsets[user], offsets[user + 1])):
            if split[event] != TRAIN or items[event] == PAD:
                continue
            key = (user, items[event], times[event] if times is not None else None)
            review = _take(written, held, key)
            rating = _number(ratings[event]) if ratings is not None else None
            if rating is None and review is not None:
                rating = review.rating
            text = review.text if review is not None else ""
            history.append(Interaction(items[event], rating, text))
        histories.append(history)
    return histories


def _by_key(reviews: Iterable[Review], *, timed: bool) -> dict[_Key, Review]:
    """The first review of each key."""
    found: dict[_Key, Review] = {}
    for review in reviews:
        seconds = review.seconds if timed else None
        found.setdefault((review.user, review.item, seconds), review)
    return found


def _take(written: dict[_Key, Review], held: set[_Key], key: _Key) -> Review | None:
    """The review of a training interaction, once: a repeated interaction has it only once."""
    for candidate in dict.fromkeys((key, (*key[:2], None))):
        if candidate in written and candidate not in held:
            return written.pop(candidate)
    return None


def _number(value: float) -> float | None:
    return None if value != value else value  # NaN: the event has no rating
