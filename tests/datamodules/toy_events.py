"""A small random log for tests of rules: as objects for slow references, and prepared."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datamodules.prepared import TEST, TRAIN, VALID, Meta, PreparedDataset

GENRES = ("Animation", "Children's", "Documentary", "Drama", "War")
ACTIONS = ("buy", "cart", "view")
START = 946_600_000  # 29 hours before the year 2000
V = 12


@dataclass(frozen=True)
class Event:
    item: int
    time: int
    action: str
    rating: float
    training: bool


@dataclass(frozen=True)
class Log:
    """Events of each user, and of each item its genres and year; some have none."""

    users: list[list[Event]]
    genres: dict[int, list[str]]
    years: dict[int, str]

    @property
    def events(self) -> list[Event]:
        return [event for user in self.users for event in user]

    def cut(self, user: int, place: int) -> "Log":
        """The log as it was at an event: nothing of the user after it, of others nothing later."""
        now = self.users[user][place].time
        users = [[event for event in events if event.time <= now] for events in self.users]
        users[user] = self.users[user][: place + 1]
        return Log(users, self.genres, self.years)


def random_log(seed: int) -> Log:
    """Users with 0 to 9 events, steps of 0 s to days, missing ratings and values."""
    rng = np.random.default_rng(seed)
    genres = {
        item: [str(name) for name in rng.choice(GENRES, rng.integers(0, 5))]  # also twice the same
        for item in range(1, V + 1)
    }
    years = {
        item: str(1975 + rng.integers(0, 28)) for item in range(1, V + 1) if rng.random() < 0.8
    }
    users = []
    for _ in range(rng.integers(3, 9)):
        length = int(rng.integers(0, 10))
        steps = rng.choice([0, 0, 1, 600, 1800, 1801, 20_000, 86_400, 200_000], length)
        times = START + rng.integers(0, 4) * 50_000 + np.cumsum(steps)
        users.append(
            [
                Event(
                    int(rng.integers(1, V + 1)),
                    int(time),
                    str(rng.choice(ACTIONS)),
                    float(rng.choice([1, 3.5, 4, 5, np.nan])),
                    training=place < length - 2 or length < 3,
                )
                for place, time in enumerate(times)
            ]
        )
    return Log(users, genres, years)


def prepared(log: Log, folder: Path, name: str = "toy") -> PreparedDataset:
    """The log as a prepared dataset, whose feature names lie in the folder."""
    events = log.events
    split = []
    for user in log.users:
        held_out = [event for event in user if not event.training]
        split += [TRAIN] * (len(user) - len(held_out)) + [VALID, TEST][: len(held_out)]
    features = {}
    year_names = sorted(set(log.years.values()))
    for feature, names, held in (
        ("genre", list(GENRES), log.genres),
        ("year", year_names, {item: [year] for item, year in log.years.items()}),
    ):
        rows = [
            [],
            *([names.index(value) + 1 for value in held.get(v, [])] for v in range(1, V + 1)),
        ]
        features[f"item.{feature}.values"] = torch.tensor(
            [*itertools.chain(*rows)], dtype=torch.int32
        )
        features[f"item.{feature}.offsets"] = torch.tensor(
            [0, *itertools.accumulate(map(len, rows))]
        )
        (folder / f"item.{feature}.texts.json").write_text(json.dumps(names))
    return PreparedDataset(
        Meta(name, "", {}, "successive", {"items": V}, {}, ("genre", "year"), ACTIONS),
        torch.tensor([event.item for event in events], dtype=torch.int32),
        torch.tensor(split, dtype=torch.uint8),
        torch.tensor([0, *itertools.accumulate(map(len, log.users))]),
        torch.tensor([event.time for event in events], dtype=torch.int64),
        torch.tensor([ACTIONS.index(event.action) for event in events], dtype=torch.int16),
        torch.tensor([event.rating for event in events], dtype=torch.float32),
        None,
        features,
        folder,
    )
