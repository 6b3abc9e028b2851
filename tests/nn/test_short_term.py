"""The personal window: as its definition says, and encoded for all positions at once, exactly."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from intentbench.nn.short_term import BandedBlock, ShortTerm, band
from intentbench.nn.time_encoding import time_codes

HORIZONS = (0.0, 1.0, 7.5, 60.0, math.inf, None)


def _first(times: list[int], k: int, horizon: float | None) -> int:
    """pos(k), as Eq. 1 writes it."""
    limit = math.inf if horizon is None else horizon
    return min(i for i in range(k + 1) if times[k] - times[i] <= limit)


@given(
    st.lists(st.lists(st.integers(0, 40), min_size=5, max_size=5), min_size=1, max_size=3),
    st.sampled_from(HORIZONS),
    st.sampled_from([None, 1, 2, 4]),
)
def test_windows_are_those_of_the_definition(
    users: list[list[int]], horizon: float | None, count: int | None
) -> None:
    """With ties; users share no event, each row being its own."""
    times = torch.tensor(users).sort(1).values
    inside = band(times, horizon, count)
    for user, row in enumerate(times.tolist()):
        for k in range(len(row)):
            first = _first(row, k, horizon)
            if count is not None:
                first = max(first, k - count + 1)
            expected = [first <= i <= k for i in range(len(row))]
            assert inside[user, k].tolist() == expected


def test_a_window_begins_at_its_first_event_even_if_times_fall() -> None:
    inside = band(torch.tensor([[10, 50, 12, 11]]), 5.0)
    assert inside[0, 3].tolist() == [True, True, True, True]


def test_no_time_still_groups_ties_and_all_time_is_causal() -> None:
    times = torch.tensor([[5, 5, 6, 6, 6]])
    assert band(times, 0.0)[0, 4].tolist() == [False, False, True, True, True]
    assert band(times, math.inf)[0].equal(torch.ones(5, 5).tril().bool())


def _short_term(horizon: float | None, count: int | None = None) -> ShortTerm:
    torch.manual_seed(0)
    module = ShortTerm(6, 8, "time+order", 2, 0.3, horizon, count).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


def _events() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    features = torch.randn(2, 7, 6, dtype=torch.float64)
    times = torch.randint(0, 100, (2, 7)).sort(1).values
    gaps = times.diff(dim=1, prepend=times[:, :1])
    codes = time_codes(times.flatten(), gaps.flatten()).view(2, 7, 3)
    return features, times, codes


@pytest.mark.parametrize("horizon", [0.0, 10.0, 30.0, math.inf])
def test_banded_form_equals_encoding_each_window_alone(horizon: float) -> None:
    module = _short_term(horizon)
    features, times, codes = _events()
    together = module(features, times, codes)
    for user in range(2):
        for k in range(7):
            part = slice(_first(times[user].tolist(), k, horizon), k + 1)
            alone = module(
                features[user, None, part], times[user, None, part], codes[user, None, part]
            )
            torch.testing.assert_close(alone[0, -1], together[user, k])


def test_only_events_of_the_window_count() -> None:
    module = _short_term(20.0)
    features, times, codes = _events()
    before = module(features, times, codes)
    for k in range(7):
        first = _first(times[0].tolist(), k, 20.0)
        for i in range(7):
            changed = features.clone()
            changed[0, i] += 3
            after = module(changed, times, codes)[0, k]
            if first <= i <= k:
                assert not torch.allclose(after, before[0, k])
            else:
                assert after.equal(before[0, k])


def test_two_blocks_under_one_band_would_look_back_further() -> None:
    """Why there is one block only."""
    torch.manual_seed(0)
    blocks = [BandedBlock(8, 2, 0.0).double().eval() for _ in range(2)]
    inside = band(torch.tensor([[0, 10, 20]]), 10.0)
    states = torch.randn(1, 3, 8, dtype=torch.float64)
    changed = states.clone()
    changed[0, 0] += 3
    once = [blocks[0](part, inside) for part in (states, changed)]
    assert once[0][0, 2].equal(once[1][0, 2])
    twice = [blocks[1](part, inside) for part in once]
    assert not torch.allclose(twice[0][0, 2], twice[1][0, 2])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="no multiple"):
        BandedBlock(6, 4, 0.0)


def test_a_window_of_a_year_ends_at_the_second() -> None:
    year = 31_536_000
    times = torch.tensor([[0, year, year + 1]])
    assert band(times, float(year))[0].tolist() == [
        [True, False, False],
        [True, True, False],
        [False, True, True],
    ]
