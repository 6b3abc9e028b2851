"""InfoNCE against a loop over rows."""

import math

import pytest
import torch
from torch import Tensor

from intentbench.nn.info_nce import info_nce


def reference(first: Tensor, second: Tensor, temperature: float, groups: list[int]) -> float:
    rows = [*first, *second]
    labels = groups * 2
    count = len(first)
    total = 0.0
    for a, row in enumerate(rows):
        partner = (a + count) % (2 * count)
        positive = math.exp(float(row @ rows[partner]) / temperature)
        negatives = sum(
            math.exp(float(row @ rows[b]) / temperature)
            for b in range(2 * count)
            if b not in (a, partner) and labels[b] != labels[a]
        )
        total += -math.log(positive / (positive + negatives))
    return total / (2 * count)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1]])
def test_equals_a_loop_over_rows(groups: list[int]) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 4, dtype=torch.float64)
    found = info_nce(first, second, 0.7, torch.tensor(groups))
    assert found.item() == pytest.approx(reference(first, second, 0.7, groups), abs=1e-12)


def test_without_groups_every_other_row_is_a_negative() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 4, dtype=torch.float64)
    found = info_nce(first, second)
    assert found.item() == pytest.approx(reference(first, second, 1.0, [*range(5)]), abs=1e-12)
    assert found.item() == pytest.approx(info_nce(second, first).item(), abs=1e-12)


def test_cosine_ignores_lengths() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 4)
    found = info_nce(3 * first, second / 7, 0.2, cosine=True)
    torch.testing.assert_close(found, info_nce(first, second, 0.2, cosine=True))


def test_one_group_has_no_negatives_and_no_loss() -> None:
    first = torch.randn(3, 4, requires_grad=True)
    loss = info_nce(first, torch.randn(3, 4), groups=torch.zeros(3, dtype=torch.long))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert first.grad is not None
    assert not first.grad.any()


def test_a_row_of_the_same_group_does_not_count() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 3)
    groups = torch.tensor([0, 0, 1, 2])
    changed = first.clone()
    changed[1] = 5.0
    rows = [_term(first, second, groups), _term(changed, second, groups)]
    assert rows[0] == pytest.approx(rows[1])


def _term(first: Tensor, second: Tensor, groups: Tensor) -> float:
    """The term of row 0 alone, by its gradient's support: the reference loop."""
    rows = torch.cat([first, second])
    similarity = rows[0] @ rows.T
    allowed = (groups.repeat(2) != groups[0]).nonzero().squeeze(1)
    allowed = torch.cat([torch.tensor([len(first)]), allowed])
    return float(similarity[allowed].logsumexp(0) - similarity[len(first)])


ALIKE = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]).bool()
"""Row 1 is like 0 and like 2, which are not like each other."""


def views() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 3, dtype=torch.float64)
    return first, second


def sparing_reference(first: Tensor, second: Tensor, temperature: float) -> float:
    rows, count, total = [*first, *second], len(first), 0.0
    for a, row in enumerate(rows):
        scores = [math.exp(float(row @ other) / temperature) for other in rows]
        positive = scores[(a + count) % (2 * count)]
        negatives = sum(s for b, s in enumerate(scores) if not ALIKE[a % count, b % count])
        total -= math.log(positive / (positive + negatives))
    return total / (2 * count)


def test_any_pairs_may_be_spared() -> None:
    found = info_nce(*views(), 0.7, ALIKE)
    assert found.item() == pytest.approx(sparing_reference(*views(), 0.7), abs=1e-12)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("groups", [[0, 1, 2, 3], [0, 1, 0, 1], [5, 5, 5, 5]])
def test_pairs_equal_groups_where_the_relation_has_them(groups: list[int], cosine: bool) -> None:
    named = torch.tensor(groups)
    found = info_nce(*views(), 0.7, named[:, None] == named, cosine)
    torch.testing.assert_close(found, info_nce(*views(), 0.7, named, cosine))
    assert (found == 0) == (len(set(groups)) == 1)
