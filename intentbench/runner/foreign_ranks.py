"""Ranks of test targets from what another system says of them: lists with scores, or ranks.

Everything is arithmetic on flat arrays, and no loop runs over users. The rule for ranks is that of
`intentbench.metrics.ranks`; scores are compared as they are, in float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.prepared import TEST, PreparedDataset
from datamodules.rows import evaluation_queries
from intentbench.metrics.users import metric_names
from intentbench.runner.foreign_rows import ForeignRows, Ints


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What is to be ranked: every test event of a dataset, by user and then by place.

    Attributes:
        user: (T,) row of the user.
        key: (T,) position of the target among the user's events.
        item: (T,) the item.
        stop: (T,) one past the last event that is known before the target.
        masked: (T,) whether the target itself is no candidate.
        candidates: (T,) number of candidates.
        n_users: N.
        n_items: V.
        mask_history: whether what the user had is no candidate.
        history: what stands before a target, see `datamodules.prepared.Meta`.
        pairs: (P,) every user-item pair of the events as one number, rising.
        first: (P,) the event in which the pair comes up first.
    """

    user: Ints
    key: Ints
    item: Ints
    stop: Ints
    masked: NDArray[np.bool_]
    candidates: Ints
    n_users: int
    n_items: int
    mask_history: bool
    history: str
    pairs: Ints
    first: Ints

    def pair(self, user: Ints, item: Ints) -> Ints:
        """A user and an item as one number."""
        return user * (self.n_items + 1) + item

    def had_before(self, user: Ints, item: Ints, stop: Ints) -> NDArray[np.bool_]:
        """Whether the user had the item before event `stop`."""
        wanted = self.pair(user, item)
        at = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        before: NDArray[np.bool_] = (self.pairs[at] == wanted) & (self.first[at] < stop)
        return before


@dataclass(frozen=True, eq=False)
class ForeignRanks:
    """The ranks of all targets, and what was done to get them.

    Attributes:
        rank: (T,) in the order of the targets.
        depth: shortest list of a user with a target that is not listed; 0 where every rank is
            known.
        unlisted: targets that are not listed, at rank V.
        history: rows left out because the user had the item.
        others: rows left out because their user has no test target.
        masked: targets at rank V because the user had the item.
        cut_ties: targets that score the same as others at the end of a list that was cut off.
    """

    rank: Ints
    depth: int = 0
    unlisted: int = 0
    history: int = 0
    others: int = 0
    masked: int = 0
    cut_ties: int = 0


def find_targets(dataset: PreparedDataset, mask_history: bool) -> HeldOut:
    """Every test target of a dataset.

    Args:
        dataset: prepared.
        mask_history: whether ranking excludes what the user had.

    Raises:
        RequestError: there is none.
    """
    offsets, items = dataset.offsets.numpy(), dataset.items.numpy().astype(np.int64)
    history, n_items = dataset.meta.history, dataset.n_items
    queries = evaluation_queries(offsets, dataset.split.numpy(), TEST, history)
    if not len(queries):
        raise RequestError(f"{dataset.meta.name}: has no test targets")
    owners = np.repeat(np.arange(dataset.n_users), np.diff(offsets))
    pairs, first, which = np.unique(
        owners * (n_items + 1) + items, return_index=True, return_inverse=True
    )
    # What is known before a target are always the user's first events.
    new = np.concatenate([[0], np.cumsum(first[which] == np.arange(len(items)))])
    known = new[queries.stop] - new[offsets[queries.users]]
    return HeldOut(
        user=queries.users,
        key=queries.target - offsets[queries.users],
        item=items[queries.target],
        stop=queries.stop,
        masked=(first[which[queries.target]] < queries.stop) & mask_history,
        candidates=n_items - known * mask_history,
        n_users=dataset.n_users,
        n_items=n_items,
        mask_history=mask_history,
        history=history,
        pairs=pairs,
        first=first,
    )


def _check_together(rows: ForeignRows, targets: HeldOut, rank: NDArray[np.int64]) -> None:
    """Refuse ranks of a user's targets that cannot be beside one another.

    Targets that are asked for at once are candidates of one another: where m of them share a rank
    and c have lower ones, that rank is at least 1 + c + m // 2, as ties count half.
    """
    open_ = np.flatnonzero(~targets.masked)
    order = open_[np.lexsort((rank[open_], targets.stop[open_], targets.user[open_]))]
    query = np.stack([targets.user[order], targets.stop[order]])
    opens_query = np.ones(len(order), dtype=bool)
    opens_query[1:] = (np.diff(query) != 0).any(axis=0)
    opens_rank = opens_query.copy()
    opens_rank[1:] |= np.diff(rank[order]) != 0
    starts = np.flatnonzero(opens_rank)
    sharing = np.diff(starts, append=len(order))
    lower = starts - np.flatnonzero(opens_query)[np.cumsum(opens_query)[starts] - 1]
    wrong = np.flatnonzero(rank[order][starts] < 1 + lower + sharing // 2)
    if len(wrong):
        at = order[starts[wrong[0]]]
        raise RequestError(
            f"{rows.where}: rank {rank[at]} of "
            f"{rows.name_pair(targets.user[at], targets.item[at])} cannot be beside the ranks of "
            "the user's other targets, which are candidates too"
        )


def ranks_from_ranks(rows: ForeignRows, targets: HeldOut) -> ForeignRanks:
    """Put the ranks of a file in the order of the targets.

    A user's targets that are the same item have a row each, in their order in time.

    Raises:
        RequestError: a target is missing or there too often, a row is about none, or a rank
            cannot be one.
    """
    given, asked = targets.pair(rows.user, rows.item), targets.pair(targets.user, targets.item)
    _match(rows, targets, given, asked)
    rank = np.empty(len(asked), dtype=np.int64)
    rank[np.argsort(asked, kind="stable")] = rows.value[np.argsort(given, kind="stable")]
    beyond = np.flatnonzero((rank < 1) | ((rank > targets.candidates) & ~targets.masked))
    if len(beyond):
        at = beyond[0]
        pair = rows.name_pair(targets.user[at], targets.item[at])
        raise RequestError(
            f"{rows.where}: {len(beyond):,} ranks cannot be; the first is {rank[at]} of {pair}, "
            f"which has {targets.candidates[at]:,} candidates, counted from 1"
            + (" and without what the user had before" if targets.mask_history else "")
        )
    _check_together(rows, targets, rank)
    rank[targets.masked] = targets.n_items
    return ForeignRanks(rank, masked=int(targets.masked.sum()))


def ranks_from_lists(rows: ForeignRows, targets: HeldOut) -> ForeignRanks:
    """Rank every target by its score in its user's list.

    A target that is not listed ranks last, at V: its true rank is not known, and this one is not
    better. Likewise, where it scores the same as others at the end of a list that was cut off,
    all that was cut off counts as equal. What the user had before is left out, as the suite
    leaves it out.

    Raises:
        RequestError: a user is missing, or has a list that is too short; an item is listed twice;
            a score is not finite; or targets of one user would need a list each.
    """
    _refuse_several_lists(rows.where, targets)
    _refuse_repeats(rows, targets.pair(rows.user, rows.item))
    stop = np.full(targets.n_users, -1)
    stop[targets.user] = targets.stop
    asked = stop[rows.user] >= 0
    had = asked & targets.had_before(rows.user, rows.item, stop[rows.user]) & targets.mask_history
    kept = np.flatnonzero(asked & ~had)
    _refuse_infinite(rows, kept)
    counts = np.bincount(rows.user[kept], minlength=targets.n_users)
    _refuse_short(rows, targets, counts)

    order = kept[np.lexsort((-rows.value[kept], rows.user[kept]))]
    higher, equal = _places(rows.user[order], rows.value[order], counts)
    listed, at = _find(
        targets.pair(rows.user[order], rows.item[order]), targets.pair(targets.user, targets.item)
    )
    listed &= ~targets.masked
    length = counts[targets.user]
    last = listed & (equal[at] > 1) & (higher[at] + equal[at] == length)
    equal_or_cut = equal[at] + last * (targets.candidates - length)
    rank = np.where(listed, 1 + (2 * higher[at] + equal_or_cut) // 2, targets.n_items)
    unlisted = ~listed & ~targets.masked
    return ForeignRanks(
        rank=rank,
        depth=int(length[unlisted].min()) if unlisted.any() else 0,
        unlisted=int(unlisted.sum()),
        history=int(had.sum()),
        others=int((~asked).sum()),
        masked=int(targets.masked.sum()),
        cut_ties=int((last & (length < targets.candidates)).sum()),
    )


def _places(
    user: Ints, score: NDArray[np.float64], counts: Ints
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the same user that score higher, and as high (the row itself included).

    Args:
        user: (R,) rising.
        score: (R,) falling within a user.
        counts: (N,) rows of each user.
    """
    opens = np.ones(len(user), dtype=bool)
    opens[1:] = (user[1:] != user[:-1]) | (score[1:] != score[:-1])
    group = np.cumsum(opens) - 1
    starts = np.flatnonzero(opens)
    sizes = np.diff(starts, append=len(user))
    begin = np.cumsum(counts) - counts
    return starts[group] - begin[user], sizes[group]


def _find(pairs: Ints, wanted: Ints) -> tuple[NDArray[np.bool_], Ints]:
    """Whether each wanted pair is there, and where (anywhere, where it is not)."""
    order = np.argsort(pairs)
    at = order[np.minimum(np.searchsorted(pairs, wanted, sorter=order), len(pairs) - 1)]
    return pairs[at] == wanted, at


def _match(rows: ForeignRows, targets: HeldOut, given: Ints, asked: Ints) -> None:
    """Refuse rows that are not one a target."""
    pairs = np.union1d(given, asked)
    have, need = (
        np.bincount(np.searchsorted(pairs, found), minlength=len(pairs)) for found in (given, asked)
    )

    def first(wrong: NDArray[np.bool_]) -> str:
        user, item = divmod(int(pairs[wrong][0]), targets.n_items + 1)
        return rows.name_pair(user, item)

    if (missing := have < need).any():
        users = np.unique(pairs[missing] // (targets.n_items + 1))
        raise RequestError(
            f"{rows.where}: {(need - have)[missing].sum():,} of {len(asked):,} test targets have "
            f"no rank, those of {rows.name_users(users)}; the first is {first(missing)}"
        )
    if (idle := need == 0).any():
        raise RequestError(
            f"{rows.where}: {have[idle].sum():,} rows are about no test target; the first is "
            f"{first(idle)}; was another split used?"
        )
    if (twice := have > need).any():
        raise RequestError(f"{rows.where}: {first(twice)}: ranked {have[twice][0]} times")


def _refuse_several_lists(where: str, targets: HeldOut) -> None:
    same_user = np.diff(targets.user) == 0
    if (same_user & (np.diff(targets.stop) != 0)).any():
        raise RequestError(
            f"{where}: users have several test targets here, each after a history of its own, "
            "which one list cannot answer; give their ranks, --kind ranks"
        )


def _refuse_repeats(rows: ForeignRows, pairs: Ints) -> None:
    ordered = np.sort(pairs)
    if (same := ordered[1:] == ordered[:-1]).any():
        user, item = divmod(int(ordered[1:][same][0]), len(rows.items) + 1)
        raise RequestError(
            f"{rows.where}: {same.sum():,} items are listed twice; the first are "
            f"{rows.name_pair(user, item)}"
        )


def _refuse_infinite(rows: ForeignRows, kept: Ints) -> None:
    wrong = kept[~np.isfinite(rows.value[kept])]
    if len(wrong):
        at = wrong[0]
        raise RequestError(
            f"{rows.where}: {len(wrong):,} scores are not finite; the first is {rows.value[at]}, "
            f"of {rows.name_pair(rows.user[at], rows.item[at])}"
        )


def _refuse_short(rows: ForeignRows, targets: HeldOut, counts: Ints) -> None:
    """Refuse users without a list, and lists that do not give the published metrics."""
    there = np.zeros(targets.n_users, dtype=bool)
    there[rows.user] = True
    absent = np.unique(targets.user[~there[targets.user]])
    if len(absent):
        raise RequestError(f"{rows.where}: no list of {rows.name_users(absent)} with a test target")
    deepest = max(int(k) for name in metric_names(targets.history) if (k := name.partition("@")[2]))
    short = counts[targets.user] < np.minimum(deepest, targets.candidates)
    if short.any():
        after = ", once what the user had before is left out" if targets.mask_history else ""
        raise RequestError(
            f"{rows.where}: lists of {rows.name_users(np.unique(targets.user[short]))} have fewer "
            f"than {deepest} items{after}; metrics @{deepest} need as many"
        )
