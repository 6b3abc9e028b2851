"""Ranks from scores and from vectors."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from torch import Tensor
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from datamodules.types import PAD
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.ranks import (
    NonFiniteScoresError,
    best_from_vectors,
    masked_scores,
    ranks_from_scores,
    ranks_from_vectors,
)
from tests.metrics import reference

NOTHING = torch.empty(1, 0, dtype=torch.int64)
INF = torch.inf


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Scores with many ties, targets, and masks with repeats, `PAD` and now and then the target."""
    n_rows, n_items, n_masked = (draw(st.integers(low, 8)) for low in (1, 1, 0))

    def integers(low: int, high: int, *shape: int) -> Tensor:
        numbers = st.integers(low, high)
        drawn = draw(st.lists(numbers, min_size=(n := int(np.prod(shape))), max_size=n))
        return torch.tensor(drawn, dtype=torch.int64).reshape(shape)

    scores = integers(-2, 2, n_rows, n_items + 1).float()
    scores[scores == -2] = -INF
    target = integers(1, n_items, n_rows)
    return scores, target, integers(PAD, n_items, n_rows, n_masked)


def reference_ranks(scores: Tensor, target: Tensor, masked: Tensor) -> list[int]:
    rows = zip(scores.tolist(), target.tolist(), masked.tolist(), strict=True)
    return [reference.rank(*row) for row in rows]


@pytest.mark.parametrize(
    ("target", "masked", "rank"),
    [
        (1, [], 1),  # the best
        (4, [], 5),  # four are higher
        (2, [], 3),  # one is higher, two others are equal: half of them stand before it
        (2, [3], 3),  # one other is equal: half of one, rounded up
        (2, [3, 5], 2),
        (2, [3, 3, PAD, 1], 2),  # repeats count once
        (4, [1, 2, 3, 5], 1),
        (4, [4], 5),  # masked itself: last
        (PAD, [], 5),  # nothing to rank: last
    ],
)
def test_ranks_are_those_worked_by_hand(target: int, masked: list[int], rank: int) -> None:
    scores = torch.tensor([[9.0, 5.0, 3.0, 3.0, 1.0, 3.0]])
    mask = torch.tensor([masked], dtype=torch.int64)
    assert ranks_from_scores(scores, torch.tensor([target]), mask).tolist() == [rank]


@given(problems())
def test_ranks_equal_a_plain_loop(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    copies = [tensor.clone() for tensor in problem]
    assert ranks_from_scores(*problem).tolist() == reference_ranks(*problem)
    assert all(map(torch.equal, problem, copies))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_scores_of_any_type_are_compared_in_float32(dtype: torch.dtype) -> None:
    scores = torch.randn(4, 3000).to(dtype)  # more columns than bfloat16 can count
    target, masked = torch.tensor([1, 8, 200, 2999]), torch.randint(0, 3000, (4, 5))
    expected = reference_ranks(scores.float(), target, masked)
    assert ranks_from_scores(scores.requires_grad_(), target, masked).tolist() == expected


@pytest.mark.parametrize("k", [1, 5, 10, 40])
def test_metrics_equal_scikit_learn_and_torchmetrics(k: int) -> None:
    scores = torch.rand(50, 41)
    target = torch.randint(1, 41, (50,))
    masked = torch.stack([torch.randperm(40)[:7] + 1 for _ in range(50)])
    masked[masked == target[:, None]] = PAD
    ranks = ranks_from_scores(scores, target, masked)
    values = {n: compute_metric(f"{n}@{k}", ranks.numpy()) for n in ("hit_rate", "ndcg", "mrr")}
    for row in range(50):
        candidates = [item for item in range(1, 41) if item not in masked[row]]
        given, relevant = scores[row, candidates], torch.tensor(candidates) == target[row]
        expected = {
            "hit_rate": retrieval_hit_rate(given, relevant, top_k=k),
            "ndcg": retrieval_normalized_dcg(given, relevant, top_k=k),
            "mrr": retrieval_reciprocal_rank(given, relevant, top_k=k),
        }
        for name, value in expected.items():
            assert values[name][row] == pytest.approx(float(value), abs=1e-6)  # they use float32
        exact = ndcg_score([relevant.int().tolist()], [given.double().tolist()], k=k)
        assert values["ndcg"][row] == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("n_items", [10, 11])
def test_a_constant_scorer_gains_nothing(n_items: int) -> None:
    target = torch.arange(1, n_items + 1)
    scores = torch.full((n_items, n_items + 1), 0.3)
    ranks = ranks_from_scores(scores, target, NOTHING.expand(n_items, 0)).numpy()
    for k in range(1, n_items + 1):
        # A random order hits k / V of the time; the middle rank rounds that to 0 or 1.
        assert compute_metric(f"hit_rate@{k}", ranks).mean() == float(k / n_items > 0.5)


def test_a_scorer_that_refuses_all_but_one_item_does_not_beat_it() -> None:
    scores = torch.tensor([[-INF, 0.0, -INF, -INF, -INF]])
    assert ranks_from_scores(scores, torch.tensor([3]), NOTHING).tolist() == [3]


@pytest.mark.parametrize("bad", [torch.nan, INF])
def test_scores_without_an_order_are_refused(bad: float) -> None:
    scores = torch.zeros(5, 7)
    scores[1, 3], scores[4, 6] = bad, bad
    target, masked = torch.ones(5, dtype=torch.int64), torch.full((5, 1), 3)
    with pytest.raises(NonFiniteScoresError, match="2 of 5 rows"):
        ranks_from_scores(scores, target, masked)
    with pytest.raises(NonFiniteScoresError, match="2 of 5 rows"):
        ranks_from_vectors(scores.amax(1, keepdim=True), torch.ones(7, 1), target, masked, chunk=2)


@given(problems(), st.integers(1, 9))
def test_ranks_from_vectors_equal_those_from_scores(
    problem: tuple[Tensor, Tensor, Tensor], chunk: int
) -> None:
    scores, target, masked = problem
    scores = scores.clamp(min=-2)
    queries, bias = torch.eye(len(scores)), scores[0] * 3
    ranks = ranks_from_vectors(queries, scores.T, target, masked, chunk)
    assert torch.equal(ranks, ranks_from_scores(scores, target, masked))
    ranks = ranks_from_vectors(queries, scores.T, target, masked, chunk, bias)
    assert torch.equal(ranks, ranks_from_scores(scores + bias, target, masked))


@pytest.mark.parametrize("chunk", [64, 1000, 1001])
def test_equal_vectors_tie_in_chunks_too(chunk: int) -> None:
    queries, table = torch.randn(64, 50), torch.randn(50).expand(1001, 50)
    target, masked = torch.randint(1, 1001, (64,)), NOTHING.expand(64, 0)
    assert ranks_from_vectors(queries, table, target, masked, chunk).tolist() == [501] * 64


@given(problems(), st.integers(1, 9), st.integers(1, 8))
def test_the_best_from_vectors_equal_those_from_scores(
    problem: tuple[Tensor, Tensor, Tensor], chunk: int, k: int
) -> None:
    scores, _, masked = problem
    scores, k = scores.clamp(min=-2), min(k, scores.shape[1] - 1)
    items, values = best_from_vectors(torch.eye(len(scores)), scores.T, masked, k, chunk)
    whole = masked_scores(scores, masked)
    assert torch.equal(values, whole.topk(k).values)
    assert torch.equal(whole.gather(1, items), values)  # which of equal ones is left open
    for row, best in zip(items.tolist(), values.tolist(), strict=True):
        real = [item for item, value in zip(row, best, strict=True) if value > -INF]
        assert len(set(real)) == len(real)


def test_masked_scores_pick_candidates_only() -> None:
    scores = torch.tensor([[9.0, 1.0, 2.0, 3.0, 4.0]])
    copy = scores.clone()
    best = masked_scores(scores, torch.tensor([[4, 2, 4, PAD]])).topk(2)
    assert best.indices.tolist() == [[3, 1]]
    assert torch.equal(scores, copy)
    with warnings.catch_warnings(action="error"):
        assert masked_scores(scores, NOTHING).argmax().item() == 4
