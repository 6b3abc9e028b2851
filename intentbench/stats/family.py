"""All models of one dataset against one another: contrasts, corrected p-values, tiers and marks."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
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
    """

    labels: tuple[str, ...]
    contrasts: Mapping[Pair, Contrast]
    effects: Mapping[Pair, Effect]
    adjusted: Mapping[Pair, float | None]
    alpha: float
    reference: str | None = None
    method: Method = "holm"

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
        model that can be tested against all that are left goes before one that cannot, as opener,
        unless that one is separated above it; a model that cannot be tested against the opener, or
        against anything, has no tier. Nor has any where only a reference was tested against.
        """
        if self.reference is not None:
            return dict.fromkeys(self.labels)
        tiers: dict[str, int | None] = {}
        waiting = []
        for label in self.labels:
            others = (other for other in self.labels if other != label)
            if any(self.adjusted[label, other] is not None for other in others):
                waiting.append(label)
            else:
                tiers[label] = None
        tier = 0
        while waiting:
            tier, first = tier + 1, self._opener(waiting)
            members = [
                label for label in waiting if label == first or not self.separated(first, label)
            ]
            for label in members:
                tiers[label] = tier if self._tested([first], label) else None
            waiting = [label for label in waiting if label not in members]
        return tiers

    def _opener(self, waiting: list[str]) -> str:
        """Of models by falling mean, the one that opens their tier."""
        first = next(filter(partial(self._tested, waiting), waiting), waiting[0])
        higher = waiting[: waiting.index(first)]
        return next((label for label in higher if self.separated(label, first)), first)

    def _tested(self, others: list[str], label: str) -> bool:
        """Whether a model could be tested against each of the others."""
        return all(other == label or self.adjusted[label, other] is not None for other in others)

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
    return Family(labels, contrasts, effects, adjusted, alpha, reference, method)
