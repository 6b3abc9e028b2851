"""A log of events as a shop might have it, of any size: one CSV or parquet file in order of time.

    python benchmarks/performance/event_log.py big.parquet --events 20000000 --users 150000
        --items 60000

Popularity is Zipf's, lengths of users are log-normal with at least five events, and of every two
events the second is, half of the time, the one that follows the first in a fixed order of the
items, so that there is something to learn. Every item occurs. The same arguments give the same
events.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

SHORTEST = 5
"""Events that every user has."""

FOLLOWS = 0.5
"""Share of the second events of a pair that are the successor of the first."""

START, YEAR = 1_500_000_000, 365 * 86_400


def draw_events(
    n_events: int, n_users: int, n_items: int, seed: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Users 0..N-1, items 1..V and seconds since 1970, all (E,), in order of time.

    Args:
        n_events: E, at least 5 N and at least V.
        n_users: N.
        n_items: V.
        seed: of all draws.
    """
    random = np.random.default_rng(seed)
    share = random.lognormal(size=n_users)
    lengths = SHORTEST + random.multinomial(n_events - SHORTEST * n_users, share / share.sum())
    users = np.repeat(np.arange(n_users, dtype=np.int32), lengths)
    items = _draw_items(random, n_events, n_items)
    keys = np.repeat(np.arange(n_users, dtype=np.int64) << 32, lengths)
    keys += random.integers(START, START + YEAR, n_events, dtype=np.int32)
    keys.sort()  # times rise within each user, so that pairs of events stay together
    seconds = (keys & 0xFFFFFFFF).astype(np.int32)
    del keys
    order = np.argsort(seconds, kind="stable")
    return users[order], items[order], seconds[order]


def write_log(path: Path, n_events: int, n_users: int, n_items: int, seed: int = 0) -> None:
    """Write columns user, item, time; the ending of the name says whether CSV or parquet."""
    users, items, seconds = draw_events(n_events, n_users, n_items, seed)
    frame = pl.DataFrame({"user": users, "item": items, "time": seconds})
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)


def _draw_items(random: np.random.Generator, n_events: int, n_items: int) -> NDArray[np.int32]:
    names = (random.permutation(n_items) + 1).astype(np.int32)
    cumulated = np.cumsum(1 / np.arange(1, n_items + 1))
    items = np.empty(n_events, dtype=np.int32)
    for start in range(0, n_events, 1 << 20):
        part = items[start : start + (1 << 20)]
        drawn = np.searchsorted(cumulated, random.random(len(part)) * cumulated[-1])
        part[:] = names[np.minimum(drawn, n_items - 1)]
    successor = np.empty(n_items + 1, dtype=np.int32)
    successor[names] = np.roll(names, 1)
    second = items[1::2]
    follows = random.random(len(second), dtype=np.float32) < FOLLOWS
    second[follows] = successor[items[: 2 * len(second) : 2][follows]]
    items[random.choice(n_events, n_items, replace=False, shuffle=False)] = names
    return items


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="ends in .csv or .parquet")
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=150_000)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_log(options.path, options.events, options.users, options.items, options.seed)


if __name__ == "__main__":
    main()
