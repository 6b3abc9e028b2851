"""Both encoders: causal, blind to padding, and equal to their equations."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, relu

from intentbench.nn.transformer import (
    BertBlock,
    CausalSelfAttention,
    EncoderName,
    SASRecBlock,
    SequenceEncoder,
)

KINDS = get_args(EncoderName)


def _encoder(kind: EncoderName) -> SequenceEncoder:
    torch.manual_seed(0)
    encoder = SequenceEncoder(20, 8, kind, width=6, blocks=2, heads=2, dropout=0.3).double()
    for parameter in encoder.parameters():  # larger than the initialisation: differences must show
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_item_changes_no_earlier_state(kind: EncoderName) -> None:
    encoder = _encoder(kind)
    items = torch.tensor([[3, 1, 4, 1, 5, 9]])
    changed = items.clone()
    changed[0, 4:] = torch.tensor([17, 18])
    before, after = encoder(items), encoder(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=0)
    assert not torch.allclose(before[:, 4], after[:, 4])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_the_right_changes_no_state(kind: EncoderName) -> None:
    encoder = _encoder(kind)
    short = encoder(torch.tensor([[3, 1, 4]]))
    padded = encoder(torch.tensor([[3, 1, 4, 0, 0, 0, 0]]))
    torch.testing.assert_close(short, padded[:, :3], rtol=0, atol=1e-12)


def _attention(module: CausalSelfAttention, queries: Tensor, context: Tensor) -> Tensor:
    """Attention written out: one head, one query, one key at a time."""
    width = queries.shape[-1]
    size = width // module.heads
    query = queries @ module.query.weight.T + module.query.bias
    pair = context @ module.key_value.weight.T + module.key_value.bias
    key, value = pair[:, :width], pair[:, width:]
    mixed = torch.zeros_like(queries)
    for head in range(module.heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(len(queries)):
            logits = torch.stack([query[t, part] @ key[s, part] / size**0.5 for s in range(t + 1)])
            for s, weight in enumerate(torch.softmax(logits, 0)):
                mixed[t, part] += weight * value[s, part]
    return mixed


@torch.no_grad()
def test_bert_block_follows_its_equations() -> None:
    torch.manual_seed(1)
    block = BertBlock(6, 2, 0.5).double().eval()
    h = torch.randn(5, 6, dtype=torch.float64)
    norm = (6,)
    first, second = block.attention_norm, block.forward_norm
    out = block.attention.out
    assert isinstance(out, torch.nn.Linear)
    mixed = _attention(block.attention, h, h) @ out.weight.T + out.bias
    mid = layer_norm(h + mixed, norm, first.weight, first.bias, 1e-12)
    inner, outer = block.feed_forward[0], block.feed_forward[2]
    assert inner.out_features == 24
    expected = layer_norm(mid + outer(gelu(inner(mid))), norm, second.weight, second.bias, 1e-12)
    torch.testing.assert_close(block(h[None])[0], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_sasrec_block_normalises_queries_only() -> None:
    torch.manual_seed(2)
    block = SASRecBlock(6, 1, 0.5).double().eval()
    h = torch.randn(5, 6, dtype=torch.float64) * 3
    q = block.attention_norm(h)
    mid = block.forward_norm(q + _attention(block.attention, q, h))
    expected = block.feed_forward[3](relu(block.feed_forward[0](mid))) + mid
    torch.testing.assert_close(block(h[None])[0], expected, rtol=0, atol=1e-12)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="no multiple of heads 4"):
        CausalSelfAttention(6, 4, 0.0)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_encoder_wraps_its_blocks_as_its_paper_does(kind: EncoderName) -> None:
    encoder = _encoder(kind)
    items = torch.tensor([[3, 1, 4, 1]])
    table, positions = encoder.items.weight, encoder.positions.weight
    rows = torch.stack([table[i] for i in items[0].tolist()])
    if kind == "sasrec":  # sqrt(D) E[s] + P, blocks, LN
        states = 6**0.5 * rows + positions[:4]
    else:  # LN(E[s] + P), blocks
        norm = encoder.first_norm
        assert isinstance(norm, torch.nn.LayerNorm)
        states = layer_norm(rows + positions[:4], (6,), norm.weight, norm.bias, 1e-12)
    for block in encoder.blocks:
        states = block(states[None])[0]
    if kind == "sasrec":
        last = encoder.last_norm
        assert isinstance(last, torch.nn.LayerNorm)
        states = layer_norm(states, (6,), last.weight, last.bias, 1e-8)
    torch.testing.assert_close(encoder(items)[0], states, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_where_the_papers_have_it(kind: EncoderName) -> None:
    """Each place drops on its own: the mask of one is not that of another."""
    encoder = _encoder(kind)
    rates = [m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)]
    attention = [m.dropout for m in encoder.modules() if isinstance(m, CausalSelfAttention)]
    # one of the embeddings; sasrec: two in each FFN; bert: one, used before both residual sums
    assert rates == [0.3] * (1 + 2 * (2 if kind == "sasrec" else 1))
    assert attention == [0.3, 0.3]
    items = torch.tensor([[3, 1, 4, 1]])
    torch.testing.assert_close(encoder(items), encoder(items))
    assert not torch.allclose(encoder.train()(items), encoder(items))


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_last_state_is_the_state_at_the_last_item(kind: EncoderName, blocks: int) -> None:
    torch.manual_seed(0)
    encoder = SequenceEncoder(20, 8, kind, width=6, blocks=blocks, heads=2, dropout=0.3).double()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    items = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [7, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    lengths = torch.tensor([5, 3, 1, 0])
    whole = encoder.eval()(items)
    expected = whole[torch.arange(4), (lengths - 1).clamp(min=0)]
    torch.testing.assert_close(encoder.last_state(items, lengths), expected, rtol=0, atol=1e-12)
