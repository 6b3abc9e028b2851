"""Cross-attention to intents, causal decisions, and the masks of two views."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from intentbench.nn.deliberation import (
    CrossAttention,
    DeliberativeReasoner,
    Fusion,
    apply_masks,
    draw_rounds,
    intent_signs,
    two_masks,
)
from intentbench.nn.transformer import SequenceEncoder

WIDTH, M = 6, 3
ITEMS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
LAST = torch.tensor([4, 2])


def _reasoner(fusion: Fusion = "cross") -> DeliberativeReasoner:
    torch.manual_seed(0)
    encoder = SequenceEncoder(20, 8, "bert", WIDTH, 2, 2, 0.3)
    reasoner = DeliberativeReasoner(encoder, 2, 0.3, fusion).double().eval()
    for parameter in reasoner.parameters():
        nn.init.normal_(parameter, std=0.5)
    return reasoner


def _intents(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape, WIDTH).double()


def _cross() -> CrossAttention:
    cross = _reasoner().crosses[0]
    assert isinstance(cross, CrossAttention)
    return cross


def test_cross_attention_equals_its_equation() -> None:
    cross, states, intents = _cross(), torch.randn(2, 4, WIDTH).double(), _intents(2, M)
    found, weights = cross(states, intents)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4).double())
    size = WIDTH // 2
    for row in range(2):
        query = states[row] @ cross.query.weight.T + cross.query.bias
        pair = intents[row] @ cross.key_value.weight.T + cross.key_value.bias
        for t in range(4):
            joined = []
            for head in range(2):
                part = slice(head * size, (head + 1) * size)
                logits = [query[t, part] @ pair[j, part] / math.sqrt(size) for j in range(M)]
                share = torch.stack(logits).softmax(0)
                torch.testing.assert_close(weights[row, head, t], share)
                values = pair[:, WIDTH:][:, part]
                joined.append(sum(share[j] * values[j] for j in range(M)))
            added = cross.out(torch.cat(joined))  # type: ignore[arg-type]
            torch.testing.assert_close(found[row, t], cross.norm(states[row, t] + added))


def test_equal_intents_add_the_same_to_every_item() -> None:
    cross, states = _cross(), torch.randn(2, 4, WIDTH).double()
    one = _intents(2, 1)
    added = cross.out(cross.key_value(one)[..., WIDTH:])
    for m in (1, M):
        found, weights = cross(states, one.expand(-1, m, -1))
        torch.testing.assert_close(found, cross.norm(states + added))
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / m))


def test_intents_of_each_item() -> None:
    cross, states, intents = _cross(), torch.randn(2, 4, WIDTH).double(), _intents(2, 4, M)
    kept = torch.tensor([[True, False, True], [True, True, True]])
    found, weights = cross(states, intents, kept)
    for t in range(4):
        alone, share = cross(states[:, t : t + 1], intents[:, t], kept)
        torch.testing.assert_close(found[:, t : t + 1], alone)
        torch.testing.assert_close(weights[:, :, t : t + 1], share)
    assert (weights[0, ..., 1] == 0).all()


def test_what_is_dropped_is_as_if_it_were_not_there() -> None:
    cross, states, intents = _cross(), torch.randn(2, 4, WIDTH).double(), _intents(2, M)
    kept = torch.tensor([[True, False, True]] * 2)
    found, _ = cross(states, intents, kept)
    torch.testing.assert_close(found, cross(states, intents[:, [0, 2]])[0])


@pytest.mark.parametrize("fusion", ["cross", "add", "concat", "none"])
def test_later_items_change_no_earlier_state(fusion: Fusion) -> None:
    reasoner = _reasoner(fusion)
    intents = None if fusion == "none" else _intents(2, M)
    before = reasoner(ITEMS, intents).states
    changed = ITEMS.clone()
    changed[:, 3:] = 7
    after = reasoner(changed, intents).states
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=1e-12, rtol=0)
    assert (before[:, 3:] != after[:, 3:]).any()


@pytest.mark.parametrize(
    ("fusion", "shape"),
    [("cross", (2, M)), ("cross", (2, 5, M)), ("add", (2, M)), ("add", (2, 5, M)),
     ("concat", (2, M))],
)  # fmt: skip
def test_last_states_and_several_rounds_in_one_call(fusion: Fusion, shape: Any) -> None:
    reasoner = _reasoner(fusion)
    sets = [_intents(*shape), _intents(*shape) * 2, _intents(*shape).flip(-1)]
    one_call = reasoner(ITEMS, torch.cat(sets), LAST)
    for number, intents in enumerate(sets):
        whole = reasoner(ITEMS, intents)
        wanted = torch.stack([whole.states[row, LAST[row]] for row in range(2)])
        found = one_call.states.squeeze(1)[2 * number : 2 * number + 2]
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
        if fusion == "cross":
            for row in range(2):
                seen = one_call.weights[:, 2 * number + row, :, 0]
                torch.testing.assert_close(seen, whole.weights[:, row, :, LAST[row]])
        else:
            assert one_call.weights is None


@pytest.mark.parametrize("fusion", ["cross", "add"])
def test_order_of_intents_is_free(fusion: Fusion) -> None:
    reasoner, intents = _reasoner(fusion), _intents(2, M)
    found = reasoner(ITEMS, intents[:, [2, 0, 1]]).states
    torch.testing.assert_close(found, reasoner(ITEMS, intents).states, atol=1e-12, rtol=0)


def test_without_intents_it_is_the_encoder() -> None:
    reasoner = _reasoner("none")
    assert reasoner(ITEMS, None).states.equal(reasoner.encoder(ITEMS))


def test_other_fusions() -> None:
    intents = _intents(2, M)
    add, concat = _reasoner("add"), _reasoner("concat")
    for reasoner in (add, concat):
        encoder = reasoner.encoder
        first = encoder.first_norm(encoder.items(ITEMS) + encoder.positions.weight[:5])
        states = first + intents.mean(1, keepdim=True)
        if reasoner is concat:
            states = torch.cat([intents, first], 1)
        for block in encoder.blocks:
            states = block(states)
        torch.testing.assert_close(reasoner(ITEMS, intents).states, states[:, -5:])
        assert not reasoner.crosses


@pytest.mark.parametrize("p_mask", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("m", [2, 3, 4])
def test_views_are_never_empty_and_never_alike(m: int, p_mask: float) -> None:
    torch.manual_seed(0)
    noise = torch.rand(5000, 2 * m + 4)
    first, second = two_masks(noise, p_mask)
    assert first.any(1).all()
    assert second.any(1).all()
    assert (first != second).any(1).all()
    raw = (noise[:, :m] >= p_mask, noise[:, m : 2 * m] >= p_mask)
    fine = raw[0].any(1) & raw[1].any(1) & (raw[0] != raw[1]).any(1)
    assert first[fine].equal(raw[0][fine]), "guards touch nothing else"
    assert second[fine].equal(raw[1][fine])


@pytest.mark.parametrize("p_mask", [0.2, 0.5])
def test_share_of_kept_intents(p_mask: float) -> None:
    torch.manual_seed(0)
    kept = draw_rounds(2000, 30, p_mask, torch.device("cpu"))  # so many that guards do not act
    assert kept[0].all()
    for view in kept[1:].float():
        assert float(view.mean()) == pytest.approx(1 - p_mask, abs=4 * 0.5 / math.sqrt(60000))
        assert float(view.mean(0).std()) < 0.03


def test_a_single_intent_is_kept() -> None:
    assert two_masks(torch.rand(100, 6), 0.9).all()


def test_masked_intents_are_zeros_or_no_keys() -> None:
    masks = torch.tensor([[[True, False, True], [True, True, False]], [[False, True, True]] * 2])
    for intents in (_intents(2, M), _intents(2, 5, M)):
        zeroed, kept = apply_masks(intents, masks, drop=False)
        whole, seen = apply_masks(intents, masks, drop=True)
        assert kept is None
        assert seen is not None
        for view in range(2):
            for row in range(2):
                place = 2 * view + row
                assert whole[place].equal(intents[row])
                assert seen[place].equal(masks[view, row])
                for j in range(M):
                    own = intents[row, ..., j, :]
                    wanted = own if masks[view, row, j] else torch.zeros_like(own)
                    assert zeroed[place][..., j, :].equal(wanted)


@pytest.mark.parametrize("n", [None, 5])
def test_signs_of_a_collapse(n: int | None) -> None:
    intents = _intents(2, M) if n is None else _intents(2, n, M)
    weights = torch.rand(2, 4, 2, n or 1, M).double()
    weights = weights / weights.sum(-1, keepdim=True)
    signs = intent_signs(intents, weights, LAST)
    for row in range(2):
        own = intents[row] if n is None else intents[row, LAST[row]]
        pairs = [
            torch.cosine_similarity(own[i], own[j], dim=0)
            for i in range(M)
            for j in range(M)
            if i != j
        ]
        torch.testing.assert_close(signs["intent_cosine"][row], torch.stack(pairs).mean())
        seen = weights[:, row, :, 0 if n is None else LAST[row]]
        entropy = -(seen * seen.log()).sum(-1).mean() / math.log(M)
        torch.testing.assert_close(signs["attention_entropy"][row], entropy)
    even = intent_signs(intents.new_ones(2, M, WIDTH), torch.full_like(weights, 1 / M), LAST)
    for value in even.values():
        torch.testing.assert_close(value, torch.ones(2).double())
    assert intent_signs(_intents(2, 1), None, LAST) == {}
