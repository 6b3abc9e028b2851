"""Noise in what a recommender is shown: events swapped, inserted, deleted or shuffled.

Targets stay clean and stay where they are. What is drawn depends on the noise alone, never on a
method, and a higher rate keeps what a lower one of the same seed did (but for `shuffle`). All is
flat arithmetic on rows of events; there is no loop over users.

Noise strikes a whole history, not the window of a method: methods with other windows are shown the
same events.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.prepared import TEST, TRAIN, VALID, PreparedDataset
from datamodules.rows import Ints

Floats = NDArray[np.float64]
Kind = Literal["swap", "insert", "delete", "shuffle"]
Rounding = Literal["floor", "stochastic"]

KINDS: tuple[str, ...] = get_args(Kind)
ROUNDINGS: tuple[str, ...] = get_args(Rounding)


@dataclass(frozen=True)
class Noise:
    """What is done to inputs.

    Of n inputs of a user, rate · n are touched, rounded.

    Attributes:
        kind: "swap" puts another item in the place of one; "insert" adds an item before, between
            or after the inputs; "delete" takes one out, but never the last that is left; "shuffle"
            exchanges two neighbours (two inputs touched), and none is moved twice. Items from
            outside are uniform over those that the user does not have.
        rate: share of the inputs, 0 to 1.
        rounding: "floor" rounds down, so that short histories stay as they are; "stochastic" up or
            down by chance, so that the mean over users is the rate.
        seed: of everything that is drawn.
    """

    kind: Kind
    rate: float
    rounding: Rounding = "floor"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("rounding", ROUNDINGS)):
            if (given := getattr(self, name)) not in allowed:
                raise RequestError(f"noise: no {name} {given!r}; allowed: {', '.join(allowed)}")
        if not 0 <= self.rate <= 1:
            raise RequestError(f"noise: rate {self.rate:g}: must lie between 0 and 1")
        if self.seed < 0:
            raise RequestError(f"noise: seed {self.seed}: must not be negative")

    def generator(self, *more: int) -> np.random.Generator:
        """A fresh generator; it depends on the kind and the seed, not on the rate."""
        return np.random.default_rng([self.seed, KINDS.index(self.kind), *more])

    def budget(self, counts: Ints, generator: np.random.Generator) -> Ints:
        """How many edits each row gets, (R,): of `shuffle`, each touches two of its inputs."""
        exact = self.rate * counts / (2 if self.kind == "shuffle" else 1)
        up = generator.random(len(counts)) if self.rounding == "stochastic" else 1e-9
        most = {"delete": np.maximum(counts - 1, 0), "shuffle": counts // 2}.get(self.kind, counts)
        budget: Ints = np.minimum(np.floor(exact + up).astype(np.int64), most)
        return budget


@dataclass(frozen=True)
class Edit:
    """Rows of events after noise, flat.

    Attributes:
        counts: (R,) events of each row now.
        source: (M,) the input whose item stands here.
        place: (M,) the input whose time and split hold here: its own, but for `shuffle`.
        draw: (M,) uniform in [0, 1) where an item from outside stands instead, else -1.
        rows: (M,) row of each.
        touched: how many inputs were swapped, added, taken out or moved.
    """

    counts: Ints
    source: Ints
    place: Ints
    draw: Floats
    rows: Ints
    touched: int


def plan_edit(counts: Ints, noise: Noise, generator: np.random.Generator) -> Edit:
    """Decide what happens to rows of inputs that stand one after the other.

    Args:
        counts: (R,) inputs of each row.
        noise: what to do.
        generator: draws come from it, as many at any rate.
    """
    budget = noise.budget(counts, generator)
    total, rows = int(counts.sum()), np.repeat(np.arange(len(counts)), counts)
    own, touched = np.arange(total), int(budget.sum())
    if noise.kind == "insert":
        return _insertion(counts, budget, generator)
    if noise.kind == "shuffle":
        source = _exchange(counts, budget, generator.random(total))
        return Edit(counts, source, own, np.full(total, -1.0), rows, 2 * touched)
    chosen = _choose(counts, budget, generator.random(total))
    if noise.kind == "swap":
        draw = np.where(chosen, generator.random(total), -1.0)
        return Edit(counts, own, own, draw, rows, touched)
    kept = own[~chosen]
    return Edit(counts - budget, kept, kept, np.full(len(kept), -1.0), rows[kept], touched)


def _insertion(counts: Ints, budget: Ints, generator: np.random.Generator) -> Edit:
    """New events before, between and after the inputs, one a gap; each copies the one before it."""
    gaps, starts = counts + 1, np.cumsum(counts) - counts
    rows = np.repeat(np.arange(len(gaps)), gaps)
    column = np.arange(len(rows)) - (starts + np.arange(len(gaps)))[rows]
    chosen = _choose(gaps, budget, generator.random(len(rows)))
    draw = generator.random(len(rows))[chosen]
    rows, column = rows[chosen], column[chosen]
    own = np.arange(int(counts.sum()))
    # gap c of a row comes before its input c: even numbers for gaps, odd ones for inputs
    order = np.argsort(np.concatenate([2 * (starts[rows] + column), 2 * own + 1]), kind="stable")
    source = np.concatenate([starts[rows] + np.maximum(column - 1, 0), own])[order]
    fresh = np.concatenate([draw, np.full(len(own), -1.0)])[order]
    after = np.concatenate([rows, np.repeat(np.arange(len(counts)), counts)])[order]
    return Edit(counts + budget, source, source, fresh, after, len(draw))


def _exchange(counts: Ints, pairs: Ints, uniform: Floats) -> Ints:
    """Where each input comes from once disjoint pairs of neighbours have changed places, (E,).

    A row with m pairs is a row of n - m tiles, m of them two wide: choosing which are gives every
    set of m disjoint pairs with the same chance.
    """
    tiles, starts = counts - pairs, np.cumsum(counts) - counts
    rows = np.repeat(np.arange(len(counts)), counts)
    column = np.arange(len(rows)) - starts[rows]
    is_tile = column < tiles[rows]
    wide = _choose(tiles, pairs, uniform[is_tile])
    before = np.cumsum(wide) - wide - (np.cumsum(pairs) - pairs)[rows[is_tile]]
    first = (starts[rows] + column)[is_tile][wide] + before[wide]
    source = np.arange(len(rows))
    source[first], source[first + 1] = first + 1, first
    return source


def _choose(counts: Ints, budget: Ints, uniform: Floats) -> NDArray[np.bool_]:
    """Choose so many places of each row, those with the smallest numbers."""
    rows = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    chosen = np.empty(len(rows), dtype=np.bool_)
    chosen[np.lexsort((uniform, rows))] = rank < budget[rows]
    return chosen


@dataclass(frozen=True, kw_only=True)
class NoisyDataset(PreparedDataset):
    """A dataset with noise in its inputs.

    Attributes:
        clean: the same without. What is counted over all events is counted there, else a trained
            model would meet other numbers for the same labels.
    """

    clean: PreparedDataset


def without_noise(dataset: PreparedDataset) -> PreparedDataset:
    """The clean dataset; itself where no noise was put in."""
    return dataset.clean if isinstance(dataset, NoisyDataset) else dataset


class Outside:
    """Items that a user does not have, by number: no draw is ever rejected.

    Args:
        users: (E,) user of each event.
        items: (E,) its item.
        n_users: N.
        n_items: V.
    """

    def __init__(self, users: Ints, items: Ints, n_users: int, n_items: int) -> None:
        self.stride = n_items + 1
        user, item = np.divmod(np.unique(users * self.stride + items), self.stride)
        self.first = np.searchsorted(user, np.arange(n_users + 1))
        self.free = n_items - np.diff(self.first)
        # a user's items by how many smaller ones the user does not have
        self.keys = user * self.stride + item - 1 - (np.arange(len(user)) - self.first[user])

    def draw(self, users: Ints, uniform: Floats) -> Ints:
        """Items uniform over those that each user does not have.

        Args:
            users: (T,).
            uniform: (T,) in [0, 1).

        Returns:
            (T,) items in 1..V.

        Raises:
            RequestError: a user has the whole catalogue.
        """
        free = self.free[users]
        if (free == 0).any():
            raise RequestError("noise: a user has every item; none is left to put in")
        number = np.minimum((uniform * free).astype(np.int64), free - 1)
        smaller = np.searchsorted(self.keys, users * self.stride + number, side="right")
        found: Ints = number + 1 + smaller - self.first[users]
        return found


def perturb(dataset: PreparedDataset, noise: Noise) -> tuple[NoisyDataset, float]:
    """Put noise into what is known of each user at test time.

    Inputs are the training and validation events of users who have a test target (the training
    events alone where the dataset's histories are of training). Items that come in are none of
    the user's, the targets included. An event that comes in has the time, split, session, action
    and rating of the one before it (at the beginning: after it); a swapped one keeps its own; of
    exchanged ones item, action and rating move, time, split and session stay in order.

    Args:
        dataset: is left as it is.
        noise: what to do.

    Returns:
        A dataset with the same users, items and test targets, to be ranked only; and the realised
        share: inputs touched of all inputs. Its statistics are those of the clean data, and
        planted truth is left out.

    Raises:
        RequestError: a user has several test targets of which one is an input of the next, or has
            every item.
    """
    offsets, items = dataset.offsets.numpy(), dataset.items.numpy().astype(np.int64)
    counts = _input_counts(dataset)
    known = np.repeat(np.arange(len(counts)), np.diff(offsets))
    column = np.arange(len(items)) - offsets[known]
    is_input = column < counts[known]
    inputs, rest = np.flatnonzero(is_input), np.flatnonzero(~is_input)
    edit = plan_edit(counts, noise, noise.generator())
    fresh = edit.draw >= 0
    drawn = items[inputs][edit.source]
    outside = Outside(known, items, dataset.n_users, dataset.n_items)
    drawn[fresh] = outside.draw(edit.rows[fresh], edit.draw[fresh])
    # a user's inputs, then the user's other events
    order = np.argsort(np.concatenate([edit.rows, known[rest]]), kind="stable")
    source = np.concatenate([inputs[edit.source], rest])[order]
    place = np.concatenate([inputs[edit.place], rest])[order]
    grown = np.concatenate([[0], np.cumsum(edit.counts - counts)])
    moved = np.concatenate([drawn, items[rest]])[order]
    as_it_was = {one.name: getattr(dataset, one.name) for one in fields(PreparedDataset)}
    changed = {
        "meta": replace(
            dataset.meta,
            fingerprint=hashlib.sha256(f"{dataset.fingerprint} {noise}".encode()).hexdigest(),
            notes=(*dataset.meta.notes, f"inputs of the test targets have noise: {noise}"),
        ),
        "items": torch.from_numpy(moved).to(dataset.items.dtype),
        "split": dataset.split[torch.from_numpy(place)],
        "offsets": torch.from_numpy(offsets + grown),
        "timestamps": _taken(dataset.timestamps, place),
        "actions": _taken(dataset.actions, source),
        "ratings": _taken(dataset.ratings, source),
        "sessions": _taken(dataset.sessions, place),
        "features": {n: values for n, values in dataset.features.items() if n[:6] != "truth."},
    }
    noisy = NoisyDataset(**(as_it_was | changed), clean=without_noise(dataset))
    return noisy, edit.touched / max(len(inputs), 1)


def _input_counts(dataset: PreparedDataset) -> Ints:
    """How many of each user's events are inputs of the user's test targets, (N,)."""
    offsets, split = dataset.offsets.numpy(), dataset.split.numpy()

    def count(events: NDArray[np.bool_]) -> Ints:
        before = np.concatenate([[0], np.cumsum(events)])
        found: Ints = before[offsets[1:]] - before[offsets[:-1]]
        return found

    targets = count(split == TEST)
    if dataset.meta.history == "successive" and (targets > 1).any():
        raise RequestError(
            f"{dataset.meta.name}: noise needs test targets that are no inputs of others; here "
            f"{int((targets > 1).sum())} users have several; split by leave-one-out"
        )
    last = TRAIN if dataset.meta.history == "train" else VALID
    return np.where(targets > 0, count(split <= last), 0)


def _taken(values: Tensor | None, rows: Ints) -> Tensor | None:
    return None if values is None else values[torch.from_numpy(rows)]
