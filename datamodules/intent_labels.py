"""Rules that make intent labels of what a dataset has: behaviours, times, ratings, item features.

The stand-ins for the intents of IntentRec (arXiv 2408.05353), whose own labels are not public. A
rule is text, its name and its arguments after colons:

- `behaviour`: what the user did.
- `behaviour_familiar[:feature]`: that, and whether the user had this item before, or else an item
  with one of its values of the feature, or neither.
- `drift:feature`: with G_k the values of item k, J_k = |G_k ∩ G_k-1| / |G_k ∪ G_k-1|, the first
  of: start (k = 1), return (more than 30 minutes after k-1), discover (a value in G_k is new to the
  user), stay (J_k ≥ 0.5), drift (J_k > 0), switch. `drift_rated:feature`: and was it rated 4 up?
- `values:feature[:top]`: all values of the item; with `top`, the most frequent ones and "other".
- `value:feature[:top]`: the item's first value, if it is among the most frequent, else "other".
- `quantile:feature[:n]`: in which of n equal shares of the training events the item's first value,
  a number, falls.
- `film_type:feature`: family, documentary or general, by MovieLens' genres.
- `released:feature`: years from the item's release to the event.
- `first_seen:edge,edge,…`: seconds since anybody first had the item; "old" for items that were
  there within the first 24 hours of the log, whose true age is not known.

Labels of event k follow from events up to k: from the user's own, and in `first_seen` from those of
anybody that are no later. What is frequent, and where quantiles lie, is counted in training events;
where noise was put into inputs, this and `first_seen` follow from the events without it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from datamodules.errors import RequestError
from datamodules.event_arrays import (
    Bools,
    EventArrays,
    Ints,
    first_events,
    most_frequent,
    shared_with_previous,
)
from datamodules.prepared import PreparedDataset

RETURN_GAP = 1800
"""Seconds: an event that comes later than this after the one before is a return."""

DAY = 86400
LIKED = 4.0
DRIFTS = ("start", "return", "discover", "stay", "drift", "switch")
FILM_TYPES = ("family", "documentary", "general")
FAMILY = ("Animation", "Children's", "Children")  # the latter in MovieLens 20M and later
DOCUMENTARY = ("Documentary",)
AGES = (0, 1, 4, 9, 19)  # last year of each bucket
AGE_NAMES = ("0 or less", "1", "2-4", "5-9", "10-19", "20 or more", "unknown")

MAX_BEHAVIOURS = 16
DEFAULT_TOP = 100
DEFAULT_QUANTILES = 5


class Labels(NamedTuple):
    """What a rule gives.

    Attributes:
        names: of the d labels, "" where one is not used.
        labels: (E,) int64, -1 where the event is never a target; or (V + 1, d) bool by item.
        codes: (E,) int64, label + 1 as an input, 0 where the rule cannot tell; None by item.
        inputs_only: labels that are never targets.
    """

    names: tuple[str, ...]
    labels: Ints | Bools
    codes: Ints | None
    inputs_only: tuple[int, ...] = ()


def label_count(rule: str) -> int:
    """d, the number of labels that a rule can give, whatever the dataset.

    Raises:
        RequestError: the rule is unknown or malformed.

    >>> label_count("drift:genre"), label_count("first_seen:3600,86400")
    (6, 4)
    """
    name, argument = _parse(rule)
    match name:
        case "values" | "value":
            return (_feature_and_number(rule, argument)[1] or DEFAULT_TOP) + 2
        case "quantile":
            return (_feature_and_number(rule, argument)[1] or DEFAULT_QUANTILES) + 1
        case "first_seen":
            return len(_edges(rule, argument)) + 2
    return _RULES[name].size


def apply_rule(dataset: PreparedDataset, rule: str) -> Labels:
    """The labels that a rule gives a dataset.

    Raises:
        RequestError: the rule is unknown or malformed, or the dataset lacks what it needs.
    """
    name, argument = _parse(rule)
    size = label_count(rule)
    found = _RULES[name].apply(EventArrays(dataset, rule), argument)
    return found._replace(names=found.names + ("",) * (size - len(found.names)))


# Rules ----------------------------------------------------------------------------------------


def _behaviour(source: EventArrays, _: str) -> Labels:
    actions, names = source.actions(MAX_BEHAVIOURS)
    return Labels(names, actions, actions + 1)


def _behaviour_familiar(source: EventArrays, feature: str) -> Labels:
    actions, names = source.actions(MAX_BEHAVIOURS)
    event = np.arange(len(source.items))
    had_item = first_events(source.users, source.items, event) < event
    had_value = np.zeros(len(event), dtype=bool)
    if feature:
        owner, value = source.feature(feature).distinct().of_events(source.items)
        had_value[owner[first_events(source.users[owner], value, owner) < owner]] = True
    labels = actions * 3 + np.where(had_item, 0, np.where(had_value, 1, 2))
    states = (", item seen", f", {feature} seen" if feature else "", ", new")
    return Labels(
        tuple(state and name + state for name in names for state in states), labels, labels + 1
    )


def _drift(source: EventArrays, feature: str) -> Labels:
    seconds, values = source.timestamps(), source.feature(feature).distinct()
    event, value = values.of_events(source.items)
    discover = np.zeros(len(seconds), dtype=bool)
    discover[event[first_events(source.users[event], value, event) == event]] = True
    shared = shared_with_previous(event, value, source.start, len(values.names))
    count = np.bincount(event, minlength=len(seconds))
    union = count + np.append(0, count[:-1]) - shared
    late = np.diff(seconds, prepend=0) > RETURN_GAP
    rules = [source.start, late, discover, 2 * shared >= union, shared > 0]
    labels = np.select(rules, list(range(5)), 5)
    untold = (count == 0) & (labels > 1)  # of an item without values only the gap can tell
    codes = np.where(untold, 0, labels + 1)
    return Labels(DRIFTS, np.where(codes > 1, labels, -1), codes, (0,))


def _drift_rated(source: EventArrays, feature: str) -> Labels:
    ratings = source.ratings()
    codes = _drift(source, feature).codes
    assert codes is not None  # noqa: S101 (events have them)
    codes = np.where(np.isnan(ratings) | (codes == 0), 0, 2 * codes - (ratings < LIKED))
    names = tuple(f"{name}, {how}" for name in DRIFTS for how in ("disliked", "liked"))
    return Labels(names, np.where(codes > 2, codes - 1, -1), codes, (0, 1))


def _values(source: EventArrays, argument: str) -> Labels:
    feature, top = _feature_and_number(source.rule, argument)
    values = source.feature(feature).distinct()
    if top is None and len(values.names) > DEFAULT_TOP:
        source.refuse(
            f"{feature!r} has {len(values.names)} values, at most {DEFAULT_TOP}; "
            f"{source.rule}:{DEFAULT_TOP} keeps the most frequent"
        )
    top = top or DEFAULT_TOP
    counted = source.clean
    occurrences = values.of_events(counted.items[counted.training])[1]
    number, names = most_frequent(occurrences, values.names, top)
    labels = np.zeros((len(values.offsets) - 1, top + 2), dtype=bool)
    labels[values.items, number[values.codes]] = True
    return Labels(names, labels, None)


def _value(source: EventArrays, argument: str) -> Labels:
    feature, top = _feature_and_number(source.rule, argument)
    top = top or DEFAULT_TOP
    values = source.feature(feature)
    value, counted = values.first()[source.items], source.clean
    occurrences = values.first()[counted.items[counted.training]]
    occurrences = occurrences[occurrences >= 0]
    number, names = most_frequent(occurrences, values.names, top)
    labels = np.append(number, top + 1)[value]  # none is -1, the last
    names += ("",) * (top + 1 - len(names))
    return _partly_known((*names, "none"), labels, top + 1)


def _quantile(source: EventArrays, argument: str) -> Labels:
    feature, shares = _feature_and_number(source.rule, argument)
    shares = shares or DEFAULT_QUANTILES
    numbers = source.numbers(feature)
    counted = source.clean.numbers(feature)
    known = counted[source.clean.training & ~np.isnan(counted)]
    if not len(known):
        source.refuse(f"no training event has a {feature!r}")
    edges = np.quantile(known, np.arange(1, shares) / shares)
    labels = np.where(np.isnan(numbers), shares, np.searchsorted(edges, numbers))
    names = (*(f"up to {edge:g}" for edge in edges), "more", "unknown")
    return _partly_known(names, labels, shares)


def _film_type(source: EventArrays, feature: str) -> Labels:
    values = source.feature(feature)
    family = np.isin(values.names, FAMILY)[values.codes]
    documentary = np.isin(values.names, DOCUMENTARY)[values.codes]
    if not (family.any() or documentary.any()):
        source.refuse(f"{feature!r} has none of: {', '.join(FAMILY + DOCUMENTARY)}")
    labels = np.full(len(values.offsets) - 1, -1)
    for label, mask in ((2, slice(None)), (1, documentary), (0, family)):
        labels[values.items[mask]] = label
    labels = labels[source.items]
    return Labels(FILM_TYPES, labels, labels + 1)


def _released(source: EventArrays, feature: str) -> Labels:
    seconds, years = source.timestamps(), source.numbers(feature, 1000, 3000)
    now = seconds.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970
    unknown = len(AGES) + 1
    labels = np.where(np.isnan(years), unknown, np.searchsorted(AGES, now - years))
    return _partly_known(AGE_NAMES, labels, unknown)


def _first_seen(source: EventArrays, argument: str) -> Labels:
    seconds, edges = source.timestamps(), _edges(source.rule, argument)
    first = np.full(source.dataset.n_items + 1, np.iinfo(np.int64).max)
    log = source.clean.timestamps()
    np.minimum.at(first, source.clean.items, log)
    since = first[source.items]  # without noise never later than the event, one with the item
    old = since <= log.min() + DAY
    labels = np.where(old, len(edges) + 1, np.searchsorted(edges, seconds - since))
    names = (*(f"up to {edge} s" for edge in edges), f"over {edges[-1]} s", "old")
    return Labels(names, labels, labels + 1)


def _partly_known(names: tuple[str, ...], labels: Ints, unknown: int) -> Labels:
    """Labels of which one, `unknown`, is an input only."""
    return Labels(names, np.where(labels == unknown, -1, labels), labels + 1, (unknown,))


# Rules as text --------------------------------------------------------------------------------


class _Rule(NamedTuple):
    """What applies a rule, how many labels it gives (0: its argument tells), how it is written."""

    apply: Callable[[EventArrays, str], Labels]
    size: int
    form: str


_RULES = {
    "behaviour": _Rule(_behaviour, MAX_BEHAVIOURS, "behaviour"),
    "behaviour_familiar": _Rule(
        _behaviour_familiar, 3 * MAX_BEHAVIOURS, "behaviour_familiar[:feature]"
    ),
    "drift": _Rule(_drift, len(DRIFTS), "drift:feature"),
    "drift_rated": _Rule(_drift_rated, 2 * len(DRIFTS), "drift_rated:feature"),
    "values": _Rule(_values, 0, "values:feature[:number]"),
    "value": _Rule(_value, 0, "value:feature[:number]"),
    "quantile": _Rule(_quantile, 0, "quantile:feature[:number]"),
    "film_type": _Rule(_film_type, len(FILM_TYPES), "film_type:feature"),
    "released": _Rule(_released, len(AGE_NAMES), "released:feature"),
    "first_seen": _Rule(_first_seen, 0, "first_seen:seconds,seconds,…"),
}


def _parse(rule: str) -> tuple[str, str]:
    """Name and argument of a rule whose form is right."""
    name, colon, argument = rule.partition(":")
    if name not in _RULES:
        raise RequestError(f"intent rule {rule}: unknown; known: {', '.join(_RULES)}")
    form = _RULES[name].form
    needed, allowed = ":" in form and "[:f" not in form, ":" in form
    if (needed and not argument) or (colon and not (allowed and argument)):
        raise RequestError(f"intent rule {rule}: it is written {form}")
    return name, argument


def _feature_and_number(rule: str, argument: str) -> tuple[str, int | None]:
    feature, colon, text = argument.partition(":")
    if not colon:
        return feature, None
    if not text.isdecimal() or int(text) < 1:
        raise RequestError(f"intent rule {rule}: {text!r} is no whole number above 0")
    return feature, int(text)


def _edges(rule: str, argument: str) -> list[int]:
    texts = argument.split(",")
    if not all(text.isdecimal() for text in texts) or sorted({*map(int, texts)}) != [
        *map(int, texts)
    ]:
        raise RequestError(f"intent rule {rule}: {argument!r} are no rising whole seconds")
    return [*map(int, texts)]
