"""A metric of a finished trial, query by query, for scripts that split queries in groups."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.metrics.formulas import compute_metric
from intentbench.results.store import load_ranks

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]


def find_metric(run: Path, name: str, users: Ints, keys: Ints) -> Floats:
    """(Q,) a metric of a trial's test queries, in the order of those given, which must be its own.

    Raises:
        RequestError: they are others, or the trial has no ranks.
    """
    ranks = load_ranks(run)
    there, here = np.lexsort((ranks["key"], ranks["user"])), np.lexsort((keys, users))
    for stored, asked in ((ranks["user"], users), (ranks["key"], keys)):
        if not np.array_equal(stored[there], asked[here]):
            raise RequestError(f"{run}: other test queries; give trials on the same data")
    values = np.empty(len(users))
    values[here] = compute_metric(name, ranks["rank"][there])
    return values
