"""Tokens in a trained encoder: where they stand, what they see, what sees them."""

import pytest
import torch
from torch import Tensor, nn

from intentbench.nn.bidirectional import BidirectionalEncoder
from intentbench.nn.intent_distiller import (
    BidirectionalReader,
    CausalReader,
    IntentDistiller,
    Reader,
    RecurrentReader,
    masked_block,
    per_position_mask,
    place_tokens,
)
from intentbench.nn.transformer import SequenceEncoder

WIDTH = 6
ITEMS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [7, 0, 0, 0, 0]])
LENGTHS = torch.tensor([5, 3, 1])
CAUSAL = ("sasrec", "bert", "gru")
ALL = (*CAUSAL, "bidirectional")


def _reader(kind: str) -> Reader:
    torch.manual_seed(0)
    drop = nn.Dropout(0.3)
    parts: list[nn.Module]
    reader: Reader
    if kind == "gru":
        items, gru = nn.Embedding(21, WIDTH, padding_idx=0), nn.GRU(WIDTH, 9, batch_first=True)
        back = nn.Linear(9, WIDTH)
        parts, reader = [items, gru, back, drop], RecurrentReader(items, gru, back, drop, drop)
    elif kind == "bidirectional":
        both = BidirectionalEncoder(21, 8, WIDTH, 2, 2, 0.3, 0.3)
        parts, reader = [both], BidirectionalReader(both, 20)
    else:
        name = "sasrec" if kind == "sasrec" else "bert"
        encoder = SequenceEncoder(20, 8, name, WIDTH, 2, 2, 0.3)  # type: ignore[arg-type]
        parts, reader = [encoder], CausalReader(encoder)
    for part in parts:
        part.double().eval()
        for parameter in part.parameters():  # large: differences must show
            nn.init.normal_(parameter, std=0.5)
    return reader


def _distiller(reader: Reader, k: int = 2, m: int = 3) -> IntentDistiller:
    torch.manual_seed(1)
    return IntentDistiller(reader, k, m).double()


def _alone(reader: Reader, prefix: Tensor, items: list[int], tokens: Tensor) -> Tensor:
    """All states of one row without padding: prefix, items, tokens."""
    embedded = reader.embed(torch.tensor([items]))[0] if items else prefix[:0]
    row = torch.cat([prefix, embedded, tokens])[None]
    return reader.states(row, torch.tensor([row.shape[1]]))[0]


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("kind", ALL)
def test_intents_are_the_last_states_whatever_the_padding(kind: str, k: int) -> None:
    reader = _reader(kind)
    lid = _distiller(reader, k)
    prefix = torch.zeros(0, WIDTH).double() if lid.prefix is None else lid.prefix
    found = lid(reader, ITEMS, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        states = _alone(reader, prefix, ITEMS[row, :n].tolist(), lid.tokens)
        torch.testing.assert_close(found[row], states[-3:], atol=1e-12, rtol=0)
    wide = torch.cat([ITEMS, torch.zeros(3, 3, dtype=torch.int64)], 1)
    torch.testing.assert_close(lid(reader, wide, LENGTHS), found, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ALL)
def test_without_items_there_are_intents(kind: str) -> None:
    reader = _reader(kind)
    lid = _distiller(reader)
    assert lid.prefix is not None
    found = lid(reader, torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0]))[0]
    torch.testing.assert_close(found, _alone(reader, lid.prefix, [], lid.tokens)[-3:])


@pytest.mark.parametrize("kind", CAUSAL)
def test_without_prefix_item_states_are_the_encoders_own(kind: str) -> None:
    reader = _reader(kind)
    lid = _distiller(reader, 0)
    states = _alone(reader, lid.tokens[:0], [3, 1, 4, 1], lid.tokens)
    if isinstance(reader, CausalReader):
        own = reader.encoder(torch.tensor([[3, 1, 4, 1]]))[0]
    else:
        assert isinstance(reader, RecurrentReader)
        own = reader.back(reader.gru(reader.items(torch.tensor([[3, 1, 4, 1]])))[0])[0]
    torch.testing.assert_close(states[:4], own, atol=1e-12, rtol=0)


def test_bidirectional_states_without_tokens_are_the_encoders_own() -> None:
    reader = _reader("bidirectional")
    assert isinstance(reader, BidirectionalReader)
    found = reader.states(reader.embed(ITEMS), LENGTHS)
    torch.testing.assert_close(found, reader.encoder(ITEMS, LENGTHS))
    assert reader.table.shape == (21, WIDTH)


@pytest.mark.parametrize("kind", CAUSAL)
def test_nothing_sees_what_follows_and_the_prefix_steers(kind: str) -> None:
    reader = _reader(kind)
    lid = _distiller(reader)
    assert lid.prefix is not None
    prefix, tokens = lid.prefix.detach(), lid.tokens.detach()
    states = _alone(reader, prefix, [3, 1, 4], tokens)
    other_items = _alone(reader, prefix, [5, 9, 2], tokens)
    assert states[:2].equal(other_items[:2]), "prefix states do not depend on items"
    for j in range(3):
        changed = tokens.clone()
        changed[j] = changed[j].flip(0)
        after = _alone(reader, prefix, [3, 1, 4], changed)
        same = (after == states).all(1).tolist()
        assert same == [True] * (5 + j) + [False] * (3 - j)
    steered = _alone(reader, prefix.flip(1), [3, 1, 4], tokens)
    assert (steered[2:5] != states[2:5]).all(1).all(), "item states do depend on the prefix"


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("kind", ALL)
def test_intents_of_every_prefix_in_one_pass(kind: str, k: int) -> None:
    reader = _reader(kind)
    lid = _distiller(reader, k)
    found = lid.everywhere(reader, ITEMS)
    assert found.shape == (3, 5, 3, WIDTH)
    for row, n in enumerate(LENGTHS.tolist()):
        for t in range(n):
            alone = lid(reader, ITEMS[row : row + 1, : t + 1], torch.tensor([t + 1]))[0]
            torch.testing.assert_close(found[row, t], alone, atol=1e-12, rtol=0)


def test_order_of_a_row() -> None:
    prefix, tokens = -torch.ones(2, 1), torch.tensor([[101.0], [102.0], [103.0]])
    placed = place_tokens(prefix, ITEMS[:, :, None].float(), LENGTHS, tokens)[:, :, 0]
    for row, n in enumerate(LENGTHS.tolist()):
        expected = [-1, -1, *ITEMS[row, :n].tolist(), 101, 102, 103, *[0] * (5 - n)]
        assert placed[row].tolist() == expected


@pytest.mark.parametrize(("k", "n", "m"), [(0, 3, 2), (2, 4, 3), (1, 1, 1)])
def test_mask_of_every_prefix(k: int, n: int, m: int) -> None:
    visible = per_position_mask(k, n, m, torch.device("cpu"))
    places = [("context", p - k, 0) for p in range(k + n)]
    places += [("token", t, j) for t in range(n) for j in range(m)]
    for a, (kind, t, j) in enumerate(places):
        for b, (other, s, i) in enumerate(places):
            own = kind == other == "token" and s == t and i <= j
            seen = own or (other == "context" and s <= t)
            assert bool(visible[a, b]) == seen, (places[a], places[b])


@pytest.mark.parametrize("kind", ["sasrec", "bert"])
def test_block_under_a_causal_mask_is_the_block(kind: str) -> None:
    reader = _reader(kind)
    assert isinstance(reader, CausalReader)
    states = torch.randn(2, 5, WIDTH).double()
    for block in reader.encoder.blocks:
        found = masked_block(block, states, states, torch.ones(5, 5, dtype=torch.bool).tril())
        torch.testing.assert_close(found, block(states), atol=1e-12, rtol=0)


def test_tokens_start_with_the_spread_of_the_items_and_follow_it() -> None:
    reader = _reader("bert")
    lid = IntentDistiller(reader, 300, 200)
    assert float(lid.tokens.detach().std()) == pytest.approx(0.5, rel=0.15)
    assert lid.prefix is not None
    assert float(lid.prefix.detach().std()) == pytest.approx(0.5, rel=0.15)
    assert not lid.tokens[0].equal(lid.tokens[1])
    before = lid.tokens.detach().clone()
    with torch.no_grad():
        reader.table.mul_(4)
    lid.rescale(reader)
    torch.testing.assert_close(lid.tokens.detach(), 4 * before)


@pytest.mark.parametrize("kind", ALL)
def test_gradients_reach_all_tokens(kind: str) -> None:
    reader = _reader(kind)
    lid = _distiller(reader)
    lid(reader, ITEMS, LENGTHS).square().sum().backward()
    assert sum(p.numel() for p in lid.parameters()) == (2 + 3) * WIDTH
    for parameter in lid.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any(1).all()
