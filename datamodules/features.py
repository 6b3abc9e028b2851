"""Features and texts of items and users, aligned with the remapped ids."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Feature(NamedTuple):
    """A multi-valued feature of items or users.

    Attributes:
        values: int32 codes 1..K, in the order of the source; 0 is free for padding.
        offsets: int64. Of items: (V + 2,), item v has `values[offsets[v]:offsets[v + 1]]` and
            `PAD` has none. Of users: (N + 1,).
        names: code c is called `names[c - 1]`; sorted, numbers as numbers.
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]
    names: list[str]


def encode_feature(table: pl.DataFrame, ids: pl.DataFrame, first: int) -> Feature:
    """The feature's values for the ids that remain.

    Args:
        table: columns `item` or `user`, and `value`.
        ids: that column, and `<column>_row`, its place from 0.
        first: number of the first id: 1 for items, 0 for users.
    """
    column, row = ids.columns
    values = (
        table.with_columns(pl.col(column).cast(ids.schema[column], strict=False))
        .drop_nulls()
        .join(ids, on=column, how="inner", maintain_order="left")
        .sort(row, maintain_order=True)
    )
    codes = values["value"].rank("dense").cast(pl.Int32)
    counts = np.bincount(values[row].to_numpy() + first, minlength=first + ids.height)
    return Feature(
        values=codes.to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        names=values["value"].unique().sort().cast(pl.String).to_list(),
    )


def align_texts(table: pl.DataFrame | None, ids: pl.DataFrame) -> list[str] | None:
    """The first text of each id that remains, empty where it has none.

    Args:
        table: columns `item` or `user`, and `text`; None gives None.
        ids: as in `encode_feature`.
    """
    if table is None:
        return None
    column = ids.columns[0]
    texts = (
        table.with_columns(pl.col(column).cast(ids.schema[column], strict=False))
        .drop_nulls()
        .unique(column, keep="first", maintain_order=True)
    )
    joined = ids.join(texts, on=column, how="left", maintain_order="left")
    return joined["text"].fill_null("").to_list()
