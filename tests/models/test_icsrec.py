"""ICSRec: what its specification says must hold."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.models.base import GradientRecommender
from intentbench.models.icsrec import ICSRec
from intentbench.models.sasrec import SASRec

V, WINDOW = 9, 4
HELD_OUT = (8, 9)
SEQUENCES = [
    [3, 1, 4, 1, 5, 2, *HELD_OUT],
    [2, 5, 3, 5, *HELD_OUT],
    [7, 6, *HELD_OUT],
    [1, 2, 3, 4, 5, *HELD_OUT],
]


def _data(**arguments: Any) -> SequenceDataModule:
    dataset = build_dataset("x", SEQUENCES, V)
    settings: dict[str, Any] = {"layout": "prefix", "window": WINDOW, "batch_size": 5} | arguments
    return SequenceDataModule(dataset, **settings)


def _model(**arguments: Any) -> ICSRec:
    torch.manual_seed(0)
    settings = {"window": WINDOW, "clusters": 3, "width": 8, "dropout": 0.0} | arguments
    model = ICSRec(V, len(SEQUENCES), **settings)
    model.prepare(_data().training())
    return model


def _large(model: ICSRec) -> ICSRec:
    """Weights larger than the initialisation, so that differences show, and an E-step."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.double()
    _e_step(model)
    return model


@torch.no_grad()
def _e_step(model: GradientRecommender) -> None:
    model.eval().on_epoch()
    model.train()


def _trained(model: GradientRecommender, epochs: int = 3) -> list[float]:
    torch.manual_seed(1)
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(epochs):
        _e_step(model)
        for batch in _data().train_dataloader():
            total = model.loss(batch)["total"]
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(float(total.detach()))
    return values


def test_without_its_terms_it_is_sasrec_bit_for_bit() -> None:
    model = _model(contrast_weight=0.0, intent_weight=0.0, dropout=0.3)
    torch.manual_seed(0)
    base = SASRec(
        V, 4, WINDOW, "ce", "prefix", "bert", width=8, heads=2, dropout=0.3, learning_rate=1e-3
    )
    assert _trained(model) == _trained(base)
    weights = base.state_dict()
    found = model.state_dict()
    assert all(found[name].equal(weight) for name, weight in weights.items())
    with_terms = _model(dropout=0.3)
    assert _trained(with_terms) != _trained(base)


def test_no_row_and_no_partner_holds_a_held_out_item() -> None:
    """A prefix of length L trains on its item L - 2 at the latest."""
    model = _model()
    seen = torch.zeros(V + 1, dtype=torch.bool)
    for batch in _data().train_dataloader():
        seen[batch.items.flatten()] = True
        seen[batch.labels] = True
    assert model.prefixes is not None
    items, _ = model.prefixes.windows(torch.arange(len(model.prefixes)))
    seen[items.flatten()] = True
    seen[model.prefixes.target] = True
    assert not seen[list(HELD_OUT)].any()
    assert seen[1:8].all()


def _info_nce(first: Tensor, second: Tensor, groups: list[int], tau: float) -> Tensor:
    """Row by row: positive first, then all rows of other groups."""
    rows = [*first, *second]
    group = [*groups, *groups]
    count, terms = len(first), []
    for a, row in enumerate(rows):
        positive = row @ rows[(a + count) % (2 * count)] / tau
        rest = [row @ rows[b] / tau for b in range(2 * count) if group[b] != group[a]]
        terms.append(torch.logsumexp(torch.stack([positive, *rest]), 0) - positive)
    return torch.stack(terms).mean()


@torch.no_grad()
def test_loss_equals_its_equation() -> None:
    model = _large(_model(temperature=2.0))
    batch = next(iter(_data(batch_size=10).train_dataloader()))
    assert len(set(batch.labels.tolist())) < len(batch.labels)  # some rows share their target
    torch.manual_seed(2)
    terms = model.loss(batch)
    torch.manual_seed(2)
    assert model.prefixes is not None
    own = model.prefixes.numbers(batch.users, batch.key)
    partners = model.prefixes.same_target(own, torch.rand(len(own)))
    assert model.prefixes.target[partners].equal(batch.labels)
    items, lengths = model.prefixes.windows(partners)
    first = torch.stack([_state(model, *row) for row in zip(batch.items, batch.lengths)])  # noqa: B905
    second = torch.stack([_state(model, *row) for row in zip(items, lengths)])  # noqa: B905
    scores = (first @ model.item_table().T)[:, 1:]
    recommendation = cross_entropy(scores, batch.labels - 1)
    contrast = _info_nce(first, second, batch.labels.tolist(), 2.0)
    intent = torch.zeros(())
    for states in (first, second):
        cluster = torch.cdist(states, model.kmeans.centroids).argmin(1)
        prototypes = normalize(model.kmeans.centroids)[cluster]
        intent = intent + _info_nce(states, prototypes, cluster.tolist(), 2.0)
    close: dict[str, Any] = {"atol": 1e-9, "rtol": 0}
    torch.testing.assert_close(terms["recommendation"], recommendation, **close)
    torch.testing.assert_close(terms["contrast"], contrast, **close)
    torch.testing.assert_close(terms["intent"], intent, **close)
    total = recommendation + 0.3 * contrast + 0.1 * intent
    torch.testing.assert_close(terms["total"], total, **close)


def _state(model: ICSRec, items: Tensor, length: Tensor) -> Tensor:
    states: Tensor = model.encoder(items[None, : int(length)])
    return states[0, -1]


@torch.no_grad()
def test_rows_of_one_target_have_no_negatives() -> None:
    """The contrast is 0 then, not NaN."""
    model = _model()
    _e_step(model)
    batch = next(iter(_data().train_dataloader()))
    alike = _of_one_target(batch)
    terms = model.loss(alike)
    assert float(terms["contrast"]) == pytest.approx(0, abs=1e-6)
    assert all(math.isfinite(float(term)) for term in terms.values())
    unmasked = _model(mask_false_negatives=False)
    _e_step(unmasked)
    assert float(unmasked.loss(alike)["contrast"]) > 1


def _of_one_target(batch: SequenceBatch) -> SequenceBatch:
    return replace(
        batch,
        targets=torch.where(batch.targets != PAD, batch.labels[0], PAD),
        labels=torch.full_like(batch.labels, int(batch.labels[0])),
        users=batch.users[:1].expand_as(batch.users),
        key=batch.key[:1].expand_as(batch.key),
    )


def test_clusters_take_no_gradient_and_their_numbers_mean_nothing() -> None:
    model = _large(_model())
    batch = next(iter(_data().train_dataloader()))
    totals = []
    for order in ([0, 1, 2], [2, 0, 1]):
        model.kmeans.centroids = model.kmeans.centroids[order]
        torch.manual_seed(4)
        totals.append(model.loss(batch)["total"])
    totals[1].backward()  # type: ignore[no-untyped-call]
    assert model.kmeans.centroids.grad is None
    torch.testing.assert_close(totals[0], totals[1], atol=1e-12, rtol=0)


def test_e_step_draws_from_no_global_generator() -> None:
    first, second = _model(), _model()
    for model in (first, second):
        state = torch.get_rng_state()
        _e_step(model)
        assert torch.get_rng_state().equal(state)
        torch.rand(3)  # whatever was drawn before
    assert first.kmeans.centroids.equal(second.kmeans.centroids)
    assert first.kmeans.fitted


@torch.no_grad()
def test_intents_are_the_nearest_centroids_of_the_states() -> None:
    model = _large(_model()).eval()
    batch = next(iter(_data(layout="all").train_dataloader()))
    found = model.intents(batch)
    states = []
    for items, length in zip(batch.items, batch.lengths.tolist(), strict=True):
        states += [_state(model, items, torch.tensor(t)) for t in range(1, length + 1)]
    torch.testing.assert_close(found.states, torch.stack(states), atol=1e-10, rtol=0)
    nearest = torch.cdist(found.states, model.kmeans.centroids).argmin(1)
    assert found.assignment is not None
    assert found.assignment.equal(nearest)
    assert found.vectors.equal(normalize(model.kmeans.centroids)[nearest])
