"""What noise in the inputs costs each row, with intervals over users."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from intentbench.reports.cells import Cell, Table, noise_settings

Floats = NDArray[np.float64]

RESAMPLES = 1000
"""Of users, for an interval."""

_CHUNK = 50  # resamples at a time: memory, not results, depends on it

IGR_SR = (
    "IGR-SR's paper (Table 3) gives a loss of 10.4 % at 20 % noise, and of 16.2 % and 18.6 % for "
    "two methods that it compares with; metric, data sets and the way that noise came in are not "
    "known."
)
"""What others published, printed where the method is a row."""


@dataclass(frozen=True)
class Loss:
    """A row under one noise.

    Attributes:
        label: of the row.
        rate: share of a user's inputs that was asked for.
        share: inputs touched of all inputs of the test.
        training_share: the same of training, mean over seeds; None where training was clean.
        mean: of the metric under noise.
        loss: 1 - mean / mean without noise; None where the latter is 0.
        low: lower bound of the loss.
        high: upper bound.
    """

    label: str
    rate: float
    share: float
    training_share: float | None
    mean: float
    loss: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Study:
    """All rates of one kind of noise.

    Attributes:
        protocol: "test", or "training" where models were trained with the noise, too.
        kind: of noise.
        rounding: of the number of inputs touched.
        seed: of the noise.
        clean: label to the mean without noise, in the order of the rows.
        losses: of each row at each of its rates.
    """

    protocol: str
    kind: str
    rounding: str
    seed: int
    clean: dict[str, float]
    losses: tuple[Loss, ...]

    @property
    def rates(self) -> list[float]:
        """Rates that some row has."""
        return sorted({loss.rate for loss in self.losses})

    def at(self, label: str, rate: float) -> Loss | None:
        """A row at a rate, None where it has none."""
        found = (x for x in self.losses if (x.label, x.rate) == (label, rate))
        return next(found, None)

    def of_row(self, label: str) -> list[Loss]:
        """A row at its rates, rising."""
        return [loss for rate in self.rates if (loss := self.at(label, rate)) is not None]


def measure_noise(
    table: Table, cells: Sequence[Cell], metric: str, alpha: float
) -> tuple[Study, ...]:
    """What noise costs each row that was measured under it.

    The interval is a percentile bootstrap over users: a resample of users gives the means with
    and without noise alike, seeds averaged, and it is the same for all rows.

    Args:
        table: of the dataset.
        cells: rows, in the order of the page.
        metric: what is lost.
        alpha: 1 - the intervals' level.
    """
    columns: list[Floats] = []
    keys: list[tuple[Cell, int]] = []
    for cell in cells:
        if cell.noise is None:
            continue
        columns.append(table.values(cell.ranks, metric).mean(axis=0))
        keys.append((cell, -1))
        noisy = table.values(cell.noise, metric).mean(axis=0)
        columns += list(noisy)
        keys += [(cell, number) for number in range(len(noisy))]
    if not columns:
        return ()
    values = np.stack(columns, axis=1)
    sums = resample_users(values)
    clean = {cell.label: place for place, (cell, number) in enumerate(keys) if number < 0}
    found: dict[tuple[str, str, str, int], list[Loss]] = {}
    for place, (cell, number) in enumerate(keys):
        if number >= 0:
            base = clean[cell.label]
            setting = noise_settings(cell.records[0])[number]
            name = setting["protocol"], setting["kind"], setting["rounding"], setting["seed"]
            loss = _loss(cell, number, values[:, [base, place]], sums[:, [base, place]], alpha)
            found.setdefault(name, []).append(loss)
    means = {label: float(values[:, place].mean()) for label, place in clean.items()}
    return tuple(
        Study(
            *name,
            {label: means[label] for label in dict.fromkeys(x.label for x in losses)},
            tuple(losses),
        )
        for name, losses in found.items()
    )


def _loss(cell: Cell, number: int, values: Floats, sums: Floats, alpha: float) -> Loss:
    """One row under one noise; columns of `values` and `sums` are without noise and with it."""
    entries = [record.noise[number] for record in cell.records]
    training = [entry["training_share"] for entry in entries if "training_share" in entry]
    base, under = (float(value) for value in values.mean(axis=0))
    loss = low = high = None
    if base > 0:
        some = sums[sums[:, 0] > 0]
        loss = 1 - under / base
        low, high = map(float, np.quantile(1 - some[:, 1] / some[:, 0], [alpha / 2, 1 - alpha / 2]))
    return Loss(
        label=cell.label,
        rate=entries[0]["rate"],
        share=entries[0]["share"],
        training_share=mean(training) if training else None,
        mean=under,
        loss=loss,
        low=low,
        high=high,
    )


def resample_users(values: Floats, seed: int = 0) -> Floats:
    """Sums over users drawn with replacement, as many as there are.

    Args:
        values: (U, C), a user a row.
        seed: of the draw.

    Returns:
        (`RESAMPLES`, C); a resample takes the same users in all columns.
    """
    generator, n_users = np.random.default_rng(seed), len(values)
    parts = []
    for start in range(0, RESAMPLES, _CHUNK):
        rows = min(_CHUNK, RESAMPLES - start)
        drawn = generator.integers(0, n_users, (rows, n_users))
        drawn += n_users * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users)
        parts.append(times @ values)
    return np.concatenate(parts)
