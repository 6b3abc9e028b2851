"""FPMC: its loss against NumPy, its two halves, and where its gradient goes."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.models.bpr_mf import BPRMF
from intentbench.models.fpmc import FPMC

from .reference import queries_of, training_of


def _data(batch_size: int = 64) -> SequenceDataModule:
    return SequenceDataModule(planted_cycles(), layout="prefix", batch_size=batch_size)


def _model(data: SequenceDataModule, l2: float = 1e-2, learning_rate: float = 1e-2) -> FPMC:
    torch.manual_seed(0)
    model = FPMC(data.n_items, data.n_users, width=8, l2=l2, learning_rate=learning_rate)
    model.prepare(data.training())
    return model


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _last(batch: SequenceBatch) -> list[int]:
    ends = (batch.lengths - 1).tolist()
    return [int(batch.items[row, end]) for row, end in enumerate(ends)]


def _negatives(model: FPMC, batch: SequenceBatch, seed: int) -> Tensor:
    assert model.sampler is not None
    torch.manual_seed(seed)
    return model.sampler.sample(batch.users, 1)[:, 0]


def _tables(model: FPMC) -> list["np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
    tables = (model.users, model.user_items, model.last, model.next_items)
    return [table.weight.detach().numpy() for table in tables]


def test_loss_is_that_of_the_paper() -> None:
    data = _data()
    model, batch = _model(data), _batch(data)
    negatives = _negatives(model, batch, seed=3)
    torch.manual_seed(3)
    terms = {name: float(value.detach()) for name, value in model.loss(batch).items()}
    p, q, a, c = _tables(model)
    ranking, penalty = [], []
    rows = (batch.users.tolist(), _last(batch), batch.labels.tolist(), negatives.tolist())
    for u, last, i, j in zip(*rows, strict=True):
        margin = p[u] @ q[i] + a[last] @ c[i] - p[u] @ q[j] - a[last] @ c[j]
        ranking.append(np.log1p(np.exp(-margin)))
        penalty.append(sum(v @ v for v in (p[u], q[i], q[j], a[last], c[i], c[j])))
    assert terms["bpr"] == pytest.approx(np.mean(ranking), rel=1e-5)
    assert terms["l2"] == pytest.approx(1e-2 * np.mean(penalty), rel=1e-5)
    assert terms["total"] == pytest.approx(terms["bpr"] + terms["l2"], rel=1e-6)


def test_gradient_touches_the_rows_of_the_batch_only() -> None:
    data = _data(batch_size=4)
    model, batch = _model(data), _batch(data)
    items = {*batch.labels.tolist(), *_negatives(model, batch, seed=5).tolist()}
    torch.manual_seed(5)
    model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
    assert _touched(model.users) == {*batch.users.tolist()}
    assert _touched(model.user_items) == _touched(model.next_items) == items
    assert _touched(model.last) == {*_last(batch)}


def _touched(table: nn.Embedding) -> set[int]:
    assert table.weight.grad is not None
    return set(table.weight.grad.any(1).nonzero()[:, 0].tolist())


@torch.no_grad()
def test_without_the_chain_it_is_bpr_mf() -> None:
    data = _data()
    model, batch = _model(data), _batch(data)
    nn.init.zeros_(model.last.weight)
    nn.init.zeros_(model.next_items.weight)
    plain = BPRMF(data.n_items, data.n_users, width=8, l2=1e-2)
    plain.prepare(data.training())
    plain.users.weight.copy_(model.users.weight)
    plain.items.weight.copy_(model.user_items.weight)
    terms = []
    for method in (model, plain):
        torch.manual_seed(3)
        terms.append(method.loss(batch))
    torch.testing.assert_close(*terms)
    query = next(iter(data.test_dataloader()))
    torch.testing.assert_close(model.score(query), plain.score(query))


@torch.no_grad()
def test_without_the_user_it_is_a_markov_chain() -> None:
    data = _data()
    model = _model(data)
    nn.init.zeros_(model.users.weight)
    scores = model.score(queries_of([[1, 2, 3], [7, 8, 3], [3], [2], []]))
    expected = model.last.weight[3] @ model.next_items.weight.T
    for row in range(3):
        torch.testing.assert_close(scores[row, 1:], expected[1:])
    assert not scores[3].allclose(scores[0])
    assert (scores[4, 1:] == 0).all()  # no last item contributes nothing
    assert (scores[:, 0] == -torch.inf).all()


@torch.no_grad()
def test_users_without_a_transition_are_scored_by_the_chain_alone() -> None:
    model = FPMC(6, 3, width=4)
    model.prepare(training_of([[1, 2, 3], [4], []]))
    scores = model.score(queries_of([[1, 2], [1, 2], [1, 2]]))
    chain = model.last.weight[2] @ model.next_items.weight.T
    torch.testing.assert_close(scores[1:, 1:], chain[1:].expand(2, -1))
    assert not scores[0].allclose(scores[1])


def test_rows_are_the_training_transitions() -> None:
    data = SequenceDataModule(planted_cycles(), layout="prefix", window=1, targets="every")
    found = sorted(
        (user, last, label)
        for batch in data.train_dataloader()
        for user, last, label in zip(
            batch.users.tolist(), _last(batch), batch.labels.tolist(), strict=True
        )
    )
    training = data.training()
    users, items = training.users.tolist(), training.items.tolist()
    pairs = zip(users, users[1:], items, items[1:], strict=False)
    assert found == sorted((u, i, j) for u, v, i, j in pairs if u == v)


def test_training_orders_what_came_next_before_what_was_not_had() -> None:
    data = _data(batch_size=256)
    model = _model(data, l2=1e-4, learning_rate=5e-2)
    optimizer = model.configure_optimizers()
    areas = [_area_under_curve(model, data)]
    for _ in range(3):
        for _ in range(10):
            for batch in data.train_dataloader():
                optimizer.zero_grad()
                model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        areas.append(_area_under_curve(model, data))
    assert areas[0] == pytest.approx(0.5, abs=0.1)
    assert areas[1] > 0.9
    assert areas[-1] > 0.99


@torch.no_grad()
def _area_under_curve(model: FPMC, data: SequenceDataModule) -> float:
    """Share of (transition, item not had) that are scored in that order."""
    training = data.training()
    shares = []
    for batch in data.train_dataloader():
        scores = model.encode(batch) @ model.item_table().T
        for row, user in enumerate(batch.users.tolist()):
            begin, end = training.offsets[user : user + 2].tolist()
            not_had = torch.ones(data.n_items + 1, dtype=torch.bool)
            not_had[0] = False
            not_had[training.items[begin:end]] = False
            shares.append((scores[row, batch.labels[row]] > scores[row, not_had]).float().mean())
    return float(torch.stack(shares).mean())


def test_loss_without_the_training_events_says_what_is_missing() -> None:
    data = _data()
    with pytest.raises(RuntimeError, match="prepare"):
        FPMC(data.n_items, data.n_users).loss(_batch(data))
