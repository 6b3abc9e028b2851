"""Codes of time against a calendar, and the encoder that adds them."""

import math
from datetime import UTC, datetime
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from intentbench.nn.time_encoding import DAY, Position, TimedEncoder, TimeEncoding, time_codes

WEEK = 7 * DAY


@given(st.integers(0, 2_000_000_000), st.integers(0, 2_000_000_000))
def test_codes_are_hour_weekday_and_power_of_two(timestamp: int, gap: int) -> None:
    (code,) = time_codes(torch.tensor([timestamp]), torch.tensor([gap])).tolist()
    moment = datetime.fromtimestamp(timestamp, UTC)
    epoch = 3  # 1 January 1970 was a Thursday; days are counted from there
    assert code[0] == moment.hour
    assert (code[1] + epoch) % 7 == moment.weekday()
    assert 2 ** code[2] <= 1 + gap < 2 ** (code[2] + 1)


def test_buckets_of_gaps_are_exact_at_their_edges() -> None:
    edges = [0, 1, 2, 3, 6, 7, 2**20 - 2, 2**20 - 1, 2**40]
    codes = time_codes(torch.zeros(len(edges), dtype=torch.int64), torch.tensor(edges))[:, 2]
    assert codes.tolist() == [0, 1, 1, 2, 2, 3, 19, 20, 31]
    assert codes[:-1].tolist() == [int(math.log2(1 + edge)) for edge in edges[:-1]]


def test_a_shift_by_whole_weeks_changes_no_code() -> None:
    times = torch.randint(0, 10**9, (50,)).sort().values
    gaps = times.diff(prepend=times[:1])
    assert time_codes(times + 9 * WEEK, gaps).equal(time_codes(times, gaps))
    assert not time_codes(times + DAY, gaps).equal(time_codes(times, gaps))


@pytest.mark.parametrize("position", get_args(Position))
def test_tables_are_those_asked_for(position: Position) -> None:
    encoding = TimeEncoding(4, position, 6)
    codes = torch.stack([torch.arange(5), torch.arange(5), torch.arange(5)], -1)[None]
    expected = torch.zeros(1, 5, 4)
    if "time" in position:
        assert [table.num_embeddings for table in encoding.tables] == [24, 7, 32]
        for number, table in enumerate(encoding.tables):
            expected = expected + table(codes[..., number])
    if "order" in position:
        assert encoding.order is not None
        expected = expected + encoding.order.weight[:5]
    torch.testing.assert_close(torch.zeros(1, 5, 4) + encoding(codes), expected)


def test_encoder_is_causal_and_its_entry_as_written() -> None:
    torch.manual_seed(0)
    encoder = TimedEncoder(5, 8, "time+order", 9, 2, 2, 0.2).double().eval()
    features = torch.randn(1, 6, 5, dtype=torch.float64)
    codes = torch.randint(0, 7, (1, 6, 3))
    later, later_codes = features.clone(), codes.clone()
    later[0, 4:] += 1
    later_codes[0, 4:] = (later_codes[0, 4:] + 1) % 7
    before, after = encoder(features, codes), encoder(later, later_codes)
    assert before[:, :4].equal(after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    entry = TimedEncoder(5, 8, "time+order", 9, 0, 2, 0.2).double().eval()
    raw = entry.enter(features)
    normal = (raw - raw.mean(-1, keepdim=True)) / raw.var(-1, keepdim=True, correction=0).sqrt()
    torch.testing.assert_close(entry(features, codes), normal + entry.time(codes))


def test_blocks_can_be_those_of_another_encoder() -> None:
    first = TimedEncoder(5, 8, "time", 9, 2, 2, 0.2)
    second = TimedEncoder(6, 8, "time", 9, first.blocks, 2, 0.2)
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert shared == {id(p) for p in first.blocks.parameters()}
