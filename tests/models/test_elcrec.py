"""ELCRec: what its specification says must hold."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.models.elcrec import ELCRec
from intentbench.models.iclrec import ICLRec
from intentbench.models.sasrec import SASRec
from intentbench.nn.info_nce import info_nce
from intentbench.nn.views import random_view

WINDOW = 6
SMALL: dict[str, Any] = {"window": WINDOW, "width": 16, "blocks": 1}
UNWEIGHTED: dict[str, Any] = {"instance_weight": 0.0, "intent_weight": 0.0, "cluster_weight": 0.0}


def _data(users: int = 12) -> SequenceDataModule:
    return SequenceDataModule(planted_cycles(users, 3, 8), window=WINDOW, batch_size=8)


def _model(data: SequenceDataModule, cls: type[Any] = ELCRec, **arguments: Any) -> Any:
    torch.manual_seed(0)
    settings = {"clusters": 3, "dropout": 0.0, **SMALL, **arguments}
    model = cls(data.n_items, data.n_users, **settings)
    model.prepare(data.training())
    with torch.no_grad():
        model.eval().on_epoch()
    return model.train()


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


@torch.no_grad()
def _terms(model: ELCRec, batch: SequenceBatch) -> dict[str, float]:
    torch.manual_seed(1)
    return {name: float(value) for name, value in model.loss(batch).items()}


def test_without_weights_it_is_sasrec_bit_for_bit() -> None:
    data = _data()
    torch.manual_seed(0)
    base = SASRec(data.n_items, data.n_users, loss="bce1", encoder="bert", heads=2, **SMALL)
    base.prepare(data.training())
    model = _model(data, dropout=0.5, **UNWEIGHTED)
    losses: list[list[Tensor]] = []
    for method in (base, model):
        optimizer = method.configure_optimizers()
        torch.manual_seed(2)
        values = []
        for batch in list(data.train_dataloader()) * 3:
            optimizer.zero_grad()
            total = method.loss(batch)["total"]
            total.backward()
            optimizer.step()
            values.append(total.detach())
        losses.append(values)
    assert all(a.equal(b) for a, b in zip(*losses, strict=True))
    parameters = dict(model.named_parameters())
    assert all(value.equal(parameters[name]) for name, value in base.named_parameters())


def test_centres_receive_a_gradient_from_each_of_their_terms() -> None:
    data = _data()
    for name in UNWEIGHTED:
        model = _model(data, **{**UNWEIGHTED, name: 1.0})
        model.loss(_batch(data))["total"].backward()
        assert model.centres.grad.isfinite().all()
        assert model.centres.grad.any(), name


def test_centres_have_length_one_after_each_step() -> None:
    data = _data()
    model = _model(data, learning_rate=0.1)
    optimizer = model.configure_optimizers()
    before = model.centres.detach().clone()
    for batch in list(data.train_dataloader()) * 3:
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        optimizer.step()
        torch.testing.assert_close(model.centres.norm(dim=1).detach(), torch.ones(3))
    assert (model.centres - before).abs().max() > 0.01


def test_with_frozen_centres_it_is_iclrec_with_fixed_ones() -> None:
    """Without its own terms: η = 0, and no prototypes in the contrast of views."""
    data = _data()
    batch = _batch(data)
    frozen = _model(data, instance_weight=0.0, cluster_weight=0.0)
    frozen.centres.requires_grad_(False)
    fixed = _model(data, ICLRec, instance_weight=0.0)
    fixed.kmeans.centroids = frozen.centres.detach().clone()
    found = []
    for model in (frozen, fixed):
        torch.manual_seed(1)
        terms = model.loss(batch)
        terms["total"].backward()
        found.append((terms["total"].detach(), terms["intent"].detach()))
    torch.testing.assert_close(*found)
    for one, other in zip(frozen.encoder.parameters(), fixed.encoder.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@torch.no_grad()
@pytest.mark.parametrize("pull", ["all", "nearest"])
def test_cluster_term_is_that_of_a_loop(pull: str) -> None:
    data = _data()
    model, batch = _model(data, pull=pull), _batch(data)
    centres = model.centres.double()
    drawn = []
    for row, length in zip(batch.items, batch.lengths.tolist(), strict=True):
        mean = normalize(model.encoder(row[None, :length])[0].mean(0), dim=0).double()
        distances = [float((mean - centre).square().sum()) for centre in centres]
        drawn.append(min(distances) if pull == "nearest" else sum(distances) / 3)
    apart = [float((a - b).square().sum()) for a in centres for b in centres]
    expected = sum(drawn) / len(drawn) - sum(apart) / 9
    found = _terms(model, batch)
    assert found["cluster"] == pytest.approx(expected, abs=1e-5)
    parts = found["next"] + 0.1 * found["instance"] + 0.1 * found["intent"] + found["cluster"]
    assert found["total"] == pytest.approx(parts, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("prototype", "width"), [("shift", 16), ("concat", 32)])
def test_views_are_compared_together_with_their_nearest_centres(prototype: str, width: int) -> None:
    data = _data()
    model, batch = _model(data, prototype=prototype), _batch(data)
    found = _terms(model, batch)["instance"]
    torch.manual_seed(1)
    model.sampler.sample(batch.users[batch.rows], 1)
    views = [random_view(batch.items, batch.lengths, model.edits, WINDOW) for _ in range(2)]
    flat = [torch.zeros(len(batch.users), WINDOW, width) for _ in views]
    for (items, lengths), table in zip(views, flat, strict=True):
        for row, length in enumerate(lengths.tolist()):
            for place, state in enumerate(model.encoder(items[row, None, :length])[0]):
                centre = model.centres[(model.centres - state).norm(dim=1).argmin()]
                joined = state + centre if prototype == "shift" else torch.cat([state, centre])
                table[row, WINDOW - length + place] = joined
    assert found == pytest.approx(float(info_nce(flat[0].flatten(1), flat[1].flatten(1))), rel=1e-5)


def test_k_means_places_the_centres_once() -> None:
    data = _data()
    model = _model(data)
    assert model.clustered
    placed = model.centres.detach().clone()
    torch.testing.assert_close(placed.norm(dim=1), torch.ones(3))
    with torch.no_grad():
        model.encoder.items.weight.mul_(3)
        model.on_epoch()
    assert model.centres.equal(placed)
    fresh = ELCRec(data.n_items, data.n_users, clusters=3, **SMALL)
    assert not fresh.clustered
    fresh.load_state_dict(model.state_dict())
    assert fresh.clustered
    assert fresh.centres.equal(placed)


def test_first_centres_repeat_themselves_and_leave_the_global_generator_alone() -> None:
    data = _data()
    assert _model(data).centres.equal(_model(data).centres)
    model = ELCRec(data.n_items, data.n_users, clusters=3, **SMALL)
    model.prepare(data.training())
    state = torch.get_rng_state()
    with torch.no_grad():
        model.eval().on_epoch()
    assert torch.get_rng_state().equal(state)


def test_more_clusters_than_users_are_refused() -> None:
    with pytest.raises(RequestError, match="13 clusters for 12 users"):
        _model(_data(), clusters=13)
    for name in UNWEIGHTED:  # each of its terms needs the centres
        with pytest.raises(RequestError, match="13 clusters for 12 users"):
            _model(_data(), clusters=13, **{**UNWEIGHTED, name: 1.0})


def test_unused_centres_may_outnumber_users() -> None:
    data = _data()
    model = _model(data, clusters=13, **UNWEIGHTED)
    assert model.loss(_batch(data)).keys() == {"total", "next"}


def test_order_of_centres_does_not_matter() -> None:
    data = _data()
    model, batch = _model(data), _batch(data)
    before = _terms(model, batch)
    with torch.no_grad():
        model.centres.copy_(model.centres[torch.tensor([2, 0, 1])])
    assert _terms(model, batch) == pytest.approx(before, rel=1e-6)


@torch.no_grad()
def test_intents_are_the_centres_nearest_to_each_prefix() -> None:
    data = _data()
    model, batch = _model(data).eval(), _batch(data)
    found = model.intents(batch)
    target = 0
    for row in range(len(batch.users)):
        for length in range(1, int(batch.lengths[row]) + 1):
            mean = model.encoder(batch.items[row, None, :length])[0].mean(0)
            nearest = (model.centres - normalize(mean, dim=0)).norm(dim=1).argmin()
            torch.testing.assert_close(found.states[target], mean)
            assert found.assignment[target] == nearest
            assert found.vectors[target].equal(model.centres[nearest])
            target += 1
    assert target == len(batch.labels)
