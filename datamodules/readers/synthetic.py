"""Reader of nothing: generated data with planted intents, as an event table."""

from pathlib import Path

import numpy as np
import polars as pl

from datamodules.errors import RequestError
from datamodules.readers.base import EventTable
from datamodules.synthetic import ACTIONS, Synthetic, generate
from datamodules.synthetic_texts import category
from datamodules.synthetic_world import parse_options


def read(files: dict[str, Path], **options: int | float) -> EventTable:
    """Generate events.

    Args:
        files: must be empty.
        **options: `seed`, by default 0, and any attribute of `SyntheticConfig`.

    Returns:
        Users 0..N-1 and items 1..V as whole numbers, timestamps, actions, the item feature
        "category", texts and the planted truth (see `Synthetic.truth`).

    Raises:
        RequestError: a file is given; an option is unknown, ill-typed or out of range.
    """
    if files:
        raise RequestError(f"synthetic data is read from no file, but got {', '.join(files)}")
    return event_table(generate(*parse_options(options)))


def event_table(synthetic: Synthetic) -> EventTable:
    """Generated data in the form that every reader returns."""
    n_users = len(synthetic.offsets) - 1
    item = np.arange(1, len(synthetic.item_texts) + 1)
    categories = [category(intent) for intent in synthetic.world.item_intent[1:]]
    events = pl.LazyFrame(
        {
            "user": np.repeat(np.arange(n_users), np.diff(synthetic.offsets)),
            "item": synthetic.items,
            "timestamp": synthetic.timestamps,
            "action": np.array(ACTIONS)[synthetic.actions],
        }
    )
    return EventTable(
        events=events,
        item_features={"category": pl.DataFrame({"item": item, "value": categories})},
        item_texts=pl.DataFrame({"item": item, "text": synthetic.item_texts}),
        user_texts=pl.DataFrame({"user": np.arange(n_users), "text": synthetic.user_texts}),
        truth=synthetic.truth,
    )
