"""Rules against slow references that go event by event, with names in place of numbers."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.errors import RequestError
from datamodules.event_arrays import shared_with_previous
from datamodules.events import IntentLabels, build_events
from datamodules.intent_labels import label_count
from datamodules.prepare import prepare
from datamodules.prepared import TEST, PreparedDataset, load_prepared
from tests.datamodules.toy_events import Event, Log, prepared, random_log

SEEDS = range(25)
Reference = Callable[[Log, list[Event], int], str | None]


def intent(dataset: PreparedDataset, rule: str) -> IntentLabels:
    return build_events(dataset, {"only": rule}).intents[0]


def names_of(found: IntentLabels) -> list[str | None]:
    """The name of each event's own label; None where it has none."""
    return [found.names[code - 1] if code else None for code in found.codes[:-1].tolist()]


def target_names(found: IntentLabels) -> list[str | None]:
    """The name of each event's label as a target; None where it is never one."""
    return [found.names[label] if label >= 0 else None for label in found.labels[:-1].tolist()]


# Slow references ------------------------------------------------------------------------------


def behaviour(_: Log, user: list[Event], k: int) -> str:
    return user[k].action


def familiar(log: Log, user: list[Event], k: int) -> str:
    event, before = user[k], user[:k]
    if any(past.item == event.item for past in before):
        return f"{event.action}, item seen"
    seen = {genre for past in before for genre in log.genres[past.item]}
    if seen & set(log.genres[event.item]):
        return f"{event.action}, genre seen"
    return f"{event.action}, new"


def familiar_by_item(log: Log, user: list[Event], k: int) -> str:
    return familiar(Log(log.users, {item: [] for item in log.genres}, {}), user, k)


def drift(log: Log, user: list[Event], k: int) -> str | None:
    if k == 0:
        return "start"
    if user[k].time - user[k - 1].time > 30 * 60:
        return "return"
    own, last = (set(log.genres[event.item]) for event in (user[k], user[k - 1]))
    if not own:
        return None
    if not own <= {genre for past in user[:k] for genre in log.genres[past.item]}:
        return "discover"
    likeness = len(own & last) / len(own | last)
    return "stay" if likeness >= 0.5 else "drift" if likeness > 0 else "switch"


def drift_rated(log: Log, user: list[Event], k: int) -> str | None:
    plain = drift(log, user, k)
    if plain is None or np.isnan(user[k].rating):
        return None
    return f"{plain}, {'liked' if user[k].rating >= 4 else 'disliked'}"


def film_type(log: Log, user: list[Event], k: int) -> str | None:
    genres = log.genres[user[k].item]
    if not genres:
        return None
    if "Animation" in genres or "Children's" in genres:
        return "family"
    return "documentary" if "Documentary" in genres else "general"


def released(log: Log, user: list[Event], k: int) -> str:
    year = log.years.get(user[k].item)
    if year is None:
        return "unknown"
    age = datetime.fromtimestamp(user[k].time, UTC).year - int(year)
    ends = {0: "0 or less", 1: "1", 4: "2-4", 9: "5-9", 19: "10-19"}
    return next((name for end, name in ends.items() if age <= end), "20 or more")


def first_seen(log: Log, user: list[Event], k: int) -> str:
    now = user[k].time
    past = [event for event in log.events if event.time <= now]
    first = min(event.time for event in past if event.item == user[k].item)
    if first <= min(event.time for event in past) + 24 * 3600:
        return "old"
    age = now - first
    return "up to 600 s" if age <= 600 else "up to 86400 s" if age <= 86400 else "over 86400 s"


def value(log: Log, user: list[Event], k: int) -> str:
    return next(iter(log.genres[user[k].item]), "none")


RULES: dict[str, Reference] = {
    "behaviour": behaviour,
    "behaviour_familiar:genre": familiar,
    "behaviour_familiar": familiar_by_item,
    "drift:genre": drift,
    "drift_rated:genre": drift_rated,
    "film_type:genre": film_type,
    "released:year": released,
    "first_seen:600,86400": first_seen,
    "value:genre": value,
}
NEVER_TARGETS = ("start", "unknown", "none")


@pytest.mark.parametrize("rule", RULES)
def test_labels_are_those_of_the_slow_reference(rule: str, tmp_path: Path) -> None:
    seen: Counter[str | None] = Counter()
    for seed in SEEDS:
        log = random_log(seed)
        found = intent(prepared(log, tmp_path), rule)
        expected = [RULES[rule](log, user, k) for user in log.users for k in range(len(user))]
        assert names_of(found) == expected
        assert target_names(found) == [
            None if name is None or name.startswith(NEVER_TARGETS) else name for name in expected
        ]
        assert {found.names[label].split(",")[0] for label in found.inputs_only} <= {*NEVER_TARGETS}
        assert len(found.names) == label_count(rule)
        assert found.labels[-1] == -1
        assert found.codes[-1] == 0
        assert found.labels.dtype == found.codes.dtype == torch.int64
        seen.update(expected)
    used = {name for name in intent(prepared(random_log(0), tmp_path), rule).names if name}
    assert used - set(seen) <= {"other"}, "the logs show every label"


@pytest.mark.parametrize("rule", RULES)
def test_labels_stay_when_all_that_is_later_is_deleted(rule: str, tmp_path: Path) -> None:
    for seed in range(6):
        log = random_log(seed)
        whole = iter(names_of(intent(prepared(log, tmp_path), rule)))
        for user, events in enumerate(log.users):
            for place in range(len(events)):
                cut = log.cut(user, place)
                row = sum(map(len, cut.users[: user + 1])) - 1
                assert names_of(intent(prepared(cut, tmp_path), rule))[row] == next(whole)


def top_names(log: Log, top: int, first_only: bool) -> list[str]:
    """The most frequent genres of training events; equally frequent ones in alphabetical order."""
    counts: Counter[str] = Counter()
    for event in log.events:
        if event.training:
            genres = log.genres[event.item]
            counts.update(genres[:1] if first_only else set(genres))
    used = ("Animation", "Children's", "Documentary", "Drama", "War")
    return sorted(used, key=lambda name: (-counts[name], name))[:top]


@pytest.mark.parametrize("top", [1, 3, 5])
def test_value_keeps_the_most_frequent(top: int, tmp_path: Path) -> None:
    for seed in SEEDS:
        log = random_log(seed)
        found = intent(prepared(log, tmp_path), f"value:genre:{top}")
        kept = top_names(log, top, first_only=True)
        names = [value(log, user, k) for user in log.users for k in range(len(user))]
        assert names_of(found) == [name if name in (*kept, "none") else "other" for name in names]
        assert found.names == (*kept, "other" if top < 5 else "", "none")


@pytest.mark.parametrize("top", [None, 1, 3, 5])
def test_values_are_all_of_an_item(top: int | None, tmp_path: Path) -> None:
    for seed in SEEDS:
        log = random_log(seed)
        rule = "values:genre" if top is None else f"values:genre:{top}"
        found = intent(prepared(log, tmp_path), rule)
        kept = top_names(log, top or 100, first_only=False)
        assert found.kind == "multi"
        assert found.labels.shape == (13, label_count(rule))
        assert not found.labels[0].any()
        assert len(found.codes) == 0
        for item, genres in log.genres.items():
            held = {found.names[c] for c in found.labels[item].nonzero().flatten().tolist()}
            assert held == {name if name in kept else "other" for name in genres}


@pytest.mark.parametrize("shares", [2, 5])
def test_quantiles_share_the_training_events(shares: int, tmp_path: Path) -> None:
    for seed in SEEDS:
        log = random_log(seed)
        found = intent(prepared(log, tmp_path), f"quantile:year:{shares}")
        years = [log.years.get(event.item) for event in log.events]
        training = [
            int(year)
            for year, event in zip(years, log.events, strict=True)
            if year and event.training
        ]
        edges = [np.quantile(training, share / shares) for share in range(1, shares)]
        expected = [
            sum(int(year) > edge for edge in edges) if year is not None else shares
            for year in years
        ]
        assert found.codes[:-1].tolist() == [label + 1 for label in expected]
        assert found.labels[:-1].tolist() == [
            -1 if label == shares else label for label in expected
        ]
        assert found.inputs_only == (shares,)
        assert len(found.names) == label_count(f"quantile:year:{shares}") == shares + 1


@pytest.mark.parametrize("rule", ["value:genre:1", "values:genre:2", "quantile:year:3"])
def test_held_out_events_decide_no_label(rule: str, tmp_path: Path) -> None:
    """What is frequent is counted in training events: held-out items may be any."""
    for seed in SEEDS:
        log = random_log(seed)
        dataset = prepared(log, tmp_path)
        held_out = dataset.split != 0
        other = dataset.items.clone()
        other[held_out] = 1 + (other[held_out] + seed) % 12
        found, changed = intent(dataset, rule), intent(replace(dataset, items=other), rule)
        assert found.names == changed.names
        if found.kind == "multi":
            assert found.labels.equal(changed.labels)
        else:
            assert found.labels[:-1][~held_out].equal(changed.labels[:-1][~held_out])


def test_users_share_nothing_with_each_other() -> None:
    events, values = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 1])
    start = np.array([True, False, True])
    assert shared_with_previous(events, values, start, 3).tolist() == [0, 1, 0]


# Sizes and refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        ("behaviour", 16),
        ("behaviour_familiar", 48),
        ("behaviour_familiar:category", 48),
        ("drift:genre", 6),
        ("drift_rated:genre", 12),
        ("values:genre", 102),
        ("values:genre:18", 20),
        ("value:brand", 102),
        ("value:brand:7", 9),
        ("quantile:price", 6),
        ("quantile:price:4", 5),
        ("film_type:genre", 3),
        ("released:year", 7),
        ("first_seen:60", 3),
        ("first_seen:21600,86400,259200", 5),
    ],
)
def test_label_count_follows_from_the_rule(rule: str, count: int) -> None:
    assert label_count(rule) == count


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("mood", "intent rule mood: unknown; known: behaviour, behaviour_familiar, drift,"),
        ("", "intent rule : unknown"),
        ("behaviour:genre", "intent rule behaviour:genre: it is written behaviour"),
        ("behaviour_familiar:", "it is written behaviour_familiar[:feature]"),
        ("drift", "intent rule drift: it is written drift:feature"),
        ("released:", "it is written released:feature"),
        ("value", "it is written value:feature[:number]"),
        ("value:genre:0", "'0' is no whole number above 0"),
        ("values:genre:many", "'many' is no whole number above 0"),
        ("quantile:year:", "'' is no whole number above 0"),
        ("first_seen", "it is written first_seen:seconds,seconds,…"),
        ("first_seen:60,60", "'60,60' are no rising whole seconds"),
        ("first_seen:60,5", "'60,5' are no rising whole seconds"),
        ("first_seen:-1", "'-1' are no rising whole seconds"),
        ("first_seen:1h", "'1h' are no rising whole seconds"),
    ],
)
def test_malformed_rules_are_refused(rule: str, message: str, tmp_path: Path) -> None:
    dataset = prepared(random_log(0), tmp_path)
    for call in (lambda: label_count(rule), lambda: intent(dataset, rule)):
        with pytest.raises(RequestError) as raised:
            call()
        assert message in str(raised.value)


@pytest.mark.parametrize(
    ("rule", "lacks", "message"),
    [
        ("behaviour", "actions", "toy: intent rule behaviour: the dataset has no actions"),
        ("behaviour_familiar:genre", "actions", "the dataset has no actions"),
        ("drift:genre", "timestamps", "the dataset has no timestamps"),
        ("drift_rated:genre", "ratings", "the dataset has no ratings"),
        ("released:year", "timestamps", "the dataset has no timestamps"),
        ("first_seen:60", "timestamps", "the dataset has no timestamps"),
        ("value:mood", "", "the dataset has no item feature 'mood'; it has: genre, year"),
        ("drift:mood", "", "the dataset has no item feature 'mood'; it has: genre, year"),
        ("film_type:year", "", "'year' has none of: Animation, Children's, Children, Documentary"),
        ("released:genre", "", "'genre' has the value 'Animation', which is no number"),
        ("quantile:genre", "", "'genre' has the value 'Animation', which is no number"),
    ],
)
def test_what_a_dataset_lacks_is_named(rule: str, lacks: str, message: str, tmp_path: Path) -> None:
    dataset = prepared(random_log(1), tmp_path)
    if lacks:
        nothing: dict[str, Any] = {lacks: None}
        dataset = replace(dataset, **nothing)
    with pytest.raises(RequestError) as raised:
        intent(dataset, rule)
    assert str(raised.value).startswith(f"toy: intent rule {rule}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_numbers_that_are_no_years_are_refused(tmp_path: Path) -> None:
    dataset = prepared(random_log(0), tmp_path)
    (tmp_path / "item.year.texts.json").write_text(json.dumps([str(n) for n in range(1, 29)]))
    with pytest.raises(RequestError, match=r"'1', which is no number between 1000 and 3000$"):
        intent(dataset, "released:year")
    (tmp_path / "item.year.texts.json").write_text(json.dumps(["nan"] * 29))
    with pytest.raises(RequestError, match=r"'nan', which is no number$"):
        intent(dataset, "quantile:year")


def test_quantiles_need_a_training_event_with_a_value(tmp_path: Path) -> None:
    dataset = prepared(random_log(0), tmp_path)
    held_out = replace(dataset, split=torch.full_like(dataset.split, TEST))
    with pytest.raises(RequestError, match=r"no training event has a 'year'$"):
        intent(held_out, "quantile:year")


def test_more_labels_than_a_rule_has_are_refused(tmp_path: Path) -> None:
    dataset = prepared(random_log(0), tmp_path)
    many = tuple(f"action {number}" for number in range(20))
    crowded = replace(dataset, meta=replace(dataset.meta, actions=many))
    for rule in ("behaviour", "behaviour_familiar"):
        with pytest.raises(RequestError, match=r"has 20 actions, at most 16$"):
            intent(crowded, rule)
    names = ", ".join(f'"value {number}"' for number in range(101))
    (tmp_path / "item.genre.texts.json").write_text(f"[{names}]")
    with pytest.raises(RequestError, match=r"101 values, at most 100; values:genre:100 keeps"):
        intent(dataset, "values:genre")
    assert intent(dataset, "values:genre:50").labels.shape == (13, 52)


def test_features_made_in_memory_have_numbered_values(tmp_path: Path) -> None:
    dataset = replace(prepared(random_log(3), tmp_path), folder=None)
    assert set(intent(dataset, "values:genre").names) <= {"", *(f"value {n}" for n in range(1, 6))}
    with pytest.raises(RequestError, match=r"'value 1', which is no number between 1000 and 3000$"):
        intent(dataset, "released:year")  # codes are no years


# Published data -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def movielens(real_data: Path) -> PreparedDataset:
    return load_prepared(prepare("ml-100k", real_data))


def shares(dataset: PreparedDataset, rule: str) -> list[float]:
    """Percent of the events that have each label, of the labels with a name."""
    found = intent(dataset, rule)
    counts = torch.bincount(found.codes[:-1], minlength=len(found.names) + 1)[1:]
    percent = 100 * counts / len(dataset.items)
    return [percent[label].item() for label, name in enumerate(found.names) if name]


def test_shares_in_movielens_are_the_published_ones(movielens: PreparedDataset) -> None:
    found = shares(movielens, "drift:genre")
    assert found == pytest.approx([0.94, 1.85, 9.07, 19.88, 25.17, 43.08], abs=0.01)
    assert shares(movielens, "film_type:genre") == pytest.approx([7.9, 0.8, 91.4], abs=0.06)
    ages = shares(movielens, "released:year")
    assert ages[:6] == pytest.approx([7.5, 19.8, 32.6, 12.4, 11.3, 16.4], abs=0.06)
    genres = intent(movielens, "values:genre").labels[movielens.items.long()]
    assert genres.sum(1).float().mean().item() == pytest.approx(2.1, abs=0.05)


def test_shares_with_ties_in_the_order_of_items(movielens: PreparedDataset) -> None:
    """A measurement that orders ties by item differs by 0.2 points: the order in ties is chance."""
    users = np.repeat(np.arange(movielens.n_users), movielens.offsets.diff().numpy())
    order = np.lexsort((movielens.items, movielens.timestamps, users))  # type: ignore[arg-type]
    by_item = replace(movielens, items=movielens.items[torch.from_numpy(order)])
    found = shares(by_item, "drift:genre")
    assert found == pytest.approx([0.9, 1.8, 9.1, 20.1, 25.2, 42.9], abs=0.06)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        (
            "trivago",
            ["behaviour", "behaviour_familiar:city", "value:city:200", "first_seen:3600,21600"],
        ),
        (
            "yelp-actions",
            ["behaviour", "behaviour_familiar:category", "drift:category", "values:category:200"],
        ),
        ("rees46-sample", ["behaviour", "value:brand", "quantile:price", "first_seen:600"]),
    ],
)
def test_action_logs_have_their_intents(real_data: Path, name: str, rules: list[str]) -> None:
    dataset = load_prepared(prepare(name, real_data))
    table = build_events(dataset, {rule: rule for rule in rules})
    assert [found.name for found in table.intents] == rules
    for found in table.intents:
        rows = dataset.n_items + 1 if found.kind == "multi" else len(dataset.items) + 1
        assert len(found.labels) == rows
        assert len(found.names) == label_count(found.name)
    first = table.intents[0]
    assert first.names[: len(dataset.meta.actions)] == dataset.meta.actions
