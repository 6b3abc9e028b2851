"""Ranks from files of other systems, against plain loops and against the suite's own rule."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import RequestError
from datamodules.prepare import HISTORY
from datamodules.prepared import TEST, TRAIN, VALID, Meta, PreparedDataset
from datamodules.sequence import SequenceDataModule
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.runner.foreign_ranks import (
    HeldOut,
    find_targets,
    ranks_from_lists,
    ranks_from_ranks,
)
from intentbench.runner.foreign_rows import ForeignRows

V = 30
Events = list[tuple[list[int], list[int], list[int]]]


def _dataset(users: Events, split: str = "leave_one_out", n_items: int = V) -> PreparedDataset:
    """Of each user's training, validation and test items."""
    codes = (TRAIN, VALID, TEST)
    items = [item for user in users for part in user for item in part]
    split_ = [code for user in users for code, part in zip(codes, user, strict=True) for _ in part]
    lengths = [sum(map(len, user)) for user in users]
    meta = Meta(
        name="toy",
        fingerprint="f00d",
        recipe={"split": split},
        history=HISTORY[split],
        statistics={"items": n_items},
        sources={},
    )
    return PreparedDataset(
        meta,
        torch.tensor(items, dtype=torch.int32),
        torch.tensor(split_, dtype=torch.uint8),
        torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64),
    )


def _rows(user: Any, item: Any, value: Any, n_users: int = 9) -> ForeignRows:
    return ForeignRows(
        "file",
        np.asarray(user, dtype=np.int64),
        np.asarray(item, dtype=np.int64),
        np.asarray(value, dtype=np.float64),
        [f"u{n}" for n in range(n_users)],
        [f"i{n}" for n in range(1, V + 1)],
    )


def _slow_rank(target: int, had: set[int], listed: dict[int, float], mask: bool) -> int:
    """The rule, read aloud."""
    if mask and target in had:
        return V
    candidates = {i: s for i, s in listed.items() if not (mask and i in had)}
    if target not in candidates:
        return V
    cut = V - (len(had) if mask else 0) - len(candidates)
    own = candidates.pop(target)
    higher = sum(score > own for score in candidates.values())
    equal = sum(score == own for score in candidates.values())
    if equal and own <= min(candidates.values()):
        equal += cut  # whatever was cut off may score the same
    return 1 + higher + -(-equal // 2)


def _draw_users(rng: np.random.Generator, split: str, count: int) -> Events:
    """Users with repeats; with one target each, or with a set of them."""
    users: Events = []
    for _ in range(count):
        train = rng.integers(1, V + 1, rng.integers(1, 8)).tolist()
        targets = 1 if split == "leave_one_out" else int(rng.integers(0, 4))
        test = rng.choice(np.arange(1, V + 1), targets, replace=False).tolist()
        valid = rng.integers(1, V + 1, 1).tolist()
        users.append((train, valid, test))
    return users


def _draw_lists(
    rng: np.random.Generator, count: int, lengths: tuple[int, int]
) -> list[dict[int, float]]:
    """Lists with many equal scores."""
    return [
        {
            int(item): float(rng.integers(0, 6))
            for item in rng.choice(np.arange(1, V + 1), rng.integers(*lengths), replace=False)
        }
        for _ in range(count)
    ]


def _flat(lists: list[dict[int, float]], rng: np.random.Generator) -> ForeignRows:
    table = [(u, i, s) for u, found in enumerate(lists) for i, s in found.items()]
    table = [table[at] for at in rng.permutation(len(table))]
    user, item, score = zip(*table, strict=True)
    return _rows(user, item, score, n_users=len(lists))


def _histories(users: Events, history: str) -> list[list[int]]:
    return [train if history == "train" else [*train, *valid] for train, valid, _ in users]


@given(
    seed=st.integers(0, 10**6),
    split=st.sampled_from(["leave_one_out", "pre_split", "ratio"]),
    mask=st.booleans(),
    full=st.booleans(),
)
def test_ranks_from_lists_are_those_of_a_plain_loop(
    seed: int, split: str, mask: bool, full: bool
) -> None:
    rng = np.random.default_rng(seed)
    users = [*_draw_users(rng, split, 5), ([1], [2], [3])]
    lists = _draw_lists(rng, len(users), (V, V + 1) if full else (28, V + 1))
    data = _dataset(users, split)
    targets = find_targets(data, mask)
    found = ranks_from_lists(_flat(lists, rng), targets)
    had = [set(items) for items in _histories(users, data.meta.history)]
    wanted, unlisted = [], []
    for user, (_, _, test) in enumerate(users):
        for target in test:
            wanted.append(_slow_rank(target, had[user], lists[user], mask))
            if target not in lists[user] and not (mask and target in had[user]):
                left = [i for i in lists[user] if not (mask and i in had[user])]
                unlisted.append(len(left))
    assert found.rank.tolist() == wanted
    assert found.unlisted == len(unlisted)
    assert found.depth == min(unlisted, default=0)
    dropped = [i for u, listed in enumerate(lists) for i in listed if users[u][2] and i in had[u]]
    assert found.history == (len(dropped) if mask else 0)


@pytest.mark.parametrize("split", ["leave_one_out", "pre_split", "ratio", "global_temporal"])
@pytest.mark.parametrize("mask", [True, False])
def test_full_lists_rank_like_the_suite(split: str, mask: bool) -> None:
    """The same scores through the data module and `ranks_from_scores`."""
    rng = np.random.default_rng(3)
    users = _draw_users(rng, "leave_one_out" if split == "global_temporal" else split, 40)
    data = _dataset(users, split)
    scores = rng.integers(0, 9, (40, V + 1)).astype(np.float32)
    module = SequenceDataModule(data, mask_history=mask, evaluation_batch_size=7)
    own: dict[tuple[int, int], int] = {}
    for batch in module.test_dataloader():
        ranks = ranks_from_scores(torch.from_numpy(scores)[batch.users], batch.target, batch.masked)
        keys = zip(batch.users.tolist(), batch.key.tolist(), strict=True)
        own |= dict(zip(keys, ranks.tolist(), strict=True))
    user, item = np.divmod(np.arange(40 * V), V)
    rows = _rows(user, item + 1, scores[user, item + 1], n_users=40)
    targets = find_targets(data, mask)
    found = ranks_from_lists(rows, targets)
    keys = zip(targets.user.tolist(), targets.key.tolist(), strict=True)
    assert dict(zip(keys, found.rank.tolist(), strict=True)) == own
    assert (found.depth, found.unlisted, found.cut_ties) == (0, 0, 0)

    again = _rows(targets.user, targets.item, found.rank, n_users=40)
    assert ranks_from_ranks(again, targets).rank.tolist() == found.rank.tolist()


def _one_target(**more: Any) -> HeldOut:
    return find_targets(
        _dataset([([1, 2], [3], [4]), ([5], [6], [7])]), **{"mask_history": True, **more}
    )


def _lists(first: dict[int, float]) -> ForeignRows:
    """A list for the first of two users; the second has everything."""
    second = {item: float(item) for item in range(1, V + 1)}
    return _flat([first, second], np.random.default_rng(0))


TWENTY = {item: -float(item) for item in range(4, 24)}


def test_a_target_below_the_end_of_its_list_ranks_last() -> None:
    listed = dict.fromkeys(range(5, 26), 1.0)
    found = ranks_from_lists(_lists(listed), _one_target())
    assert found.rank.tolist()[0] == V
    assert (found.unlisted, found.depth, found.cut_ties) == (1, 21, 0)


def test_ties_at_the_end_of_a_cut_list_are_counted() -> None:
    found = ranks_from_lists(_lists(TWENTY | {4: -22.0}), _one_target())
    assert found.rank.tolist()[0] == 1 + 17 + 1
    assert found.cut_ties == 0  # 23 comes after them
    found = ranks_from_lists(_lists(TWENTY | {4: -23.0}), _one_target())
    assert found.rank.tolist()[0] == 1 + 18 + 4  # of 27 candidates, 7 were cut off
    assert found.cut_ties == 1


def test_a_target_that_the_user_had_ranks_last_whatever_its_score() -> None:
    targets = find_targets(_dataset([([4, 2], [3], [4]), ([5], [6], [7])]), True)
    rows = _lists({4: 99.0} | dict.fromkeys(range(5, 29), 1.0))
    found = ranks_from_lists(rows, targets)
    assert found.rank.tolist()[0] == V
    assert (found.masked, found.history, found.unlisted) == (1, 3, 0)
    given = ranks_from_ranks(_rows([0, 1], [4, 7], [1, 3]), targets)
    assert given.rank.tolist() == [V, 3]


def test_rows_of_users_without_a_target_are_left_out() -> None:
    data = _dataset([([1, 2], [3], [4]), ([5, 6], [], [])])
    found = ranks_from_lists(_lists(TWENTY), find_targets(data, True))
    assert (found.rank.tolist(), found.others) == ([1], V)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (_rows(np.zeros(20), range(4, 24), range(20)), ["no list of 1 user ('u1')"]),
        (_lists(TWENTY | {7: np.nan}), ["1 scores are not finite", "nan", "u0", "i7"]),
        (_lists(TWENTY | {7: np.inf}), ["not finite", "inf"]),
        (_lists(dict.fromkeys(range(1, 23), 1.0)), ["1 user ('u0')", "fewer than 20", "had"]),
        (_rows([0, 0], [4, 4], [1, 2]), ["1 items are listed twice", "'u0'", "'i4'"]),
    ],
)  # fmt: skip
def test_lists_that_cannot_be_ranked(rows: ForeignRows, words: list[str]) -> None:
    with pytest.raises(RequestError) as refusal:
        ranks_from_lists(rows, _one_target())
    for word in words:
        assert word in str(refusal.value)


def test_masked_scores_need_not_be_finite() -> None:
    found = ranks_from_lists(_lists(TWENTY | {1: -np.inf, 3: np.nan}), _one_target())
    assert (found.rank.tolist()[0], found.history) == (1, 2 + 2)  # and two of the second user


@pytest.mark.parametrize(
    ("user", "item", "rank", "words"),
    [
        ([0], [4], [1], ["1 of 2 test targets", "no rank", "'u1'", "'i7'"]),
        ([0, 0, 1], [4, 4, 7], [1, 1, 1], ["'u0'", "'i4'", "ranked 2 times"]),
        ([0, 1, 1], [4, 7, 8], [1, 1, 1], ["1 rows", "no test target", "'i8'"]),
        ([0, 1], [4, 7], [0, 1], ["1 ranks cannot be", "0 of", "'u0'"]),
        ([0, 1], [4, 7], [28, 1], ["28 of", "27 candidates", "without what the user had"]),
    ],
)  # fmt: skip
def test_ranks_that_cannot_be(
    user: list[int], item: list[int], rank: list[int], words: list[str]
) -> None:
    with pytest.raises(RequestError) as refusal:
        ranks_from_ranks(_rows(user, item, rank), _one_target())
    for word in words:
        assert word in str(refusal.value)


def test_a_rank_may_be_as_large_as_the_candidates_are_many() -> None:
    rows = _rows([1, 0], [7, 4], [28, 27])
    assert ranks_from_ranks(rows, _one_target()).rank.tolist() == [27, 28]
    rows = _rows([1, 0], [7, 4], [30, 30])
    assert ranks_from_ranks(rows, _one_target(mask_history=False)).rank.tolist() == [30, 30]


def test_targets_that_are_one_item_are_told_apart_by_their_order() -> None:
    data = _dataset([([1], [2], [4, 5, 4])], "global_temporal")
    targets = find_targets(data, False)
    found = ranks_from_ranks(_rows([0, 0, 0], [4, 5, 4], [7, 8, 9]), targets)
    assert found.rank.tolist() == [7, 8, 9]
    assert targets.key.tolist() == [2, 3, 4]


def test_one_list_cannot_answer_for_several_histories() -> None:
    targets = find_targets(_dataset([([1], [2], [4, 5])], "global_temporal"), True)
    with pytest.raises(RequestError, match="--kind ranks"):
        ranks_from_lists(_lists(TWENTY), targets)


def test_a_million_rows_take_no_loop_over_users() -> None:
    """Ranks of 10,000 users are those of NumPy's own sort, without ties."""
    rng = np.random.default_rng(0)
    count = 10_000
    item = rng.permuted(np.tile(np.arange(1, 101), (count, 1)), axis=1)
    users: Events = [([int(row[0])], [int(row[1])], [int(row[2])]) for row in item]
    data = _dataset(users, n_items=100)
    scores = rng.random((count, 100))
    user, place = np.divmod(np.arange(count * 100), 100)
    rows = ForeignRows("file", user, place + 1, scores[user, place], [], [])
    found = ranks_from_lists(rows, find_targets(data, True))
    rank = (scores > np.take_along_axis(scores, item[:, 2:3] - 1, 1)).sum(1) + 1
    for had in (0, 1):
        rank -= (np.take_along_axis(scores, item[:, had : had + 1] - 1, 1)
                 > np.take_along_axis(scores, item[:, 2:3] - 1, 1))[:, 0]  # fmt: skip
    assert np.array_equal(found.rank, rank)


def test_ranks_of_one_users_targets_must_be_able_to_be_together() -> None:
    """Ranked one by one against what is no target, several would share the first places."""
    data = _dataset([([1], [], [2, 3, 4])], "pre_split")
    targets = find_targets(data, mask_history=True)
    order = np.argsort(targets.item)

    def ranks(*given: int) -> Any:
        return ranks_from_ranks(_rows([0] * 3, [2, 3, 4], given), targets).rank[order].tolist()

    for possible in ((1, 2, 3), (2, 2, 2), (2, 2, 3), (1, 3, 3), (7, 7, 4)):
        assert ranks(*possible) == list(possible)
    for impossible in ((1, 1, 1), (1, 1, 2), (2, 2, 1), (1, 2, 2)):
        with pytest.raises(RequestError, match="cannot be beside the ranks of the user's other"):
            ranks(*impossible)
