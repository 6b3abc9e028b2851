"""The split of behaviour into interest and intent, against loops over positions."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from datamodules.errors import RequestError
from intentbench.nn.disentangle import (
    Category,
    CausalCrossAttention,
    Disentangler,
    Fusion,
    FusionName,
    Importance,
    Split,
    Threshold,
    importance,
    unit,
)

WIDTH = 4
LENGTHS = torch.tensor([6, 4, 3, 1])
IMPORTANCE: tuple[Importance, ...] = (
    "mean_dot",
    "mean_cos",
    "self_attention",
    "to_current",
    "uniform",
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def vectors(rows: int = len(LENGTHS), length: int = 6) -> Tensor:
    """Vectors that lean the same way, so that some thresholds cut in the middle."""
    return torch.randn(rows, length, WIDTH, dtype=torch.float64) + 1


def last_queries(intents: Tensor) -> tuple[Tensor, Tensor]:
    """The intents at the last positions (B, 1, D), and those positions (B, 1)."""
    positions = LENGTHS[:, None] - 1
    return intents[torch.arange(len(LENGTHS)), positions[:, 0]][:, None], positions


def members(threshold: Threshold, delta: float, intents: Tensor, top_m: int = 3) -> Tensor:
    """Membership (B, n) of the last intents' categories."""
    category = Category(WIDTH, threshold, delta, top_m).double()
    queries, positions = last_queries(intents)
    found: Tensor = category(queries, intents, positions).squeeze(1).exp().detach()
    return found


def real() -> Tensor:
    return torch.arange(6) < LENGTHS[:, None]


def cosines(intents: Tensor) -> Tensor:
    """(B, n) cosine of each intent with the row's last one."""
    return cosine_similarity(intents, last_queries(intents)[0], dim=2)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("values", ["projected", "identity"])
def test_interest_equals_a_loop_over_positions(heads: int, own: bool, values: Any) -> None:
    attention = CausalCrossAttention(WIDTH, heads, 0.5, own, values).double().eval()
    torch.nn.init.normal_(attention.query.weight)
    states = vectors(2)
    query, key = states @ attention.query.weight.T, states @ attention.key.weight.T
    value = attention.value(states)
    expected = torch.zeros_like(states)
    size = WIDTH // heads
    for b in range(2):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for t in range(6):
                seen = [*range(t + 1)] if own else [*range(t)] or [0]
                scores = torch.stack([query[b, t, part] @ key[b, j, part] for j in seen])
                weights = (scores / math.sqrt(size)).softmax(0)
                for weight, j in zip(weights, seen, strict=True):
                    expected[b, t, part] += weight * value[b, j, part]
    torch.testing.assert_close(attention(states), expected, atol=1e-12, rtol=0)


def test_attention_is_a_causal_mean() -> None:
    """With one-hot behaviour and identity values the interest is the attention itself."""
    attention = CausalCrossAttention(WIDTH, 1, 0.0, own=True, values="identity")
    torch.nn.init.normal_(attention.query.weight)
    weights = attention(torch.eye(WIDTH)[None])[0].detach()
    torch.testing.assert_close(weights.sum(1), torch.ones(WIDTH))
    assert weights.tril().equal(weights)
    assert weights[0].tolist() == [1, 0, 0, 0]
    constant = torch.randn(1, 1, WIDTH).expand(1, 5, WIDTH)
    torch.testing.assert_close(attention(constant), constant)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(RequestError, match="cca_heads 3"):
        CausalCrossAttention(WIDTH, 3, 0.0, own=True, values="identity")


def test_category_is_what_resembles_the_current_intent() -> None:
    intents = vectors()
    likeness = cosines(intents)
    deltas = (-1.0, 0.0, 0.5, 0.9, 1.01)
    sets = [members("fixed", delta, intents) for delta in deltas]
    for delta, found in zip(deltas, sets, strict=True):
        for row, length in enumerate(LENGTHS.tolist()):
            for j in range(6):
                inside = j == length - 1 or (j < length and likeness[row, j] >= delta)
                assert found[row, j] == inside
    assert sets[0].equal(real().double())
    assert members("none", 0.9, intents).equal(sets[0])
    assert all((a >= b).all() for a, b in pairwise(sets)), "it shrinks with δ"
    assert sets[-1].sum(1).tolist() == [1, 1, 1, 1]
    assert 4 < sets[2].sum() < LENGTHS.sum(), "the example cuts in the middle"


def test_comparison_carries_no_gradient_unless_the_threshold_is_learnt() -> None:
    intents = vectors().requires_grad_()
    queries, positions = last_queries(intents)
    assert not Category(WIDTH, "fixed", 0.5, 1)(queries, intents, positions).requires_grad
    assert not Category(WIDTH, "top_m", 0.5, 1)(queries, intents, positions).requires_grad
    learnt = Category(WIDTH, "per_user", 0.5, 1).double()
    learnt(queries, intents, positions).exp().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in learnt.parameters())


def test_top_m_keeps_the_nearest_past_intents() -> None:
    intents = vectors()
    likeness = cosines(intents)
    for m in (1, 3, 9):
        found = members("top_m", 0.7, intents, m)
        for row, length in enumerate(LENGTHS.tolist()):
            past = sorted(range(length - 1), key=lambda j: -float(likeness[row, j]))[:m]
            assert {*found[row].nonzero().flatten().tolist()} == {*past, length - 1}


@pytest.mark.parametrize("threshold", ["learned", "per_user"])
def test_learnt_threshold_begins_at_delta(threshold: Threshold) -> None:
    intents = vectors()
    found = members(threshold, 0.3, intents)
    expected = torch.sigmoid((cosines(intents) - 0.3) / 0.1) * real()
    expected[torch.arange(4), LENGTHS - 1] = 1
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    with pytest.raises(RequestError, match="within"):
        Category(WIDTH, threshold, 1.5, 1)


def expected_importance(form: Importance, intents: Tensor, w: Tensor) -> Tensor:
    """α (n,) of one row, whose last real position has the query."""
    inside = [j for j in range(len(w)) if w[j] > 0]
    last = inside[-1]
    alike = intents @ intents.T / math.sqrt(WIDTH)
    if form == "mean_cos":
        alike = cosine_similarity(intents[:, None], intents[None], dim=2) / 0.1
    result = torch.zeros(len(w), dtype=torch.float64)
    if form == "self_attention":
        for i in inside:
            mass = sum(w[j] * alike[i, j].exp() for j in inside)
            for j in inside:
                result[j] += w[i] / w.sum() * w[j] * alike[i, j].exp() / mass
        return result
    for j in inside:
        score = sum((w[k] * alike[j, k] for k in inside), torch.zeros(())) / w.sum()
        if form == "to_current":
            score = alike[j, last]
        if form == "uniform":
            score = torch.zeros(())
        result[j] = w[j] * score.exp()
    return result / result.sum()


@pytest.mark.parametrize("form", IMPORTANCE)
@pytest.mark.parametrize("threshold", ["fixed", "learned"])
def test_importance_equals_a_loop(form: Importance, threshold: Threshold) -> None:
    intents = vectors()
    w = members(threshold, 0.4, intents)
    found = importance(form, last_queries(intents)[0], intents, w.log().clamp(min=-1e300)[:, None])
    for row in range(len(LENGTHS)):
        expected = expected_importance(form, intents[row], w[row])
        torch.testing.assert_close(found[row, 0], expected, atol=1e-12, rtol=0)
    assert (found >= 0).all()
    assert not found[:, 0][w == 0].any(), "nothing outside the category"
    torch.testing.assert_close(found.sum(2), torch.ones(4, 1, dtype=torch.float64))


def block(**settings: Any) -> Disentangler:
    arguments: dict[str, Any] = {
        "cca_heads": 1,
        "dropout": 0.0,
        "cca_self": True,
        "cca_values": "projected",
        "threshold": "fixed",
        "delta": 0.4,
        "top_m": 3,
        "importance": "mean_dot",
        "fusion": "sum",
    }
    return Disentangler(WIDTH, **(arguments | settings)).double()


@pytest.mark.parametrize("form", IMPORTANCE)
def test_order_of_the_past_and_equal_intents(form: Importance) -> None:
    intents = vectors(1)
    split = Split(torch.zeros_like(intents), -intents, intents)
    order = torch.tensor([3, 0, 4, 1, 2, 5])
    position = torch.tensor([[5]])
    reader = block(importance=form)
    first = reader.read(split, position)
    moved = reader.read(Split(*(part[:, order] for part in split)), position)
    torch.testing.assert_close(moved.weights, first.weights[..., order])
    torch.testing.assert_close(moved.shares, first.shares[..., order])
    torch.testing.assert_close(moved.intent, first.intent)
    torch.testing.assert_close(first.intent, first.weights @ intents)
    same = intents[:, :1].expand(1, 6, WIDTH)
    equal = reader.read(Split(same, same, same), position)
    torch.testing.assert_close(equal.weights, torch.full_like(equal.weights, 1 / 6))


def test_every_position_reads_what_the_last_position_of_its_prefix_reads() -> None:
    reader = block()
    split = reader.split(vectors(2))
    whole = reader.read(split, torch.arange(6).expand(2, 6))
    for t in range(6):
        prefix = Split(*(part[:, : t + 1] for part in split))
        alone = reader.read(prefix, torch.full((2, 1), t))
        torch.testing.assert_close(whole.fused[:, t], alone.fused[:, 0])
        torch.testing.assert_close(whole.weights[:, t, : t + 1], alone.weights[:, 0])
    assert (split.interests + split.intents - split.states).abs().max() < 1e-12


def test_learnt_fusions_begin_as_the_sum() -> None:
    state, interest, intent = torch.randn(3, 5, WIDTH)
    arguments = (state, interest, state - interest, intent)
    names: tuple[FusionName, ...] = ("sum", "scalar", "vector", "gate", "linear")
    for name in names:
        fusion = Fusion(WIDTH, name)
        torch.testing.assert_close(fusion(*arguments), interest + intent, atol=1e-6, rtol=0)
        if name == "sum":
            continue
        fusion(*arguments).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in fusion.parameters())
    assert Fusion(WIDTH, "interest")(*arguments).equal(interest)
    assert Fusion(WIDTH, "intent")(*arguments).equal(intent)
    raw = state - interest
    assert Fusion(WIDTH, "sum")(state, interest, raw, raw).equal(state)


def test_vectors_without_direction_take_no_gradient() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-7, 0.0]], requires_grad=True)
    directions = unit(rows)
    torch.testing.assert_close(directions.detach(), torch.tensor([[0.6, 0.8], [0, 0], [0, 0]]))
    directions.sum().backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
    assert not rows.grad[1:].any()
