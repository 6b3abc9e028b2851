"""ICLRec: what its specification says must hold."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from datamodules.errors import RequestError
from datamodules.rows import flat_starts
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.models.iclrec import ICLRec
from intentbench.models.sasrec import SASRec
from intentbench.nn.views import intent_contrast, random_view

WINDOW = 6
SMALL: dict[str, Any] = {"window": WINDOW, "width": 16, "blocks": 1}


def _data(users: int = 12) -> SequenceDataModule:
    return SequenceDataModule(planted_cycles(users, 3, 8), window=WINDOW, batch_size=8)


def _model(data: SequenceDataModule, **arguments: Any) -> ICLRec:
    torch.manual_seed(0)
    settings = {"clusters": 3, "dropout": 0.0, **SMALL, **arguments}
    model = ICLRec(data.n_items, data.n_users, **settings)
    model.prepare(data.training())
    with torch.no_grad():
        model.eval().on_epoch()
    return model.train()


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


@torch.no_grad()
def _terms(model: ICLRec, batch: SequenceBatch) -> dict[str, float]:
    torch.manual_seed(1)
    return {name: float(value) for name, value in model.loss(batch).items()}


def _two_list_info_nce(first: Tensor, second: Tensor) -> float:
    """InfoNCE of the lineage, row by row in float64, τ = 1."""
    rows = torch.cat([first, second]).double()
    terms = []
    for a in range(len(rows)):
        partner = (a + len(first)) % len(rows)
        others = [rows[a] @ rows[b] for b in range(len(rows)) if b != a]
        terms.append(torch.stack(others).logsumexp(0) - rows[a] @ rows[partner])
    return float(torch.stack(terms).mean())


def test_without_weights_it_is_sasrec_bit_for_bit() -> None:
    data = _data()
    torch.manual_seed(0)
    base = SASRec(data.n_items, data.n_users, loss="bce1", encoder="bert", heads=2, **SMALL)
    base.prepare(data.training())
    model = _model(data, instance_weight=0.0, intent_weight=0.0, dropout=0.5)
    losses: list[list[Tensor]] = []
    for method in (base, model):
        optimizer = method.configure_optimizers()
        torch.manual_seed(2)
        values = []
        for batch in list(data.train_dataloader()) * 3:
            optimizer.zero_grad()
            total = method.loss(batch)["total"]
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(total.detach())
        losses.append(values)
    assert all(a.equal(b) for a, b in zip(*losses, strict=True))
    parameters = dict(model.named_parameters())
    assert all(value.equal(parameters[name]) for name, value in base.named_parameters())


@torch.no_grad()
def test_loss_is_that_of_a_loop_over_rows() -> None:
    data = _data()
    model, batch = _model(data, instance_weight=0.3, intent_weight=0.7), _batch(data)
    found = _terms(model, batch)
    torch.manual_seed(1)
    assert model.sampler is not None
    model.sampler.sample(batch.users[batch.rows], 1)
    views = [random_view(batch.items, batch.lengths, model.edits, WINDOW) for _ in range(2)]

    def states(items: Tensor, length: int) -> Tensor:
        result: Tensor = model.encoder(items[None, :length])[0]
        return result

    flat, means = [], []
    for items, lengths in views:
        rows = [states(row, n) for row, n in zip(items, lengths.tolist(), strict=True)]
        flat.append(torch.zeros(len(rows), WINDOW, 16))
        for row, state in enumerate(rows):
            flat[-1][row, WINDOW - len(state) :] = state
        means.append(torch.stack([state.mean(0) for state in rows]))
    whole = [states(row, n) for row, n in zip(batch.items, batch.lengths.tolist(), strict=True)]
    distances = torch.cdist(torch.stack([s.mean(0) for s in whole]), model.kmeans.centroids)
    prototypes = normalize(model.kmeans.centroids)[distances.argmin(1)]
    instance = _two_list_info_nce(flat[0].flatten(1), flat[1].flatten(1))
    intent = sum(_two_list_info_nce(mean, prototypes) for mean in means) / 2
    assert found["instance"] == pytest.approx(instance, rel=1e-5)
    assert found["intent"] == pytest.approx(intent, rel=1e-5)
    expected = found["next"] + 0.3 * instance + 0.7 * intent
    assert found["total"] == pytest.approx(expected, rel=1e-5)


def test_centroids_carry_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    model = _model(data)
    assert not model.kmeans.centroids.requires_grad
    assert all(name.startswith("encoder.") for name, _ in model.named_parameters())
    seen: list[Tensor] = []

    def contrast(first: Any, second: Any, prototypes: Tensor, *rest: Any) -> Tensor:
        assert first.means().requires_grad
        seen.append(prototypes)
        return intent_contrast(first, second, prototypes, *rest)

    monkeypatch.setattr("intentbench.models.iclrec.intent_contrast", contrast)
    assert model.loss(_batch(data))["intent"].requires_grad
    assert [prototypes.requires_grad for prototypes in seen] == [False]


def test_one_cluster_makes_the_intent_term_constant_in_the_assignment() -> None:
    data = _data()
    model, batch = _model(data, clusters=1), _batch(data)
    value = _terms(model, batch)["intent"]
    model.kmeans.centroids = model.kmeans.centroids * 7  # its direction is all that counts
    assert _terms(model, batch)["intent"] == pytest.approx(value, rel=1e-6)
    masked = _model(data, clusters=1, mask_same_intent=True)
    assert _terms(masked, batch)["intent"] == 0  # nobody is left as a negative


def test_rows_of_one_intent_are_masked_on_request_only() -> None:
    data = _data()
    batch = _batch(data)
    plain, masked = (_terms(_model(data, mask_same_intent=mask), batch) for mask in (False, True))
    assert plain["instance"] == masked["instance"]
    assert masked["intent"] < plain["intent"]


def test_more_clusters_than_users_are_refused() -> None:
    with pytest.raises(RequestError, match="13 clusters for 12 users"):
        _model(_data(), clusters=13)


def test_without_intents_clusters_may_outnumber_users() -> None:
    data = _data()
    model = _model(data, clusters=13, intent_weight=0.0)
    assert model.loss(_batch(data)).keys() == {"total", "next", "instance"}


def test_centroids_are_the_users_mean_states_where_each_has_its_own_cluster() -> None:
    data = _data(6)
    model = _model(data, clusters=6, dropout=0.5)
    offsets = data.training().offsets.tolist()
    for begin, end in pairwise(offsets):
        items = data.training().items[begin : end - 1][-WINDOW:]
        with torch.no_grad():
            mean = model.eval().encoder(items[None])[0].mean(0)
        distance = (model.kmeans.centroids - mean).norm(dim=1).min()
        assert float(distance) == pytest.approx(0, abs=1e-4)


def test_e_step_repeats_itself_and_leaves_the_global_generator_alone() -> None:
    data = _data()
    first, second = _model(data), _model(data)
    assert first.kmeans.centroids.equal(second.kmeans.centroids)
    state = torch.get_rng_state()
    with torch.no_grad():
        first.eval().on_epoch()
    assert torch.get_rng_state().equal(state)


def test_names_of_clusters_do_not_matter() -> None:
    data = _data()
    model, batch = _model(data, clusters=4), _batch(data)
    before = _terms(model, batch)
    model.kmeans.centroids = model.kmeans.centroids[torch.tensor([2, 0, 3, 1])]
    assert _terms(model, batch) == before


def test_loss_of_the_next_item_is_causal() -> None:
    data = _data()
    model, batch = _model(data), _batch(data)
    row = int(batch.lengths.argmax())
    last = int(batch.lengths[row]) - 1
    start = torch.from_numpy(flat_starts(batch.groups))
    early = batch.select != start[row] + last
    kept = replace(
        batch, select=batch.select[early], rows=batch.rows[early], labels=batch.labels[early]
    )
    items = batch.items.clone()
    items[row, last] = items[row, last] % data.n_items + 1
    changed = replace(kept, items=items)
    assert _terms(model, changed)["next"] == _terms(model, kept)["next"]
    assert _terms(model, changed)["instance"] != _terms(model, kept)["instance"]


@torch.no_grad()
def test_intents_are_those_of_each_prefix() -> None:
    data = _data()
    model, batch = _model(data).eval(), _batch(data)
    found = model.intents(batch)
    assert found.assignment is not None
    assert found.states.shape == found.vectors.shape == (len(batch.labels), 16)
    target = 0
    for row in range(len(batch.users)):
        for length in range(1, int(batch.lengths[row]) + 1):
            assert batch.targets[row, length - 1] != PAD
            mean = model.encoder(batch.items[row, None, :length])[0].mean(0)
            nearest = (model.kmeans.centroids - mean).norm(dim=1).argmin()
            torch.testing.assert_close(found.states[target], mean)
            assert found.assignment[target] == nearest
            unit = normalize(model.kmeans.centroids[nearest], dim=0)
            torch.testing.assert_close(found.vectors[target], unit)
            target += 1
    assert target == len(batch.labels)
