"""Splits against plain loops over users."""

from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamodules import splits
from datamodules.prepared import TEST, TRAIN, VALID

Users = list[list[int]]

USERS = st.lists(st.lists(st.integers(0, 30), max_size=8).map(sorted), min_size=1, max_size=6)
"""Timestamps of each user, oldest first; a user may have none."""

SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.4])


def flat(users: Users) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    offsets = np.cumsum([0, *map(len, users)])
    return offsets, np.array([value for user in users for value in user], dtype=np.int64)


@given(USERS)
@settings(max_examples=50, derandomize=True)
def test_leave_one_out_equals_loop(users: Users) -> None:
    expected = []
    for user in users:
        n = len(user)
        expected += [TRAIN] * n if n < 3 else [TRAIN] * (n - 2) + [VALID, TEST]
    assert splits.leave_one_out(flat(users)[0]).tolist() == expected


@given(USERS, SHARES, SHARES)
@settings(max_examples=100, derandomize=True)
def test_ratio_equals_loop(users: Users, valid: float, test: float) -> None:
    train = 1 - valid - test
    expected = []
    for user in users:
        first = max(1, ceil(round(len(user) * train, 6)))
        second = max(1, ceil(round(len(user) * (train + valid), 6)))
        expected += [
            TRAIN if place < first else VALID if place < second else TEST
            for place in range(len(user))
        ]
    assert splits.ratio(flat(users)[0], train, valid).tolist() == expected


@given(USERS.filter(lambda users: any(users)), SHARES, SHARES)
@settings(max_examples=100, derandomize=True)
def test_random_leaves_every_user_and_item_an_event_to_train_on(
    users: Users, valid: float, test: float
) -> None:
    offsets, items = flat(users)
    owners = np.repeat(np.arange(len(users)), np.diff(offsets))
    split = splits.random(offsets, items, valid, test)
    for owner in (owners, items):
        assert set(owner[split == TRAIN]) == set(owner)
    for code, share in ((VALID, valid), (TEST, test)):
        assert (split == code).sum() <= round(len(items) * share)


def test_random_has_the_shares_at_random_and_the_same_ones_again() -> None:
    offsets = np.arange(0, 20_001, 20)  # 1000 users of 20 events
    items = np.random.default_rng(1).integers(0, 50, 20_000)
    split = splits.random(offsets, items, 0.2, 0.3)
    assert (split == VALID).sum() == 4000
    assert (split == TEST).sum() == 6000
    per_user = (split == TEST).reshape(1000, 20).sum(1)
    # hypergeometric, next to binomial: 20 draws at 0.3
    assert abs(per_user.std() - (20 * 0.3 * 0.7) ** 0.5) < 0.1
    assert (split == splits.random(offsets, items, 0.2, 0.3)).all()
    assert (split != splits.random(offsets, items, 0.2, 0.3, seed=1)).any()


@given(USERS.filter(lambda users: any(users)), SHARES, SHARES)
@settings(max_examples=100, derandomize=True)
def test_global_temporal_keeps_shares_and_never_splits_a_moment(
    users: Users, valid: float, test: float
) -> None:
    offsets, times = flat(users)
    split = splits.global_temporal(offsets, times, valid, test)
    parts = [times[split == code] for code in (TRAIN, VALID, TEST)]
    assert len(parts[0]) >= len(times) * (1 - valid - test) - 1e-6
    assert len(parts[2]) <= len(times) * test + 1e-6
    moments = [set(part.tolist()) for part in parts]
    assert sum(map(len, moments)) == len(set(times.tolist()))
    newest = -1
    for moment in moments:
        assert all(time > newest for time in moment)
        newest = max(moment, default=newest)
    # one moment more in training or before test would break a share
    for code, share in ((TRAIN, 1 - valid - test), (VALID, 1 - test)):
        earlier = times[split <= code]
        before_last = earlier[earlier < earlier.max()]
        assert len(before_last) < max(len(times) * share, 1) - 1e-9


def test_global_temporal_refuses_falling_time() -> None:
    with pytest.raises(ValueError, match="fall within a user"):
        splits.global_temporal(np.array([0, 2]), np.array([5, 4]), 0.1, 0.1)
    splits.global_temporal(np.array([0, 0, 1, 2, 2]), np.array([5, 4]), 0.1, 0.1)


@given(USERS, st.integers(1, 8))
@settings(max_examples=100, derandomize=True)
def test_sessions_and_last_session_equal_loop(users: Users, gap: int) -> None:
    sessions, expected = [], []
    for user in users:
        numbers: list[int] = []
        for place, time in enumerate(user):
            opens = place > 0 and time - user[place - 1] > gap
            numbers.append(0 if place == 0 else numbers[-1] + opens)
        sessions += numbers
        for number in numbers:
            codes = {numbers[-1]: TEST, numbers[-1] - 1: VALID}
            expected.append(codes.get(number, TRAIN) if numbers[-1] else TRAIN)
    offsets, times = flat(users)
    found = splits.sessions_from_gaps(offsets, times, gap)
    assert found.tolist() == sessions
    assert splits.last_session(offsets, found).tolist() == expected


@given(USERS)
@settings(max_examples=50, derandomize=True)
def test_split_never_falls_within_a_user(users: Users) -> None:
    offsets, times = flat(users)
    found = [splits.leave_one_out(offsets), splits.ratio(offsets, 0.5, 0.25)]
    if len(times):
        found.append(splits.global_temporal(offsets, times, 0.2, 0.2))
    found.append(splits.last_session(offsets, splits.sessions_from_gaps(offsets, times, 3)))
    for split in found:
        assert split.dtype == np.uint8
        assert len(split) == len(times)
        for start, stop in pairwise(offsets):
            assert np.all(np.diff(split[start:stop].astype(int)) >= 0)
