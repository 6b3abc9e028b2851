"""Which events are for training, validation and test: pure functions on offsets.

Events stand user by user, oldest first; user u owns events `offsets[u]:offsets[u + 1]`. Each
function returns (E,) uint8 of `TRAIN`, `VALID`, `TEST`. Where events are in order of time and
sessions do not interleave, the value never falls within a user.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.prepared import TEST, TRAIN, VALID

Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]


def leave_one_out(offsets: Ints) -> Codes:
    """Each user's last event for test, the one before for validation, the rest for training.

    Users with fewer than three events are all training: nothing would be left to learn from.
    """
    split = np.full(offsets[-1], TRAIN, dtype=np.uint8)
    ends = offsets[1:][np.diff(offsets) >= 3]
    split[ends - 1] = TEST
    split[ends - 2] = VALID
    return split


def global_temporal(
    offsets: Ints, timestamps: Ints, valid_share: float, test_share: float
) -> Codes:
    """One calendar for all: the newest events for test, those before them for validation.

    The borders are timestamps of the data, chosen so that training has at least its share of the
    events, and training and validation together at least theirs; events at a border belong to
    the earlier part, so that no moment is in two parts.

    Args:
        offsets: (N + 1,).
        timestamps: (E,) seconds, not falling within a user.
        valid_share: share of all events for validation.
        test_share: share of all events for test.

    Raises:
        ValueError: time falls within a user.
    """
    falls = np.diff(timestamps) < 0
    falls[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(timestamps))] - 1] = False
    if falls.any():
        raise ValueError("timestamps fall within a user; sort the events first")
    ordered = np.sort(timestamps)
    borders = [ordered[_count(len(ordered), 1 - test_share - valid_share) - 1]]
    borders.append(ordered[_count(len(ordered), 1 - test_share) - 1])
    split = np.full(len(timestamps), TRAIN, dtype=np.uint8)
    split[timestamps > borders[0]] = VALID
    split[timestamps > borders[1]] = TEST
    return split


def ratio(offsets: Ints, train_share: float, valid_share: float) -> Codes:
    """Each user's first events for training, the next for validation, the rest for test.

    Of n events, `ceil(n * train_share)` are for training, and for training and validation
    together `ceil(n * (train_share + valid_share))`: whoever has few events has them in training.
    """
    lengths = np.diff(offsets)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    split = np.full(offsets[-1], TRAIN, dtype=np.uint8)
    split[place >= np.repeat(_count(lengths, train_share), lengths)] = VALID
    split[place >= np.repeat(_count(lengths, train_share + valid_share), lengths)] = TEST
    return split


def random(
    offsets: Ints, items: Ints, valid_share: float, test_share: float, seed: int = 0
) -> Codes:
    """Events at random, whoever they belong to: the split of implicit feedback without order.

    A user or an item without a training event gets one back: its first among the held out.

    Args:
        offsets: (N + 1,).
        items: (E,) of each event.
        valid_share: share of all events for validation.
        test_share: share of all events for test.
        seed: of the draw.
    """
    total = len(items)
    codes = np.full(total, TRAIN, dtype=np.uint8)
    valid, test = round(total * valid_share), round(total * test_share)
    codes[:valid] = VALID
    codes[valid : valid + test] = TEST
    split = np.random.default_rng(seed).permutation(codes)
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    for owner in (users, items):
        known = np.zeros(int(owner.max()) + 1, dtype=bool)
        known[owner[split == TRAIN]] = True
        _, first = np.unique(owner, return_index=True)
        split[first[~known[owner[first]]]] = TRAIN
    return split


def last_session(offsets: Ints, sessions: NDArray[np.int32]) -> Codes:
    """Each user's last session for test, the one before for validation, the rest for training.

    Users with one session are all training; users with two have no training events.

    Args:
        offsets: (N + 1,).
        sessions: (E,) running number of the session within its user, from 0.
    """
    lengths = np.diff(offsets)
    last = np.zeros(len(lengths), dtype=np.int64)
    filled = lengths > 0
    if filled.any():
        last[filled] = np.maximum.reduceat(sessions, offsets[:-1][filled])
    from_last = np.repeat(last, lengths) - sessions
    split = np.full(offsets[-1], TRAIN, dtype=np.uint8)
    several = np.repeat(last > 0, lengths)
    split[several & (from_last == 1)] = VALID
    split[several & (from_last == 0)] = TEST
    return split


def sessions_from_gaps(offsets: Ints, timestamps: Ints, gap: int) -> NDArray[np.int32]:
    """Cut each user's events into sessions where more than `gap` seconds pass without one.

    Returns:
        (E,) running number of the session within its user, from 0.
    """
    lengths = np.diff(offsets)
    opens = np.diff(timestamps, prepend=timestamps[:1]) > gap
    starts = offsets[:-1][lengths > 0]
    opens[starts] = False
    opened = np.cumsum(opens)
    before = np.zeros(len(lengths), dtype=np.int64)
    before[lengths > 0] = opened[starts]
    return np.asarray(opened - np.repeat(before, lengths), dtype=np.int32)


def _count(total: Ints | int, share: float) -> Ints:
    """`ceil(total * share)`, at least 1, where 0.7 + 0.1 counts as 0.8."""
    return np.maximum(np.ceil(np.asarray(total) * share - 1e-9), 1).astype(np.int64)
