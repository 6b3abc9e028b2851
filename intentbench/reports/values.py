"""Metrics of users from ranks, as pages need them: of thousands of trials, many times over."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.metrics import users
from intentbench.metrics.users import metric_names

_TOLERANCE = 1e-9


def user_values(
    metric: str, user: NDArray[np.integer], ranks: NDArray[np.integer], history: str
) -> NDArray[np.float64]:
    """`intentbench.metrics.users.user_values`, in a fraction of the time for one target a user.

    A value then depends on its rank alone, and is looked up where a rank takes two bytes.

    Args:
        metric: its name.
        user: (T,) user of each target, ascending.
        ranks: (…, T) ranks, 1 is best.
        history: what stands before a target.

    Returns:
        (…, U) values of the users, ascending.

    Raises:
        RequestError: there is no such metric.
    """
    if ranks.dtype == np.uint16 and (np.diff(user) > 0).all():
        found: NDArray[np.float64] = _of_ranks(metric, history)[ranks]
        return found
    return users.user_values(metric, user, ranks, history)


@cache
def _of_ranks(metric: str, history: str) -> NDArray[np.float64]:
    """The value of each rank of two bytes: that of a user whose one target has it."""
    every = np.arange(1, 2**16)
    return np.append(np.nan, users.user_values(metric, every, every, history))


def mean_metrics(
    user: NDArray[np.integer], ranks: NDArray[np.integer], history: str
) -> dict[str, NDArray[np.float64]]:
    """Each published metric of ranks (N, T): its mean over users, (N,)."""
    return {
        metric: user_values(metric, user, ranks, history).mean(axis=-1)
        for metric in metric_names(history)
    }


def check_metrics(
    recorded: Sequence[Mapping[str, float]],
    found: Mapping[str, NDArray[np.float64]],
    names: Sequence[str],
) -> None:
    """What trials recorded must be what their ranks give.

    Args:
        recorded: metric to value, of N trials; what one lacks is not compared.
        found: metric to values (N,), as of `mean_metrics`.
        names: of the trials, for an error.

    Raises:
        RequestError: they differ.
    """
    for number, (metrics, name) in enumerate(zip(recorded, names, strict=True)):
        for metric, values in found.items():
            figure, value = metrics.get(metric), float(values[number])
            if figure is not None and not abs(value - figure) <= _TOLERANCE:  # NaN too
                raise RequestError(
                    f"{name}: recorded {metric} {figure:.6f}, its ranks give {value:.6f}; "
                    "run the trial again"
                )
