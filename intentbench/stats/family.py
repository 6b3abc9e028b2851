"""All models of one dataset against one another: contrasts, corrected p-values, tiers and marks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import median

from intentbench.stats.components import Values
from intentbench.stats.contrast import Contrast, contrast
from intentbench.stats.correction import adjust
from intentbench.stats.effects import ROPE, Effect, measure_effect

Pair = tuple[str, str]


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
        contrasts: of every ordered pair.
        effects: of every ordered pair.
        adjusted: corrected p-value of every ordered pair; None where the seeds' part of the error
            is unknown.
        alpha: level of the family.
    """

    labels: tuple[str, ...]
    contrasts: Mapping[Pair, Contrast]
    effects: Mapping[Pair, Effect]
    adjusted: Mapping[Pair, float | None]
    alpha: float

    @property
    def n_tests(self) -> int:
        """Size of the family: pairs that could be tested."""
        return sum(self.adjusted[pair] is not None for pair in combinations(self.labels, 2))

    def separated(self, a: str, b: str) -> bool:
        """Whether the corrected test tells two models apart."""
        p = self.adjusted[a, b]
        return p is not None and p < self.alpha

    def tiers(self) -> dict[str, int | None]:
        """Shared ranks: a tier holds its highest model and all that are not separated from it.

        The highest model opens tier 1 and takes in every model not separated from it; the highest
        one left opens the next. Members are tied with the tier's first, not with one another. A
        model that can be tested against all that are left goes before one that cannot, as opener;
        a model that cannot be tested against the opener, or against anything, has no tier.
        """
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
            tier, first = (
                tier + 1,
                next(filter(partial(self._tested, waiting), waiting), waiting[0]),
            )
            members = [
                label for label in waiting if label == first or not self.separated(first, label)
            ]
            for label in members:
                tiers[label] = tier if self._tested([first], label) else None
            waiting = [label for label in waiting if label not in members]
        return tiers

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


def compare_all(
    values: Mapping[str, Values], deterministic: Collection[str] = (), alpha: float = 0.05
) -> Family:
    """Compare every pair of models of one dataset, corrected by Holm over all pairs.

    All pairs, because it is the data that choose which model is called the best.

    Args:
        values: label to (S, U) metric, users in the same order in each; S may differ.
        deterministic: labels whose seed changes nothing.
        alpha: level of the family and of the intervals.

    Raises:
        RequestError: fewer than two users.
        ValueError: the numbers of users differ, or a value is not finite.
    """
    labels = tuple(sorted(values, key=lambda label: (-values[label].mean(), label)))
    contrasts, effects = {}, {}
    for a in labels:
        for b in labels:
            if a != b:
                contrasts[a, b] = contrast(
                    values[a],
                    values[b],
                    deterministic_a=a in deterministic,
                    deterministic_b=b in deterministic,
                    alpha=alpha,
                )
                effects[a, b] = measure_effect(values[a], values[b], contrasts[a, b])
    pairs = list(combinations(labels, 2))
    found = adjust([contrasts[pair].p if contrasts[pair].judged else None for pair in pairs])
    adjusted = dict(zip(pairs, found, strict=True))
    adjusted |= {(b, a): p for (a, b), p in adjusted.items()}
    return Family(labels, contrasts, effects, adjusted, alpha)
