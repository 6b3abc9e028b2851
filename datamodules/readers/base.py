"""What every reader returns: one event table, whatever the format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.prepared import TEST, TRAIN, VALID

SPLIT_NAMES = {"train": TRAIN, "valid": VALID, "test": TEST}
"""Values that a `split` column may have, and their codes once prepared."""


@dataclass(frozen=True)
class EventTable:
    """Events as a file has them: in the file's order, with its own ids, nothing filtered.

    Attributes:
        events: columns `user` and `item` (both text or whole numbers) and, where the data has
            them, `timestamp` (int64 seconds), `action` (text), `rating` (float64), `split`
            (a key of `SPLIT_NAMES`), `session` (text or whole number). Rows are in input order.
        item_features: name to a table `item`, `value`: a row for each value of an item, so that
            an item may have several or none.
        user_features: name to a table `user`, `value`.
        item_texts: a table `item`, `text`, or None.
        user_texts: a table `user`, `text`, or None.
        truth: what a generator planted, by name; None for real data.
    """

    events: pl.LazyFrame
    item_features: dict[str, pl.DataFrame] = field(default_factory=dict)
    user_features: dict[str, pl.DataFrame] = field(default_factory=dict)
    item_texts: pl.DataFrame | None = None
    user_texts: pl.DataFrame | None = None
    truth: dict[str, NDArray[np.generic]] | None = None


def check_files(
    files: Mapping[str, Path],
    optional: tuple[str, ...] = (),
    required: tuple[str, ...] = ("events",),
) -> None:
    """Refuse files that a reader does not know, and the lack of those that it needs.

    Raises:
        RequestError: a file's name is unknown, or a required one is missing.
    """
    known = (*required, *optional)
    for name in files:
        if name not in known:
            raise RequestError(f"unknown file {name!r}; the reader knows: {', '.join(known)}")
    for name in required:
        if name not in files:
            raise RequestError(f"no file {name!r}; the reader needs: {', '.join(required)}")
