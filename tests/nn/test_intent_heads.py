"""Heads, the mix of their predictions, and the losses against loops in float64."""

import math

import pytest
import torch
from torch import Tensor

from intentbench.nn import cross_entropy
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.intent_heads import (
    IntentHeads,
    IntentMixture,
    multi_loss,
    single_loss,
    weighted_mean,
)
from intentbench.nn.weighted_cross_entropy import weighted_cross_entropy

INTENTS = [("single", 4), ("multi", 6), ("single", 3)]


def _logits() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(5, size, dtype=torch.float64) for _, size in INTENTS]


def test_distributions_sum_to_one_but_for_sigmoids() -> None:
    heads = IntentHeads(8, INTENTS, "softmax")
    for shares in heads.distributions(heads(torch.randn(5, 8))):
        torch.testing.assert_close(shares.sum(-1), torch.ones(5))
    _, multi, _ = IntentHeads(8, INTENTS, "bce").distributions(_logits())
    torch.testing.assert_close(multi, _logits()[1].sigmoid())


def test_mixture_is_a_convex_combination() -> None:
    mixture = IntentMixture([size for _, size in INTENTS], 7).double()
    shares = [logits.softmax(-1) for logits in _logits()]
    mixed, weights = mixture(shares)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, dtype=torch.float64))
    assert mixture.attend is not None
    for row in range(5):
        vectors = [
            project(share[row]) for project, share in zip(mixture.project, shares, strict=True)
        ]
        exps = [math.exp(float(mixture.attend(vector).detach())) for vector in vectors]
        omega = [value / sum(exps) for value in exps]
        assert weights[row].tolist() == pytest.approx(omega)
        expected = sum(w * v for w, v in zip(omega, vectors, strict=True))
        torch.testing.assert_close(mixed[row], expected)


def test_without_attention_vectors_are_averaged_or_joined() -> None:
    shares = [logits.softmax(-1) for logits in _logits()]
    mean = IntentMixture([size for _, size in INTENTS], 7, "mean").double()
    joined = IntentMixture([size for _, size in INTENTS], 7, "concatenation").double()
    joined.load_state_dict(mean.state_dict())  # none has an attention
    vectors = [project(part) for project, part in zip(mean.project, shares, strict=True)]
    for mixture, expected in ((mean, sum(vectors) / 3), (joined, torch.cat(vectors, 1))):
        found, weights = mixture(shares)
        assert weights is None
        assert found.shape == (5, mixture.joined)
        torch.testing.assert_close(found, expected)


def test_a_single_intent_takes_all_attention() -> None:
    mixture = IntentMixture([4], 7)
    shares = torch.randn(5, 4).softmax(-1)
    mixed, weights = mixture([shares])
    assert weights.equal(torch.ones(5, 1))
    torch.testing.assert_close(mixed, mixture.project[0](shares))


def test_single_loss_is_a_mean_over_targets_with_a_label() -> None:
    logits = _logits()[0]
    labels, weights = torch.tensor([1, -1, 0, 3, 2]), torch.tensor([1.0, 5, 2, 0, 3]).double()
    terms = [
        -math.log(float(logits[row].softmax(-1)[label]))
        for row, label in enumerate(labels.tolist())
        if label >= 0
    ]
    assert float(single_loss(logits, labels)) == pytest.approx(sum(terms) / 4)
    weighted = 1 * terms[0] + 2 * terms[1] + 0 * terms[2] + 3 * terms[3]
    assert float(single_loss(logits, labels, weights)) == pytest.approx(weighted / 6)


def test_multi_loss_sums_over_labels() -> None:
    logits = _logits()[1]
    labels = torch.zeros(5, 6, dtype=torch.bool)
    for row, held in enumerate([[0, 2], [1], [], [3, 4, 5], [2]]):
        labels[row, held] = True
    terms = [
        -sum(math.log(float(logits[row].softmax(-1)[c])) for c in labels[row].nonzero().flatten())
        for row in (0, 1, 3, 4)
    ]
    assert float(multi_loss(logits, labels)) == pytest.approx(sum(terms) / 4)
    binary = [
        -sum(
            math.log(p if held else 1 - p)
            for p, held in zip(logits[row].sigmoid().tolist(), labels[row].tolist(), strict=True)
        )
        / 6
        for row in (0, 1, 3, 4)
    ]
    assert float(multi_loss(logits, labels, sigmoid=True)) == pytest.approx(sum(binary) / 4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_multi_loss_has_its_minimum_at_equal_shares(count: int) -> None:
    """r log r, at p = 1/r on each of r labels; sigmoids without negatives would have none."""
    labels = torch.zeros(1, 5, dtype=torch.bool)
    labels[0, :count] = True
    logits = torch.randn(1, 5, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(1500):
        optimizer.zero_grad()
        loss = multi_loss(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) == pytest.approx(count * math.log(count), abs=1e-3)
    assert logits.softmax(-1)[0, :count].tolist() == pytest.approx([1 / count] * count, abs=1e-2)


def test_one_label_of_several_is_the_single_loss() -> None:
    logits = _logits()[1]
    labels = torch.tensor([0, 5, 2, 2, 1])
    held = labels[:, None] == torch.arange(6)
    torch.testing.assert_close(multi_loss(logits, held), single_loss(logits, labels))


def test_losses_at_equal_logits_are_logarithms() -> None:
    assert float(single_loss(torch.zeros(3, 9), torch.tensor([1, 2, 3]))) == pytest.approx(
        math.log(9)
    )


def test_nothing_to_learn_is_no_loss() -> None:
    assert float(single_loss(torch.randn(2, 3), torch.tensor([-1, -1]))) == 0
    assert float(multi_loss(torch.randn(2, 3), torch.zeros(2, 3, dtype=torch.bool))) == 0
    assert float(weighted_mean(torch.ones(2), torch.zeros(2))) == 0


def _items() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    states = torch.randn(7, 4, dtype=torch.float64).requires_grad_()
    table = torch.randn(10, 4, dtype=torch.float64).requires_grad_()
    return states, table, torch.tensor([1, 9, 3, 3, 5, 2, 8])


@pytest.mark.parametrize("cells", [15, 4_000_000])
def test_weighted_cross_entropy(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal weights are none; a common factor cancels; weight 0 removes a target."""
    monkeypatch.setattr(cross_entropy, "CHUNK_CELLS", cells)
    states, table, targets = _items()
    plain = chunked_cross_entropy(states, table, targets)
    grads = torch.autograd.grad(plain, (states, table))
    for factor in (1.0, 7.0):
        weights = torch.full((7,), factor, dtype=torch.float64)
        equal = weighted_cross_entropy(states, table, targets, weights)
        torch.testing.assert_close(equal, plain)
        for found, expected in zip(torch.autograd.grad(equal, (states, table)), grads, strict=True):
            torch.testing.assert_close(found, expected)
    weights = torch.tensor([1, 0, 2, 1, 0, 3, 1]).double()
    kept = weights > 0
    found = weighted_cross_entropy(states, table, targets, weights)
    alone = weighted_cross_entropy(states[kept], table, targets[kept], weights[kept])
    torch.testing.assert_close(found, alone)
    terms = [
        -math.log(float((table[1:] @ state).softmax(0)[target - 1].detach()))
        for state, target in zip(states, targets.tolist(), strict=True)
    ]
    expected = sum(w * t for w, t in zip(weights.tolist(), terms, strict=True)) / 8
    assert float(found.detach()) == pytest.approx(expected)
