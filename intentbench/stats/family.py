"""All models of one dataset against one another: contrasts, corrected p-values, tiers and marks."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import median
from typing import TypeVar

from intentbench.stats.components import Values
from intentbench.stats.contrast import Contrast, contrast_sides, summarise
from intentbench.stats.correction import Method, adjust
from intentbench.stats.effects import ROPE, Averages, Effect, effect_of_averages

Pair = tuple[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Resolution:
    """What a family can tell apart.

    Attributes:
        difference: smallest true relative difference found in 80 % of repetitions, before
            correction; median over pairs.
        users_share: share of the variance that comes from users, median over pairs.
        pairs: number of pairs it is taken over.
    """

    difference: float
    users_share: float
    pairs: int


@dataclass(frozen=True)
class Family:
    """Every pair of models of one dataset under one metric.

    Attributes:
        labels: by falling mean.
        contrasts: of every ordered pair, made when first asked for.
        effects: likewise.
        adjusted: corrected p-value of every ordered pair; None where the seeds' part of the error
            is unknown, or the pair is no member of the family.
        alpha: level of the family.
        reference: the model that all others are tested against, and nothing else; None: all pairs
            are tested.
        method: of correction.
        lone: models of one seed, which cannot be tested against one another nor against those
            without any.
    """

    labels: tuple[str, ...]
    contrasts: Mapping[Pair, Contrast]
    effects: Mapping[Pair, Effect]
    adjusted: Mapping[Pair, float | None]
    alpha: float
    reference: str | None = None
    method: Method = "holm"
    lone: frozenset[str] = frozenset()

    @property
    def runner_up(self) -> Pair | None:
        """The highest model and the second; None where there is no second."""
        return (self.labels[0], self.labels[1]) if len(self.labels) > 1 else None

    @property
    def n_tests(self) -> int:
        """Size of the family: pairs that could be tested."""
        return sum(self.adjusted[pair] is not None for pair in combinations(self.labels, 2))

    def separated(self, a: str, b: str) -> bool:
        """Whether the corrected test tells two models apart."""
        p = self.adjusted[a, b]
        return p is not None and p < self.alpha

    @cached_property
    def tiers(self) -> Mapping[str, int | None]:
        """Shared ranks: a tier holds its highest model and all that are not separated from it.

        The highest model opens tier 1 and takes in every model not separated from it; the highest
        one left opens the next. Members are tied with the tier's first, not with one another. A
        model of one seed has a tier only where it could be tested against every other; one that
        could be tested against nothing has none. Nor has any where only a reference was tested
        against.
        """
        tiers: dict[str, int | None] = dict.fromkeys(self.labels)
        waiting = [label for label in self.labels if self._ranked(label)]
        tier = 0
        while waiting:
            tier, first = tier + 1, waiting[0]
            members = {first, *(label for label in waiting[1:] if not self.separated(first, label))}
            tiers |= dict.fromkeys(members, tier)
            waiting = [label for label in waiting if label not in members]
        return tiers

    def _ranked(self, label: str) -> bool:
        """Whether a model has a tier: it could be tested against all others that have one."""
        tested = [
            self.adjusted[label, other] is not None for other in self.labels if other != label
        ]
        enough = all if label in self.lone else any
        return self.reference is None and bool(tested) and enough(tested)

    def mark(self, label: str, reference: str) -> str:
        """How a model stands to a reference.

        Returns:
            "^" better, "v" worse, "=" not separated, "~" separated by less than `ROPE`, "" where
            the pair could not be tested.
        """
        if label == reference or self.adjusted[label, reference] is None:
            return ""
        if not self.separated(label, reference):
            return "="
        difference = self.contrasts[label, reference]
        if difference.relative is not None and abs(difference.relative) < ROPE:
            return "~"
        return "^" if difference.est > 0 else "v"

    @property
    def lead(self) -> str:
        """Mark of the highest model against the second; "" where there is no second."""
        return self.mark(*self.runner_up) if self.runner_up else ""

    def resolution(self) -> Resolution | None:
        """What these runs can tell apart; None where no pair could be tested."""
        tested = [
            self.contrasts[pair]
            for pair in combinations(self.labels, 2)
            if self.adjusted[pair] is not None
        ]
        known = [c for c in tested if c.resolution is not None and c.se > 0]
        if not known:
            return None
        return Resolution(
            median(c.resolution for c in known if c.resolution is not None),
            median(c.v_users / c.se**2 for c in known),
            len(known),
        )


def in_family(pair: Pair, reference: str | None) -> bool:
    """Whether a pair is tested: all are, or those with the reference alone."""
    return reference is None or reference in pair


class _OnDemand(dict[Pair, T]):
    """Made when first asked for: of most pairs one order is enough, and no effect is read."""

    def __init__(self, make: Callable[[str, str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, pair: Pair) -> T:
        value = self[pair] = self._make(*pair)
        return value


def compare_all(
    values: Mapping[str, Values],
    deterministic: Collection[str] = (),
    alpha: float = 0.05,
    method: Method = "holm",
    reference: str | None = None,
) -> Family:
    """Compare every pair of models of one dataset, and correct over all of them.

    All pairs, because it is the data that choose which model is called the best. Against a
    reference alone there are fewer tests, which is right where it was named before the results.

    Args:
        values: label to (S, U) metric, users in the same order in each; S may differ.
        deterministic: labels whose seed changes nothing.
        alpha: level of the family and of the intervals.
        method: of correction.
        reference: the label that the others are tested against; None tests all pairs.

    Raises:
        RequestError: fewer than two users.
        ValueError: the numbers of users differ, or a value is not finite.
    """
    labels = tuple(sorted(values, key=lambda label: (-values[label].mean(), label)))
    sides = {label: summarise(values[label], label in deterministic) for label in labels}
    contrasts = _OnDemand(lambda a, b: contrast_sides(sides[a], sides[b], alpha=alpha))
    averages = {label: Averages.of(own) for label, own in values.items()}
    effects = _OnDemand(lambda a, b: effect_of_averages(averages[a], averages[b], contrasts[a, b]))
    pairs = list(combinations(labels, 2))
    tested = [contrasts[pair].judged and in_family(pair, reference) for pair in pairs]
    p = [contrasts[pair].p if test else None for pair, test in zip(pairs, tested, strict=True)]
    adjusted = dict(zip(pairs, adjust(p, method), strict=True))
    adjusted |= {(b, a): p for (a, b), p in adjusted.items()}
    lone = frozenset(label for label in values if len(values[label]) == 1) - {*deterministic}
    return Family(labels, contrasts, effects, adjusted, alpha, reference, method, lone)
