"""DCCF: what its specification says must hold, against dense references in float64."""

from functools import partial
from math import exp, log
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.models.dccf import DCCF, DCCFViews, LayerViews
from intentbench.models.graph import Triples

N_USERS, N_ITEMS = 12, 8
N_NODES = N_USERS + N_ITEMS
USERS, ITEMS = slice(0, N_USERS), slice(N_USERS, N_NODES)

_assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
"""The graph keeps its weights in float32."""


def _data() -> SequenceDataModule:
    return SequenceDataModule(planted_cycles(N_USERS, 1, N_ITEMS), layout="pair", batch_size=16)


def _model(**arguments: Any) -> DCCF:
    torch.manual_seed(0)
    settings = {"width": 4, "layers": 2, "prototypes": 3, "contrast_weight": 0.3} | arguments
    model = DCCF(N_ITEMS, N_USERS, **settings).double()
    model.prepare(_data().training())
    return model


def _batch() -> SequenceBatch:
    return next(iter(_data().train_dataloader()))


def _adjacency() -> Tensor:
    training = _data().training()
    matrix = torch.zeros(N_NODES, N_NODES, dtype=torch.float64)
    matrix[training.users, N_USERS + training.items - 1] = 1
    return matrix + matrix.T


def _unit(vectors: Tensor) -> Tensor:
    return vectors / (vectors.square().sum(-1, keepdim=True) + 1e-8).sqrt()


def _mask(vectors: Tensor) -> Tensor:
    alike = _adjacency() * (_unit(vectors) @ _unit(vectors).T + 1) / 2
    return alike / alike.sum(1, keepdim=True)


def _reference(model: DCCF) -> tuple[list[Tensor], list[list[Tensor]]]:
    """H^(0..L), and [Z, Q, Y, X] of each layer, with n x n matrices."""
    degrees = _adjacency().sum(1)
    normalised = _adjacency() / (degrees[:, None] * degrees).sqrt()
    layers, parts = [torch.cat([model.users, model.items])], []
    for _ in range(model.layers):
        h = layers[-1]
        sides = ((h[USERS], model.prototypes.users), (h[ITEMS], model.prototypes.items))
        z = normalised @ h
        q = torch.cat([(rows @ c).softmax(1) @ c.T for rows, c in sides])
        parts.append([z, q, _mask(z) @ h, _mask(q) @ h])
        layers.append(h + torch.stack(parts[-1]).sum(0))
    return layers, parts


def _slow_nce(anchors: Tensor, partners: Tensor, temperature: float) -> Tensor:
    cosines = _unit(anchors) @ _unit(partners).T / temperature
    terms = [-cosines[n, n] + cosines[n].exp().sum().log() for n in range(len(cosines))]
    return torch.stack(terms).mean()


def _some_triples() -> Triples:
    """Users 0, 3, 5 and items 1, 2, of which some are drawn twice."""
    users = torch.tensor([3, 0, 3, 5])
    positives, negatives = torch.tensor([1, 0, 0, 1]), torch.tensor([4, 5, 6, 7])
    return Triples(users, N_USERS + positives, N_USERS + negatives)


# one pass --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3])
def test_pass_equals_the_dense_reference(layers: int) -> None:
    model = _model(layers=layers)
    views = model.views(model.nodes())
    expected, parts = _reference(model)
    _assert_close(torch.stack(views.layers), torch.stack(expected))
    _assert_close(views.final, torch.stack(expected).sum(0))
    for found, (z, q, y, x) in zip(views.parts, parts, strict=True):
        _assert_close(found.moved, z)
        _assert_close(found.intents, q)
        _assert_close(found.by_moved, y)
        _assert_close(found.by_intents, x)
    _assert_close(views.intents, torch.stack([part[3] for part in parts]).mean(0))


def test_masks_are_row_stochastic() -> None:
    """What is received of equal vectors is that vector, whatever the weights."""
    model = _model()
    nodes = torch.ones(N_NODES, 4, dtype=torch.float64)
    part = model.views(nodes).parts[0]
    _assert_close(part.by_moved, nodes)
    _assert_close(part.by_intents, nodes)


def test_one_prototype_makes_intents_constant_a_side() -> None:
    model = _model(prototypes=1)
    for part in model.views(model.nodes()).parts:
        for rows, side in ((USERS, model.prototypes.users), (ITEMS, model.prototypes.items)):
            _assert_close(part.intents[rows], side.T.expand_as(part.intents[rows]))


def test_training_and_evaluation_make_the_same_pass() -> None:
    model = _model()
    training, evaluation = (model.train(mode).views(model.nodes()).final for mode in (True, False))
    assert training.equal(evaluation)


def test_no_layers_are_refused() -> None:
    with pytest.raises(RequestError, match="layers: DCCF needs at least 1, not 0"):
        DCCF(N_ITEMS, N_USERS, layers=0)


# the loss --------------------------------------------------------------------------------------


def test_loss_equals_the_dense_reference() -> None:
    model, batch = _model(l2=0.01, temperature=0.5), _batch()
    torch.manual_seed(3)
    found = model.loss(batch)
    torch.manual_seed(3)
    triples = model.triples(batch)
    layers, parts = _reference(model)
    e = torch.stack(layers).sum(0)
    margins = (e[triples.users] * (e[triples.positives] - e[triples.negatives])).sum(1)
    sides = [sorted(set(nodes.tolist())) for nodes in (triples.users, triples.positives)]
    contrast = sum(
        _slow_nce(z[nodes], other[nodes], 0.5)
        for z, *others in parts
        for other in others
        for nodes in sides
    )
    parameters = (model.users, model.items, model.prototypes.users, model.prototypes.items)
    expected = {
        "bpr": -margins.sigmoid().log().mean(),
        "contrast": 0.3 * torch.as_tensor(contrast),
        "l2": torch.stack([0.01 * parameter.square().sum() for parameter in parameters]).sum(),
    }
    assert found.keys() == {"total", *expected}
    for name, value in expected.items():
        _assert_close(found[name], value)
    total = torch.stack([*expected.values()]).sum()
    _assert_close(found["total"], total)
    pairs = zip(
        torch.autograd.grad(found["total"], parameters),
        torch.autograd.grad(total, parameters),
        strict=True,
    )
    for ours, theirs in pairs:
        assert theirs.any()
        _assert_close(ours, theirs)


def test_contrast_knows_no_duplicates_and_no_negatives() -> None:
    model = _model()
    views, triples = model.views(model.nodes()), _some_triples()
    once = Triples(
        torch.tensor([0, 3, 5]), N_USERS + torch.tensor([1, 0, 1]), N_USERS + torch.tensor([2] * 3)
    )
    _assert_close(
        model.own_terms(views, triples)["contrast"], model.own_terms(views, once)["contrast"]
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_contrast_has_its_closed_form_at_orthonormal_rows(temperature: float) -> None:
    """Items are divided by their own number, not by that of users."""
    model = _model(width=N_NODES, layers=1, contrast_weight=1.0, temperature=temperature)
    rows = torch.eye(N_NODES, dtype=torch.float64)
    views = DCCFViews(rows, (rows,), (LayerViews(rows, rows, rows, rows),), rows)
    closed = sum(log(1 + (count - 1) * exp(-1 / temperature)) for count in (3, 2))
    found = model.own_terms(views, _some_triples())["contrast"]
    assert found.item() == pytest.approx(3 * closed, rel=1e-6)


def test_contrast_reaches_all_of_a_layer() -> None:
    """Both sides of NCE take gradients."""
    model = _model(layers=1)
    generator = torch.Generator().manual_seed(1)
    parts = [
        torch.randn(N_NODES, 4, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(4)
    ]
    views = DCCFViews(parts[0], (parts[0],), (LayerViews(*parts),), parts[3])
    model.own_terms(views, _some_triples())["contrast"].backward()  # type: ignore[no-untyped-call]
    for part in parts:
        assert part.grad is not None
        assert part.grad.any(1).nonzero()[:, 0].tolist() == [0, 3, 5, N_USERS, N_USERS + 1]


# scores ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_scores_are_inner_products_of_the_layer_sums() -> None:
    data, model = _data(), _model()
    model.eval()
    e = torch.stack(_reference(model)[0]).sum(0)
    batch = next(iter(data.predict_dataloader()))
    expected = e[batch.users] @ e[ITEMS].T
    _assert_close(model.score(batch)[:, 1:], expected)
