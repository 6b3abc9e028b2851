import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare
from sklearn.metrics import mutual_info_score

from datamodules.errors import RequestError
from datamodules.preprocess import preprocess
from datamodules.readers.registry import read_events
from datamodules.recipe import Recipe
from datamodules.synthetic import SESSION_GAP, Synthetic, generate
from datamodules.synthetic_texts import TOPICS, category, write_item_texts, write_user_texts
from datamodules.synthetic_world import SyntheticConfig, parse_options

CONFIG = SyntheticConfig(n_users=2000)
WORD_TOPIC = {word: topic for topic, (_, _, words) in enumerate(TOPICS) for word in words}
WORD = re.compile("|".join(sorted(WORD_TOPIC, key=len, reverse=True)))


@pytest.fixture(scope="module")
def data() -> Synthetic:
    return generate(CONFIG, 0)


def users_of(data: Synthetic) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(data.user_types)), np.diff(data.offsets))


def within_sessions(data: Synthetic) -> NDArray[np.int64]:
    """Events that follow another of the same session."""
    pause, users = np.diff(data.timestamps), users_of(data)
    return np.flatnonzero((pause < SESSION_GAP) & (users[1:] == users[:-1])) + 1


def information_between_successive_intents(data: Synthetic) -> float:
    """In nats; a sample of n pairs of independent intents has about (K - 1)^2 / 2n."""
    later = within_sessions(data)
    return float(mutual_info_score(data.intents[later - 1], data.intents[later]))


def same(one: Synthetic, other: Synthetic) -> bool:
    names = ("offsets", "items", "timestamps", "actions", "intents", "accidental", "user_types")
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    texts = one.item_texts == other.item_texts and one.user_texts == other.user_texts
    return arrays and texts


def test_seed_decides_everything() -> None:
    config = replace(CONFIG, n_users=50)
    assert same(generate(config, 1), generate(config, 1))
    assert not np.array_equal(generate(config, 1).items, generate(config, 2).items)


def test_events_are_well_formed(data: Synthetic) -> None:
    lengths = np.diff(data.offsets)
    assert lengths.min() >= CONFIG.min_events
    assert lengths.max() <= CONFIG.max_events
    # the cut at max_events takes something off the mean
    assert 0.9 * CONFIG.mean_events < lengths.mean() < 1.02 * CONFIG.mean_events
    assert data.items.min() >= 1
    assert data.items.max() <= CONFIG.n_items
    assert len(np.unique(users_of(data) * 10_000 + data.items)) == len(data.items)  # no repeats
    assert (data.actions[data.accidental] == 0).all()
    assert set(data.actions.tolist()) == {0, 1, 2}


def test_times_grow_and_sessions_show(data: Synthetic) -> None:
    users = users_of(data)
    pause = np.diff(data.timestamps)[users[1:] == users[:-1]]
    assert pause.min() > 0
    short = pause[pause < SESSION_GAP]
    assert short.max() <= SESSION_GAP / 2
    assert pause[pause >= SESSION_GAP].min() >= 2 * SESSION_GAP
    assert np.mean(pause > SESSION_GAP) == pytest.approx(CONFIG.new_session, abs=0.01)


def test_intents_follow_the_chain(data: Synthetic) -> None:
    later = within_sessions(data)
    counts = np.zeros_like(data.world.chain)
    np.add.at(counts, (data.intents[later - 1], data.intents[later]), 1)
    found = counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(found, data.world.chain, atol=0.06)
    assert information_between_successive_intents(data) > 0.5


def test_sessions_open_with_an_interest(data: Synthetic) -> None:
    opens = np.setdiff1d(np.arange(len(data.items)), within_sessions(data))
    types = data.user_types[users_of(data)[opens]]
    shares = data.world.interests[types, data.intents[opens]]
    assert (shares > 0).all()


def test_items_belong_to_the_intent(data: Synthetic) -> None:
    own = data.world.item_intent[data.items] == data.intents
    on_purpose = 1 - CONFIG.overlap * (1 - 1 / CONFIG.n_intents)
    assert own[~data.accidental].mean() == pytest.approx(on_purpose, abs=0.05)
    assert own[data.accidental].mean() == pytest.approx(1 / CONFIG.n_intents, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_accidental_clicks_are_as_many_as_asked_and_uniform(share: float) -> None:
    data = generate(replace(CONFIG, accidental_clicks=share), 4)
    spread = np.sqrt(share * (1 - share) / len(data.items))
    assert abs(data.accidental.mean() - share) <= 4 * spread
    first = data.offsets[:-1][data.accidental[data.offsets[:-1]]]  # nothing is excluded there yet
    if share:
        counts = np.bincount(data.items[first], minlength=CONFIG.n_items + 1)[1:]
        assert chisquare(counts).pvalue > 1e-3


def test_erratic_intents_leave_no_chain() -> None:
    one_type = replace(CONFIG, n_types=1, intents_per_type=16, erratic_intents=1.0)
    assert information_between_successive_intents(generate(one_type, 0)) < 0.01
    half = information_between_successive_intents(
        generate(replace(one_type, erratic_intents=0.5), 0)
    )
    whole = information_between_successive_intents(
        generate(replace(one_type, erratic_intents=0.0), 0)
    )
    assert 0.05 < half < whole / 2


def test_unstable_interest_leaves_no_difference_between_users(data: Synthetic) -> None:
    unstable = generate(replace(CONFIG, unstable_interest=1.0), 0)
    assert np.ptp(unstable.world.interests, axis=0).max() < 1e-12
    types = unstable.user_types[users_of(unstable)]
    first = unstable.offsets[:-1]  # one intent a user: independent draws
    assert mutual_info_score(types[first], unstable.intents[first]) < 0.08
    stable_types = data.user_types[users_of(data)]
    assert mutual_info_score(stable_types[first], data.intents[first]) > 1


def test_texts_tell_the_intent_unless_uninformative() -> None:
    rng = np.random.default_rng(0)
    intents = rng.integers(12, size=20_000)

    def information(uninformative: float) -> float:
        texts = write_item_texts(intents, 12, uninformative, rng)
        words = [WORD.findall(text)[0] for text in texts]
        return float(mutual_info_score(intents, words))

    assert information(0.0) == pytest.approx(np.log(12), abs=0.01)
    assert 0.3 < information(0.5) < 1.5
    assert information(1.0) < 0.03  # (12 - 1)(72 - 1) / (2 * 20,000) = 0.02 by chance alone


def test_user_texts_use_early_events_only() -> None:
    rng = np.random.default_rng(0)
    topics = np.array([0, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4])  # two users of 5 and 6 events
    for _ in range(50):
        one, other = write_user_texts(topics, np.array([0, 5, 11]), 5, 0.0, rng)
        assert {WORD_TOPIC[word] for word in WORD.findall(one)} <= {0, 1}
        assert {WORD_TOPIC[word] for word in WORD.findall(other)} <= {3, 4}


def test_dial_of_texts_changes_no_event(data: Synthetic) -> None:
    silent = generate(replace(CONFIG, uninformative_texts=1.0), 0)
    assert np.array_equal(silent.items, data.items)
    assert silent.item_texts != data.item_texts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_user": 5}, "unknown option 'n_user'; did you mean: n_users"),
        ({"n_users": 0}, "n_users must be 1 or more, not 0"),
        ({"n_users": 10.0}, "n_users must be a whole number, not 10.0"),
        ({"accidental_clicks": True}, "accidental_clicks must be a number, not True"),
        ({"accidental_clicks": 1.5}, "accidental_clicks must be from 0 to 1, not 1.5"),
        ({"accidental_clicks": float("nan")}, "accidental_clicks must be from 0 to 1, not nan"),
        ({"n_intents": 99}, "n_intents must be from 2 to 16, not 99"),
        ({"n_items": 35, "n_intents": 4}, "max_events must be from 5 to 34"),
        ({"zipf": float("inf")}, "zipf must be 0 or more, not inf"),
        ({"seed": -1}, "seed must be a whole number from 0 on, not -1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        parse_options(options)


def test_reader_gives_what_was_generated() -> None:
    options = {"n_users": 30, "seed": 7}
    table = read_events("synthetic", {}, options)
    data = generate(*parse_options(options))
    ready = preprocess(table, Recipe())
    number = np.array(ready.item_ids, dtype=np.int64)
    assert ready.user_ids == [str(user) for user in range(30)]
    assert np.array_equal(number[ready.items - 1], data.items)
    assert np.array_equal(ready.offsets, data.offsets)
    assert np.array_equal(ready.rows, np.arange(len(data.items)))
    assert ready.timestamps is not None
    assert np.array_equal(ready.timestamps, data.timestamps)
    assert ready.item_texts == [data.item_texts[item - 1] for item in number]
    assert ready.user_texts == data.user_texts
    feature = ready.item_features["category"]
    found = [feature.names[code - 1] for code in feature.values]
    assert found == [category(data.world.item_intent[item]) for item in number]
    assert table.truth is not None
    assert np.array_equal(table.truth["intent"], data.intents)
