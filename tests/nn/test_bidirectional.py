"""The bidirectional encoder: equal to its equations, blind to padding; appending to rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from intentbench.nn.bidirectional import BidirectionalBlock, BidirectionalEncoder, append


def _encoder() -> BidirectionalEncoder:
    torch.manual_seed(0)
    encoder = BidirectionalEncoder(20, 8, 6, 2, 2, 0.3, 0.2).double()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder.eval()


def _block(block: BidirectionalBlock, states: Tensor) -> Tensor:
    """One row (L, D), one head and one query at a time."""
    attention, width = block.attention, states.shape[1]
    size = width // attention.heads
    query = states @ attention.query.weight.T + attention.query.bias
    key, value = (states @ attention.key_value.weight.T + attention.key_value.bias).chunk(2, 1)
    mixed = torch.zeros_like(states)
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(len(states)):
            weights = torch.softmax(key[:, part] @ query[t, part] / size**0.5, 0)
            mixed[t, part] = weights @ value[:, part]
    norm = block.attention_norm
    states = states + attention.out(mixed)
    states = layer_norm(states, (width,), norm.weight, norm.bias, 1e-12)
    states = states + block.feed_forward[2](gelu(block.feed_forward[0](states)))
    norm = block.forward_norm
    return layer_norm(states, (width,), norm.weight, norm.bias, 1e-12)


@torch.no_grad()
def test_equals_its_equations_whatever_the_padding() -> None:
    encoder = _encoder()
    rows = [[3, 1, 4, 1, 5], [9, 2], [6]]
    padded = torch.tensor([row + [0] * (7 - len(row)) for row in rows])
    found = encoder(padded, torch.tensor([5, 2, 1]))
    norm = encoder.first_norm
    for row, states in zip(rows, found, strict=True):
        expected = encoder.items(torch.tensor(row)) + encoder.positions.weight[: len(row)]
        expected = layer_norm(expected, (6,), norm.weight, norm.bias, 1e-12)
        for block in encoder.blocks:
            assert isinstance(block, BidirectionalBlock)
            expected = _block(block, expected)
        torch.testing.assert_close(states[: len(row)], expected, atol=1e-10, rtol=0)


@torch.no_grad()
def test_chosen_places_are_those_of_the_whole() -> None:
    encoder = _encoder()
    items, lengths = torch.tensor([[3, 1, 4, 1], [9, 2, 0, 0]]), torch.tensor([4, 2])
    places = torch.tensor([[3, 0, 1], [1, 0, 0]])
    whole, some = encoder(items, lengths), encoder(items, lengths, places)
    for row in range(2):
        torch.testing.assert_close(some[row], whole[row, places[row]], atol=1e-12, rtol=0)


def test_a_later_item_changes_an_earlier_state() -> None:
    encoder, lengths = _encoder(), torch.tensor([4])
    before = encoder(torch.tensor([[3, 1, 4, 1]]), lengths)
    after = encoder(torch.tensor([[3, 1, 4, 7]]), lengths)
    assert not torch.allclose(before[:, 0], after[:, 0])


def test_attention_and_blocks_have_dropouts_of_their_own() -> None:
    encoder = BidirectionalEncoder(20, 8, 6, 1, 2, 0.3, 0.2)
    (block,) = encoder.blocks
    assert isinstance(block, BidirectionalBlock)
    assert (block.attention.dropout, block.dropout.p) == pytest.approx((0.2, 0.3))


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 20), max_size=5), min_size=1, max_size=5), st.integers(5, 8)
)
def test_append_is_that_of_lists(rows: list[list[int]], window: int) -> None:
    for width in (max(1, *map(len, rows)), window):
        items = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        found, longer = append(items, lengths, 30 + torch.arange(len(rows)), window)
        expected = [[*row, 30 + number][-window:] for number, row in enumerate(rows)]
        assert longer.tolist() == [len(row) for row in expected]
        assert found.shape[1] == min(width + 1, window)
        wanted = [row + [0] * (found.shape[1] - len(row)) for row in expected]
        assert found.tolist() == wanted
