"""BIGCF: what its specification says must hold, against dense references in float64."""

from functools import partial
from math import exp, log
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.models.bigcf import BIGCF, BIGCFViews, closeness
from intentbench.models.graph import Triples

N_USERS, N_ITEMS = 12, 8
N_NODES = N_USERS + N_ITEMS
USERS, ITEMS = slice(0, N_USERS), slice(N_USERS, N_NODES)

_assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
"""The graph keeps its weights in float32."""


def _data() -> SequenceDataModule:
    return SequenceDataModule(planted_cycles(N_USERS, 1, N_ITEMS), layout="pair", batch_size=16)


def _model(**arguments: Any) -> BIGCF:
    torch.manual_seed(0)
    settings = {"width": 4, "layers": 2, "prototypes": 3, "contrast_weight": 0.3} | arguments
    model = BIGCF(N_ITEMS, N_USERS, **settings).double()
    model.prepare(_data().training())
    return model


def _batch() -> SequenceBatch:
    return next(iter(_data().train_dataloader()))


def _reference(model: BIGCF) -> tuple[list[Tensor], Tensor, Tensor]:
    """The layers, μ and σ, with n x n matrices."""
    training = _data().training()
    adjacency = torch.zeros(N_NODES, N_NODES, dtype=torch.float64)
    adjacency[training.users, N_USERS + training.items - 1] = 1
    adjacency = adjacency + adjacency.T
    degrees = adjacency.sum(1)
    normalised = adjacency / (degrees[:, None] * degrees).sqrt()
    layers = [torch.cat([model.users, model.items])]
    for _ in range(model.layers):
        layers.append(normalised @ layers[-1])
    mean = torch.stack(layers).sum(0)
    sides = ((mean[USERS], model.prototypes.users), (mean[ITEMS], model.prototypes.items))
    return layers, mean, torch.cat([(rows @ c).softmax(1) @ c.T for rows, c in sides])


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.square().sum(-1, keepdim=True).sqrt()


def _slow_h(anchors: Tensor, partners: Tensor, temperature: float) -> Tensor:
    masses = (_unit(anchors) @ _unit(partners).T / temperature).exp()
    return -(masses.diagonal() / masses.sum(1)).log().mean()


# one pass --------------------------------------------------------------------------------------


def test_layers_and_spread_equal_the_dense_reference() -> None:
    """Of the clean pass, in training too."""
    model = _model(layers=3)
    layers, mean, spread = _reference(model)
    for training in (True, False):
        views = model.train(training).views(model.nodes())
        _assert_close(torch.stack(views.layers), torch.stack(layers))
        _assert_close(views.spread, spread)
    _assert_close(views.final, mean)


def test_noise_of_training_is_gaussian_times_the_spread() -> None:
    model = _model()
    _, mean, spread = _reference(model)
    torch.manual_seed(5)
    final = model.views(model.nodes()).final
    torch.manual_seed(5)
    _assert_close(final, mean + spread * torch.randn_like(mean))


@torch.no_grad()
def test_mean_of_e_over_draws_is_mu() -> None:
    model, draws = _model(), 2000
    _, mean, spread = _reference(model)
    final = torch.stack([model.views(model.nodes()).final for _ in range(draws)])
    errors = (final.mean(0) - mean) / (spread.abs() / draws**0.5)
    assert errors.abs().max() < 4.5  # standard errors, of 80 cells
    torch.testing.assert_close(final.std(0), spread.abs(), rtol=0.1, atol=0)


def test_one_prototype_makes_the_spread_constant_a_side() -> None:
    model = _model(prototypes=1)
    spread = model.views(model.nodes()).spread
    assert spread[USERS].allclose(model.prototypes.users.T)
    assert spread[ITEMS].allclose(model.prototypes.items.T)


# scores ----------------------------------------------------------------------------------------


def _tables(model: BIGCF) -> Tensor:
    return torch.cat([model.user_table, model.item_vectors[1:]])


@torch.no_grad()
def test_scores_are_those_of_mu_and_two_evaluations_agree_exactly() -> None:
    model = _model()
    _, mean, _ = _reference(model)
    model.eval()
    first = _tables(model).clone()
    _assert_close(first, mean)
    model.train()
    model.eval()
    assert _tables(model).equal(first)
    batch = next(iter(_data().predict_dataloader()))
    _assert_close(model.score(batch)[:, 1:], mean[batch.users] @ mean[ITEMS].T)


@torch.no_grad()
def test_noisy_evaluation_draws_the_same_noise_each_time() -> None:
    model = _model(noisy_eval=True)
    _, mean, spread = _reference(model)
    state = torch.get_rng_state()
    model.eval()
    first = _tables(model).clone()
    model.train()
    model.eval()
    assert _tables(model).equal(first)
    assert torch.get_rng_state().equal(state)
    noise = (first - mean) / spread
    assert 0.6 < noise.std() < 1.4
    assert len(set(noise.flatten().tolist())) == noise.numel()


def test_noisy_evaluation_changes_no_training() -> None:
    batch, weights = _batch(), []
    for noisy in (False, True):
        model = _model(noisy_eval=noisy)
        optimizer = model.configure_optimizers()
        for _ in range(3):
            model.train()
            model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]  # in torch
            optimizer.step()
            model.eval()
        weights.append(model.nodes())
    assert weights[0].equal(weights[1])


# the loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_loss_equals_the_dense_reference(temperature: float) -> None:
    model, batch = _model(l2=0.01, prototype_l2=0.2, temperature=temperature), _batch()
    torch.manual_seed(3)
    found = model.loss(batch)
    torch.manual_seed(3)
    _, mean, spread = _reference(model)
    e = mean + spread * torch.randn_like(mean)
    triples = model.triples(batch)
    u, i = triples.users, triples.positives
    assert len(set(u.tolist())) < len(u)
    margins = (e[u] * (e[i] - e[triples.negatives])).sum(1)
    pairs = [(e[u], e[u]), (e[i], e[i]), (e[u], e[i])]
    pairs += [(spread[u], spread[u]), (spread[i], spread[i])]
    contrast = torch.stack([_slow_h(a, b, temperature) for a, b in pairs]).sum()
    centres = (model.prototypes.users, model.prototypes.items)
    parameters = (model.users, model.items, *centres)
    expected = {
        "bpr": -margins.sigmoid().log().mean(),
        "contrast": 0.3 * contrast,
        "prototype_l2": 0.2 * torch.stack([c.square().sum() for c in centres]).sum(),
        "l2": 0.01 * torch.stack([p.square().sum() for p in parameters]).sum(),
    }
    assert found.keys() == {"total", *expected}
    for name, value in expected.items():
        _assert_close(found[name], value)
    total = torch.stack([*expected.values()]).sum()
    _assert_close(found["total"], total)
    gradients = zip(
        torch.autograd.grad(found["total"], parameters),
        torch.autograd.grad(total, parameters),
        strict=True,
    )
    for ours, theirs in gradients:
        assert theirs.any()
        _assert_close(ours, theirs)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_contrast_has_its_closed_form_at_orthonormal_rows(temperature: float) -> None:
    """For distinct users whose e is that of their items: five equal terms."""
    model = _model(contrast_weight=1.0, temperature=temperature, width=N_NODES)
    users, items = torch.tensor([4, 1, 6]), N_USERS + torch.tensor([2, 0, 7])
    rows = torch.eye(N_NODES, dtype=torch.float64)
    rows[items] = rows[users]
    found = model.own_terms(BIGCFViews(rows, (rows,), rows), Triples(users, items, items))
    closed = log(1 + 2 * exp(-1 / temperature))
    assert found["contrast"].item() == pytest.approx(5 * closed, rel=1e-6)


# closeness -------------------------------------------------------------------------------------


def _rows(count: int, width: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


def _to_itself(rows: Tensor, counts: Tensor, temperature: float) -> Tensor:
    return closeness(rows, rows, counts, counts, temperature)


@pytest.mark.parametrize("cells", [1, 30, 1_000_000])
def test_closeness_to_itself_has_the_numerator_of_a_full_cosine_in_every_row(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intentbench.nn.node_contrast.CHUNK_CELLS", {"cpu": cells})
    drawn = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4, 5, 6])
    rows = _rows(7)
    cosines = _unit(rows[drawn]) @ _unit(rows[drawn]).T
    slow = [-log(exp(1 / 0.3) / sum(exp(float(s) / 0.3) for s in row)) for row in cosines]
    found = _to_itself(rows, drawn.bincount(), 0.3)
    assert found.item() == pytest.approx(sum(slow) / len(slow), rel=1e-9)


@pytest.mark.parametrize("cells", [1, 30, 1_000_000])
def test_gradient_of_closeness_agrees_with_finite_differences(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intentbench.nn.node_contrast.CHUNK_CELLS", {"cpu": cells})
    rows, others = _rows(7).requires_grad_(), _rows(12)[7:].requires_grad_()
    counts = torch.tensor([1, 2, 1, 3, 1, 1, 1]), torch.tensor([1, 1, 4, 2, 1])
    assert torch.autograd.gradcheck(lambda a, b: closeness(a, b, *counts, 0.3), (rows, others))
    assert torch.autograd.gradcheck(lambda a: _to_itself(a, counts[0], 0.3), rows)


@pytest.mark.parametrize("count", [1, 5])
def test_closeness_of_equal_rows_is_the_log_of_their_number(count: int) -> None:
    rows = _rows(1).expand(count, -1)
    found = _to_itself(rows, torch.full((count,), 2), 0.2)
    assert found.item() == pytest.approx(log(2 * count), rel=1e-6)


def test_closeness_falls_where_rows_move_apart() -> None:
    rows, counts = _rows(6), torch.ones(6)
    together = [_to_itself(rows + shift, counts, 0.2).item() for shift in (0.0, 1.0, 4.0)]
    assert together == sorted(together)


def test_closeness_is_finite_at_low_temperatures() -> None:
    rows = torch.cat([_rows(6), -_rows(6)]).float().requires_grad_()
    found = _to_itself(rows, torch.ones(12), 1e-3)
    found.backward()  # type: ignore[no-untyped-call]  # in torch
    assert found.isfinite()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
