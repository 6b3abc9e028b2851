"""InfoNCE of nodes: closed forms, and kept similarities in float64."""

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import cosine_similarity, cross_entropy

from intentbench.nn.node_contrast import nce_against_all, nce_in_batch, nce_of_nodes, unit

TEMPERATURE = 0.3

Contrast = Callable[[Tensor, Tensor], Tensor]
"""Of the rows of two tables, row n of one with row n of the other."""


def _against_all(anchors: Tensor, partners: Tensor) -> Tensor:
    return nce_against_all(anchors, partners, torch.arange(len(anchors)), TEMPERATURE)


def _of_nodes(anchors: Tensor, partners: Tensor) -> Tensor:
    return nce_of_nodes(anchors, partners, torch.arange(len(anchors)), TEMPERATURE)


def _in_batch(anchors: Tensor, partners: Tensor) -> Tensor:
    return nce_in_batch(anchors, partners, TEMPERATURE)


def _masked(anchors: Tensor, partners: Tensor) -> Tensor:
    return nce_in_batch(anchors, partners, TEMPERATURE, torch.arange(len(anchors)))


FORMS = pytest.mark.parametrize("contrast", [_against_all, _of_nodes, _in_batch, _masked])


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _reference(anchors: Tensor, table: Tensor, own: Tensor) -> Tensor:
    """A term of each anchor, from kept cosines."""
    cosines = cosine_similarity(anchors[:, None], table[None], dim=2, eps=0)
    return cross_entropy(cosines / TEMPERATURE, own, reduction="none")


def _assert_same(ours: Tensor, reference: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """Value and gradients, up to the ε under the roots."""
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-7)
    for mine, theirs in zip(
        torch.autograd.grad(3.0 * ours, inputs),
        torch.autograd.grad(3.0 * reference, inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


@FORMS
@pytest.mark.parametrize("count", [2, 7])
def test_orthonormal_rows_with_themselves_have_the_closed_form(
    contrast: Contrast, count: int
) -> None:
    rows = torch.linalg.qr(_randn(9, 9)).Q[:count]
    expected = log(1 + (count - 1) * exp(-1 / TEMPERATURE))
    assert float(contrast(rows, rows)) == pytest.approx(expected, abs=1e-7)


@FORMS
def test_equal_partners_give_the_logarithm_of_their_number(contrast: Contrast) -> None:
    anchors, partners = _randn(6, 4), _randn(1, 4).expand(6, 4)
    assert float(contrast(anchors, partners)) == pytest.approx(log(6), abs=1e-12)


@FORMS
def test_lengths_of_rows_do_not_matter(contrast: Contrast) -> None:
    anchors, partners = _randn(6, 4).float(), _randn(6, 4).float()
    factors = torch.tensor([0.1, 0.5, 1.0, 2.0, 10.0, 100.0])[:, None]
    expected = float(contrast(anchors, partners))
    for changed in (
        contrast(factors * anchors, partners),
        contrast(anchors, factors.flip(0) * partners),
    ):
        assert float(changed) == pytest.approx(expected, rel=1e-5)


@FORMS
def test_it_falls_on_the_way_from_anything_to_orthonormal_anchors(contrast: Contrast) -> None:
    anchors, start = torch.linalg.qr(_randn(6, 6)).Q, _randn(6, 6)
    losses = [
        float(contrast(anchors, (1 - t) * start + t * anchors)) for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert min(losses) == losses[-1]
    assert losses[-1] < losses[0]


def test_a_nearer_positive_lowers_it_by_the_derivative_of_a_softmax() -> None:
    # the positive turns in a plane of its own: the other candidates keep their cosines
    anchor = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    others = _randn(4, 3)

    def loss(cosine: Tensor) -> Tensor:
        positive = torch.stack([cosine, (1 - cosine**2).sqrt(), cosine * 0])
        table = torch.cat([positive[None], others])
        return nce_against_all(anchor, table, torch.tensor([0]), TEMPERATURE)

    last = torch.inf
    for start in torch.linspace(-0.9, 0.9, 7, dtype=torch.float64):
        cosine = start.clone().requires_grad_()
        value = loss(cosine)
        (slope,) = torch.autograd.grad(value, cosine)
        share = torch.exp(-value.detach())
        torch.testing.assert_close(slope, (share - 1) / TEMPERATURE, rtol=1e-6, atol=1e-6)
        assert float(value.detach()) < last
        last = float(value.detach())


@pytest.mark.parametrize("cells", [1, 40, 10**9])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_candidates_equal_kept_similarities(
    cells: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intentbench.nn.node_contrast.CHUNK_CELLS", {"cpu": cells})
    anchors, table = _randn(12, 5).requires_grad_(), _randn(17, 5).requires_grad_()
    own = torch.randint(17, (12,))
    weights = torch.randint(1, 9, (12,)) if weighted else None
    terms = _reference(anchors, table, own)
    counts = torch.ones(12) if weights is None else weights
    reference = (counts * terms).sum() / counts.sum()
    ours = nce_against_all(anchors, table, own, TEMPERATURE, weights)
    _assert_same(ours, reference, (anchors, table))


@pytest.mark.parametrize("cells", [1, 40, 10**9])
def test_nodes_drawn_several_times_count_as_often(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intentbench.nn.node_contrast.CHUNK_CELLS", {"cpu": cells})
    vectors, table = _randn(9, 5).requires_grad_(), _randn(9, 5).requires_grad_()
    nodes = torch.tensor([3, 0, 3, 8, 3, 0, 5])
    ours = nce_of_nodes(vectors, table, nodes, TEMPERATURE)
    _assert_same(ours, _reference(vectors[nodes], table, nodes).mean(), (vectors, table))
    listed = nce_against_all(vectors[nodes], table, nodes, TEMPERATURE)
    torch.testing.assert_close(ours, listed, rtol=0, atol=1e-12)


def test_gradients_against_all_are_those_of_finite_differences() -> None:
    own, weights = torch.tensor([4, 0, 4]), torch.tensor([1.0, 5.0, 2.0])
    anchors, table = _randn(3, 4).requires_grad_(), _randn(6, 4).requires_grad_()
    assert gradcheck(lambda a, t: nce_against_all(a, t, own, 0.5, weights), (anchors, table))


def test_batch_without_nodes_takes_all_other_rows_for_candidates() -> None:
    anchors, partners = _randn(8, 5).requires_grad_(), _randn(8, 5).requires_grad_()
    reference = _reference(anchors, partners, torch.arange(8)).mean()
    ours = nce_in_batch(anchors, partners, TEMPERATURE)
    _assert_same(ours, reference, (anchors, partners))


def test_batch_with_nodes_leaves_out_other_rows_of_the_same_node() -> None:
    anchors, partners = _randn(6, 5).requires_grad_(), _randn(6, 5).requires_grad_()
    nodes = torch.tensor([7, 2, 7, 4, 2, 7])
    terms = []
    for row, node in enumerate(nodes):
        candidates = [row, *(n for n in range(6) if nodes[n] != node)]
        terms.append(_reference(anchors[row : row + 1], partners[candidates], torch.tensor([0])))
    ours = nce_in_batch(anchors, partners, TEMPERATURE, nodes)
    _assert_same(ours, torch.cat(terms).mean(), (anchors, partners))


def test_one_node_in_all_rows_gives_zero_when_masked_and_no_gradient() -> None:
    anchors, partners = _randn(5, 4).requires_grad_(), _randn(5, 4).requires_grad_()
    loss = nce_in_batch(anchors, partners, TEMPERATURE, torch.full((5,), 3))
    assert float(loss.detach()) == 0
    for gradient in torch.autograd.grad(loss, (anchors, partners)):
        assert not gradient.any()


def test_extreme_lengths_and_temperatures_stay_finite() -> None:
    anchors, table = _randn(5, 4).float().requires_grad_(), _randn(7, 4).float().requires_grad_()
    scaled = anchors * torch.tensor([0.0, 1e-12, 1.0, 1e6, 1e12])[:, None]
    loss = nce_against_all(scaled, table, torch.arange(5), 1e-3)
    assert loss.isfinite()
    for gradient in torch.autograd.grad(loss, (anchors, table)):
        assert gradient.isfinite().all()


def test_a_row_of_zeros_has_no_direction_and_a_finite_gradient() -> None:
    rows = torch.zeros(2, 3, requires_grad=True)
    directions = unit(rows)
    assert not directions.any()
    (gradient,) = torch.autograd.grad(directions.sum(), rows)
    assert gradient.isfinite().all()
    lengths = unit(_randn(4, 5)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-7)


def test_mixed_precision_gives_the_loss_in_full_precision() -> None:
    anchors, table, own = _randn(5, 4).float(), _randn(7, 4).float(), torch.arange(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nce_against_all(anchors, table, own, TEMPERATURE)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nce_against_all(anchors, table, own, TEMPERATURE))
