"""Robustness to noise: what a spec's `noise` says, and the ranks of a trial under it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.noise import Kind, Noise, Rounding, perturb
from datamodules.noise_training import NoisySequenceDataModule, check_trainable
from datamodules.prepared import PreparedDataset
from datamodules.rows import Layout
from datamodules.sequence import SequenceDataModule
from intentbench.metrics.collection import RankTable
from intentbench.metrics.users import mean_metric, metric_names
from intentbench.models.base import Recommender
from intentbench.models.events import EventRecommender
from intentbench.runner.arguments import construct, resolve_arguments

TEST_NOISE, TRAINING_NOISE = "test", "training"
"""Protocols: a model trained on clean data, and one trained with noise of the same kind and rate;
both are tested with noise."""

Ranker = Callable[[PreparedDataset], RankTable]
"""Ranks the test targets of a dataset with a trained model."""


@dataclass(frozen=True)
class NoisePlan:
    """The noise that a trial is measured under; see `datamodules.noise.Noise`.

    Attributes:
        kinds: each at every rate.
        rates: shares of a user's inputs.
        rounding: of how many inputs are touched.
        seed: of the noise; the same for all seeds and methods.
        train: whether a model is trained with each of these, too: as many more trainings.
    """

    kinds: tuple[Kind, ...] = ("swap",)
    rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3)
    rounding: Rounding = "floor"
    seed: int = 0
    train: bool = False

    @property
    def settings(self) -> tuple[Noise, ...]:
        """Every noise.

        Raises:
            RequestError: a rate or the seed is none, nothing is asked for, or something twice.
        """
        found = tuple(
            Noise(kind, rate, self.rounding, self.seed)
            for kind in self.kinds
            for rate in self.rates
        )
        if not found or len(set(found)) < len(found):
            raise RequestError("noise: kinds and rates: expected some, each once")
        if min(self.rates) == 0:
            raise RequestError("noise: rate 0: the trial's own test is that")
        return found

    @property
    def protocols(self) -> tuple[str, ...]:
        """Which protocols are run."""
        return (TEST_NOISE, TRAINING_NOISE) if self.train else (TEST_NOISE,)


def read_plan(arguments: Mapping[str, Any]) -> NoisePlan:
    """The plan of a trial, from the plain arguments that its configuration holds."""
    plan: NoisePlan = construct(NoisePlan, arguments)
    return plan


def resolve_noise(
    given: Mapping[str, Any], cls: type[Recommender], layout: Layout, where: str
) -> dict[str, Any]:
    """All arguments of a row's `NoisePlan` as plain types; {} where no noise is asked for.

    Args:
        given: what a person wrote.
        cls: the row's method.
        layout: of its training rows.
        where: file and key path, the beginning of messages.

    Raises:
        RequestError: an unknown key or value, or noise that the method cannot be trained with.
    """
    if not given:
        return {}
    resolved = resolve_arguments(NoisePlan, given, where)
    plan = read_plan(resolved)
    try:
        _check(plan, cls, layout)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None
    return resolved


def _check(plan: NoisePlan, cls: type[Recommender], layout: Layout) -> None:
    if not (plan.settings and plan.train):
        return
    if not cls.CARD.gradient:
        raise RequestError(
            f"noise in training: {cls.__name__} is not trained by gradient; give its row "
            "noise: {train: false}"
        )
    if issubclass(cls, EventRecommender):
        raise RequestError(
            f"noise in training: not for {cls.__name__}, which looks up what else is known of an "
            "event where the clean one stands; give its row noise: {train: false}"
        )
    for kind in plan.kinds:
        check_trainable(kind, layout)


def rank_under_noise(
    plan: NoisePlan,
    data: SequenceDataModule,
    clean: RankTable,
    rank: Ranker,
    train: Callable[[NoisySequenceDataModule], Ranker],
) -> tuple[list[dict[str, Any]], NDArray[np.int32]]:
    """Rank a trial's test targets under every noise of a plan.

    Args:
        plan: what is asked for.
        data: of the trial.
        clean: the trial's ranks without noise.
        rank: ranks with the trial's model.
        train: trains a model of the same configuration and seed on noisy rows.

    Returns:
        One entry a protocol and noise (protocol, kind, rate, rounding, seed, the realised share of
        inputs touched, with noise in training also that of training, and metrics), and the ranks
        (K, T), a target a column in the order of `clean`.
    """
    history = data.dataset.meta.history
    entries: list[dict[str, Any]] = []
    ranks = []
    for protocol in plan.protocols:
        for noise in plan.settings:
            noisy, share = perturb(data.dataset, noise)
            entry = {"protocol": protocol, **asdict(noise), "share": share}
            ranker = rank
            if protocol == TRAINING_NOISE:
                rows = NoisySequenceDataModule(data, noise)
                ranker = train(rows)
                entry["training_share"] = rows.share
            table = ranker(noisy)
            # A target's key moves with the inputs before it, the order of a user's targets stays.
            if not np.array_equal(table.user, clean.user):
                raise RuntimeError("noise changed the test targets")
            means = {
                name: mean_metric(name, table.user, table.rank, history)
                for name in metric_names(history)
            }
            entries.append({**entry, "metrics": means})
            ranks.append(table.rank)
    return entries, np.stack(ranks)
