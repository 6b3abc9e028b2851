"""Texts of nodes: which rows are whose, controls, and widths that do not fit."""

from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.errors import RequestError
from intentbench.contracts.data import planted_cycles
from intentbench.reports.leaderboard import CONTROL
from intentbench.text import nodes
from intentbench.text.nodes import describe_texts, find_profiles, find_texts

DATA = planted_cycles()
N = DATA.n_users + DATA.n_items


class _Found:
    """Features of width 4 and 3 whose rows tell whose they are; row 0 of items is padding."""

    user_intent = torch.arange(1.0, DATA.n_users + 1)[:, None].expand(-1, 4)
    user_profile = user_intent[:, :3]
    item_intent = torch.arange(0.0, -DATA.n_items - 1, -1)[:, None].expand(-1, 4)
    item_profile = item_intent[:, :3]


@pytest.fixture(autouse=True)
def _stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> type[_Found]:
        return _Found

    monkeypatch.setattr(nodes, "load_features", load)


def test_users_come_first_then_items_without_padding() -> None:
    found = find_texts("folder", DATA, 4, 3)
    expected = torch.cat([torch.arange(1, DATA.n_users + 1), -torch.arange(1, DATA.n_items + 1)])
    assert found.intent.shape == (N, 4)
    assert found.profile.shape == (N, 3)
    assert found.intent[:, 0].equal(expected.float())
    assert found.profile[:, 2].equal(expected.float())


def test_other_widths_are_refused() -> None:
    with pytest.raises(RequestError, match="features of 4 columns, not 5; set intent_width: 4"):
        find_texts("folder", DATA, 5, 3)
    with pytest.raises(RequestError, match="features of 3 columns, not 2; set profile_width: 3"):
        find_texts("folder", DATA, 4, 2)


def test_intents_that_are_not_read_may_have_any_width() -> None:
    profiles = find_texts("folder", DATA, 4, 3).profile
    assert find_profiles("folder", DATA, 3).equal(profiles)
    with pytest.raises(RequestError, match="set profile_width: 3"):
        find_profiles("folder", DATA, 2)


def test_gaussian_is_the_same_at_each_call_and_needs_no_texts() -> None:
    first, second = (find_texts("gaussian", DATA, 5, 2) for _ in range(2))
    assert first.intent.shape == (N, 5)
    assert first.profile.shape == (N, 2)
    assert first.intent.equal(second.intent)
    assert find_profiles("gaussian", DATA, 2).equal(first.profile)
    assert not find_texts("gaussian", DATA, 2, 2).intent.equal(first.profile)


def test_shuffled_rows_stay_among_users_and_among_items() -> None:
    plain, shuffled = (find_texts(name, DATA, 4, 3) for name in ("folder", "shuffled:folder"))
    for before, after in ((plain.intent, shuffled.intent), (plain.profile, shuffled.profile)):
        assert not before.equal(after)
        for side in (slice(DATA.n_users), slice(DATA.n_users, N)):
            assert _sorted(before[side]).equal(_sorted(after[side]))
    assert shuffled.intent[:, 0].equal(shuffled.profile[:, 0]), "a node's two texts stay together"


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_rows_is_moved(share: float) -> None:
    plain, noisy = (find_texts(name, DATA, 4, 3) for name in ("folder", f"shuffled@{share}:folder"))
    moved = (plain.intent != noisy.intent).any(1)
    sides = (slice(DATA.n_users), slice(DATA.n_users, N))
    for side in sides:
        assert int(moved[side].sum()) == round(share * len(moved[side]))
        assert _sorted(plain.intent[side]).equal(_sorted(noisy.intent[side]))


@pytest.mark.parametrize("source", ["shuffled@2:folder", "shuffled@half:folder"])
def test_a_share_beyond_0_to_1_is_refused(source: str) -> None:
    with pytest.raises(RequestError, match="from 0 to 1"):
        find_texts(source, DATA, 4, 3)


def test_items_as_words_need_no_texts() -> None:
    found = find_texts("ids", DATA, 8, 4)
    assert found.intent.shape == (N, 8)
    assert found.profile.shape == (N, 4)
    assert found.profile.isfinite().all()


def test_a_source_is_described_as_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "describe_features", lambda source, _, width: f"{source}-{width}")
    assert describe_texts("tfidf-svd", DATA, 7) == "tfidf-svd-7"
    assert describe_texts("shuffled@0.1:tfidf-svd", DATA, 7) == "shuffled@0.1 tfidf-svd-7"
    assert describe_texts("shuffled:ids", DATA, 7) == "shuffled ids"
    assert describe_texts("gaussian", DATA, 7) == "gaussian"


def _sorted(rows: Tensor) -> Tensor:
    return rows[:, 0].sort().values


@pytest.mark.parametrize("source", ["gaussian", "ids", "shuffled:gaussian", "shuffled@0.1:ids"])
def test_pages_know_a_control_by_its_description(source: str) -> None:
    assert CONTROL.fullmatch(describe_texts(source, DATA, 8))
    assert not CONTROL.fullmatch("tfidf-svd-128 (offline texts, 0123456789abcdef)")
