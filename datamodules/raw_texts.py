"""Raw reviews and metadata of Amazon and Yelp, read with Hugging Face `datasets`.

Files are JSON lines (plain or gzip) or parquet, on this machine or on the hub
(`hf://datasets/OWNER/NAME@COMMIT/PATH`); they are streamed, and only what a prepared dataset knows
is kept. Datasets that number their items themselves are joined through an id map.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from datamodules.errors import FormatError, RequestError
from datamodules.prepared import PreparedDataset
from datamodules.readers.lines import brief, read_lines
from datamodules.texts import ItemText, RawTexts, Review

_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class _Keys:
    """Names of the fields of one publisher's files; several are joined.

    Attributes:
        user: in reviews.
        item: in reviews and in metadata.
        rating: in reviews.
        time: in reviews.
        milliseconds: the unit of `time`, where that is a number.
        review: what a review says.
        title: of metadata.
        categories: lists, or names with commas between.
        description: of metadata.
    """

    user: str
    item: str
    rating: str
    time: str
    milliseconds: bool
    review: tuple[str, ...]
    title: str
    categories: tuple[str, ...]
    description: tuple[str, ...]


_AMAZON_OLD = _Keys(
    user="reviewerID",
    item="asin",
    rating="overall",
    time="unixReviewTime",
    milliseconds=False,
    review=("summary", "reviewText"),
    title="title",
    categories=("category", "categories", "brand"),
    description=("feature", "description"),
)
PUBLISHERS = {
    "amazon-2014": _AMAZON_OLD,
    "amazon-2018": _AMAZON_OLD,
    "amazon-2023": _Keys(
        user="user_id",
        item="parent_asin",
        rating="rating",
        time="timestamp",
        milliseconds=True,
        review=("title", "text"),
        title="title",
        categories=("main_category", "categories"),
        description=("features", "description"),
    ),
    "yelp": _Keys(
        user="user_id",
        item="business_id",
        rating="stars",
        time="date",
        milliseconds=False,
        review=("text",),
        title="name",
        categories=("categories", "city"),
        description=(),
    ),
}
"""Whose files can be read: Amazon 2014, 2018 (Ni et al. 2019), 2023 (Hou et al. 2024), Yelp."""


def read_raw_texts(
    dataset: PreparedDataset,
    publisher: str,
    reviews: str | None = None,
    metadata: str | None = None,
    item_ids: Path | None = None,
    user_ids: Path | None = None,
) -> RawTexts:
    """Read what raw files say of a dataset's items and interactions.

    Args:
        dataset: whose users and items are looked for; others are read over.
        publisher: a key of `PUBLISHERS`.
        reviews: file or hub address of the reviews.
        metadata: file or hub address of the items.
        item_ids: map from the dataset's item ids to the publisher's, where they differ; see
            `read_id_map`.
        user_ids: the same of users.

    Raises:
        FormatError: a file cannot be read.
        RequestError: no such publisher, or a file names nothing that the dataset has.
    """
    if publisher not in PUBLISHERS:
        raise RequestError(f"no publisher {publisher!r}; known: {', '.join(PUBLISHERS)}")
    keys = PUBLISHERS[publisher]
    items = _rows(dataset, "items", item_ids)
    known: dict[int, ItemText] = {}
    if metadata is not None:
        for row in _records(metadata, keys.item):
            if (item := items.get(str(row.get(keys.item)))) is not None:
                known.setdefault(item, _item_text(row, keys))
        _check_found(known, metadata, dataset, "item", "--item-ids")
    written: list[Review] = []
    if reviews is not None:
        users = _rows(dataset, "users", user_ids)
        for row in _records(reviews, keys.user, keys.item):
            user, item = users.get(str(row.get(keys.user))), items.get(str(row.get(keys.item)))
            if user is not None and item is not None and (text := _text(row, keys.review)):
                written.append(
                    Review(user, item, _seconds(row, keys), _rating(row, keys, reviews), text)
                )
        _check_found(written, reviews, dataset, "interaction", "--item-ids and --user-ids")
    return RawTexts(known, written)


def read_id_map(path: Path, dataset: PreparedDataset, kind: str) -> dict[str, int]:
    """The publisher's ids and the rows they stand for.

    Args:
        path: two columns with a header, separated by tabs, plain or gzip: the dataset's own id,
            the publisher's id.
        dataset: whose ids the first column must be: all of them, and no others.
        kind: "items" or "users".

    Raises:
        FormatError: a line has not two fields.
        RequestError: the map is of another numbering: its ids are not the dataset's, or as many.
    """
    lines = [line.split("\t") for line in read_lines(path)[1:] if line]
    for number, line in enumerate(lines, start=2):
        if len(line) != 2:
            raise FormatError(f"{path}:{number}: {len(line)} fields, expected 2")
    own = {text: row for row, text in enumerate(dataset.original_ids(kind), start=_FIRST[kind])}
    mapped = {line[0] for line in lines}
    if len(lines) != len(own) or mapped != own.keys():
        raise RequestError(
            f"{path}: not the numbering of {dataset.meta.name}: {len(lines)} {kind} in the map, "
            f"{len(own)} in the data, {len(mapped & own.keys())} in both; give the map made for it"
        )
    rows = {line[1]: own[line[0]] for line in lines}
    if len(rows) != len(lines):
        raise RequestError(f"{path}: {len(lines) - len(rows)} ids of the publisher stand twice")
    return rows


_FIRST = {"users": 0, "items": 1}


def _rows(dataset: PreparedDataset, kind: str, ids: Path | None) -> Mapping[str, int]:
    if ids is not None:
        return read_id_map(ids, dataset, kind)
    return {text: row for row, text in enumerate(dataset.original_ids(kind), start=_FIRST[kind])}


def _check_found(
    found: Any, address: str, dataset: PreparedDataset, what: str, options: str
) -> None:
    if not found:
        raise RequestError(
            f"{address}: names no {what} of {dataset.meta.name}; if the dataset numbers them "
            f"itself, give the map of its ids with {options}"
        )


def _records(address: str, *needed: str) -> Iterator[dict[str, Any]]:
    """The records of a file, streamed.

    JSON lines are taken as lines of text: the loader for JSON wants one schema for all of a file,
    and the metadata of Amazon 2023 has other fields in `details` from item to item.

    Raises:
        FormatError: it cannot be read, or its first record lacks a field.
    """
    import datasets  # costs over a second, and only raw files need it

    datasets.disable_progress_bars()
    kind = "parquet" if address.endswith(".parquet") else "text"
    if "://" not in address and not Path(address).is_file():
        raise RequestError(f"{address}: no such file")
    try:
        rows = datasets.load_dataset(kind, data_files=address, split="train", streaming=True)
        records = iter(rows) if kind == "parquet" else _parsed(rows, address)
        first = next(records, None)
        if first is None:
            raise FormatError(f"{address}: the file is empty")
        if missing := [name for name in needed if name not in first]:
            raise FormatError(f"{address}: no field {missing[0]!r}; it has: {', '.join(first)}")
        yield from chain([first], records)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        reason = brief(error) or type(error).__name__
        raise FormatError(f"{address}: cannot be read: {reason}") from None


def _parsed(rows: Iterable[Mapping[str, str]], address: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        if line := row["text"].strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise FormatError(f"{address}:{number}: invalid JSON: {error}") from None
            if not isinstance(record, dict):
                raise FormatError(f"{address}:{number}: not a JSON object")
            yield record


def _item_text(row: Mapping[str, Any], keys: _Keys) -> ItemText:
    categories = [
        _clean(part)
        for name in keys.categories
        for value in _flat(row.get(name))
        for part in value.split(",")  # Yelp has them in one text
    ]
    kept = tuple(dict.fromkeys(category for category in categories if category))
    return ItemText(_text(row, (keys.title,)), kept, _text(row, keys.description))


def _text(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    parts = (_clean(text) for name in names for text in _flat(row.get(name)))
    return "\n".join(part for part in parts if part)


def _flat(value: Any) -> list[str]:
    """The texts in a field: itself, or those of a list, also of lists of lists (Amazon 2014)."""
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [text for part in value for text in _flat(part)]
    return [str(value)]


def _clean(text: str) -> str:
    """Without markup, entities, runs of blanks and halves of characters (lone surrogates)."""
    words = html.unescape(_TAG.sub(" ", text)).split()
    return " ".join(words).encode("utf-8", "replace").decode()


def _rating(row: Mapping[str, Any], keys: _Keys, address: str) -> float | None:
    value = row.get(keys.rating)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise FormatError(f"{address}: {keys.rating} is no number: {value!r}") from None


def _seconds(row: Mapping[str, Any], keys: _Keys) -> int | None:
    """The time of a review; one that cannot be read counts as unknown."""
    value = row.get(keys.time)
    try:
        if isinstance(value, str) and not value.isdigit():
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        return None if value is None else int(value) // (1000 if keys.milliseconds else 1)
    except (TypeError, ValueError):
        return None
