"""SSE-PT: what its specification says must hold."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.models.base import GradientRecommender
from intentbench.models.sasrec import SASRec
from intentbench.models.sse_pt import SSEPT

V, WINDOW = 30, 6
SEQUENCES = [
    [3, 1, 4, 1, 5, 9, 2, 6, 5, 3],
    [2, 7, 1, 8, 2, 8],
    [7, 6, 8, 9],
    [1, 2, 3, 4, 5, 8, 9],
]
PLAIN = {"user_replacement": 0.0, "item_replacement": 0.0}


def _data(sequences: list[list[int]] = SEQUENCES, **arguments: Any) -> SequenceDataModule:
    settings: dict[str, Any] = {"window": WINDOW, "batch_size": 3} | arguments
    return SequenceDataModule(build_dataset("x", sequences, V), **settings)


def _model(**arguments: Any) -> SSEPT:
    torch.manual_seed(0)
    settings = {"window": WINDOW, "item_width": 8, "user_width": 4, "dropout": 0.3} | arguments
    model = SSEPT(V, len(SEQUENCES), **settings)
    model.prepare(_data().training())
    return model


def _batch(**arguments: Any) -> SequenceBatch:
    return next(iter(_data(batch_size=9, **arguments).train_dataloader()))


def _trained(model: GradientRecommender, epochs: int = 3) -> list[float]:
    torch.manual_seed(1)
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(epochs):
        for batch in _data().train_dataloader():
            total = model.loss(batch)["total"]
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(float(total.detach()))
    return values


@pytest.mark.parametrize("loss", ["bce1", "ce"])
@pytest.mark.parametrize("encoder", ["sasrec", "bert"])
def test_without_users_and_replacement_it_is_sasrec_bit_for_bit(loss: Any, encoder: Any) -> None:
    model = _model(loss=loss, encoder=encoder, user_width=0, **PLAIN)
    torch.manual_seed(0)
    base = SASRec(V, 4, WINDOW, loss, "all", encoder, width=8, heads=2, dropout=0.3)
    base.prepare(_data().training())
    values = _trained(base)
    assert _trained(model) == values
    found = model.state_dict()
    assert all(found[name].equal(weight) for name, weight in base.state_dict().items())
    batch = next(iter(_data().test_dataloader()))
    assert model.eval().score(batch).equal(base.eval().score(batch))
    assert _trained(_model(loss=loss, encoder=encoder, **PLAIN)) != values


def _full_states(model: SSEPT, items: Tensor, user: Tensor) -> Tensor:
    """z (L, d_i + d_u) of one row without padding, and the joined vectors of the paper."""
    encoder = model.encoder
    vectors = torch.cat(
        [
            math.sqrt(8) * encoder.items(items),
            math.sqrt(4) * model.users(user).expand(len(items), -1),
        ],
        1,
    )
    states = (vectors + encoder.positions.weight[: len(items)])[None]
    for block in encoder.blocks:
        states = block(states)
    result: Tensor = encoder.last_norm(states)[0]
    return result


@torch.no_grad()
def test_users_add_the_same_constant_to_every_item() -> None:
    """The score of the paper, z·[e_v; e_u], is the suite's and a number of each user's own."""
    model = _model().eval()
    for batch in _data().test_dataloader():
        scores = model.score(batch)
        assert (scores[:, 0] == -torch.inf).all()
        for row, length in enumerate(batch.lengths.tolist()):
            user = batch.users[row]
            state = _full_states(model, batch.items[row, :length], user)[-1]
            joined = torch.cat(
                [model.item_table(), math.sqrt(4) * model.users(user).expand(V + 1, -1)], 1
            )
            difference = (joined @ state - scores[row])[1:]
            assert float(difference.std()) < 1e-5
            assert abs(float(difference.mean())) > 1e-3


@torch.no_grad()
def test_users_act_on_rankings_through_the_state() -> None:
    model = _model().eval()
    batch = next(iter(_data([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]).test_dataloader()))
    first, second = model.score(batch)[:, 1:]
    assert not torch.allclose(first - first.mean(), second - second.mean(), atol=1e-4)
    model.users.weight[1] = model.users.weight[0]
    first, second = model.score(batch)[:, 1:]
    torch.testing.assert_close(first, second)


@torch.no_grad()
def test_logistic_loss_equals_its_equation() -> None:
    model, batch = _model(**PLAIN).eval(), _batch()
    assert model.sampler is not None
    torch.manual_seed(3)
    found = float(model.loss(batch)["total"])
    torch.manual_seed(3)
    negatives = model.sampler.sample(batch.users[batch.rows], 1)[:, 0]
    table, terms, t = model.item_table(), [], 0
    for row, length in enumerate(batch.lengths.tolist()):
        user = batch.users[row]
        states = _full_states(model, batch.items[row, :length], user)
        own = math.sqrt(4) * model.users(user)
        for position in range(length):
            if target := int(batch.targets[row, position]):
                state = states[position]
                positive = state @ torch.cat([table[target], own])
                negative = state @ torch.cat([table[negatives[t]], own])
                terms.append(-positive.sigmoid().log() - (1 - negative.sigmoid()).log())
                t += 1
    assert t == len(batch.labels)
    assert found == pytest.approx(float(torch.stack(terms).mean()), rel=1e-5)


@torch.no_grad()
def test_softmax_loss_equals_its_equation_with_or_without_the_users_part() -> None:
    model, batch = _model(loss="ce", **PLAIN).eval(), _batch()
    table, terms = model.item_table()[1:], 0.0
    for row, length in enumerate(batch.lengths.tolist()):
        user = batch.users[row]
        states = _full_states(model, batch.items[row, :length], user)
        joined = torch.cat([table, math.sqrt(4) * model.users(user).expand(V, -1)], 1)
        for position in range(length):
            if target := int(batch.targets[row, position]):
                terms -= float((joined @ states[position]).log_softmax(0)[target - 1])
    expected = terms / len(batch.labels)
    assert float(model.loss(batch)["total"]) == pytest.approx(expected, rel=1e-5)


# stochastic shared embeddings ------------------------------------------------------------------


def test_replacement_follows_its_probabilities() -> None:
    model = _model(user_replacement=0.6, item_replacement=0.3)
    batch = _batch()
    torch.manual_seed(0)
    users, items, total = 0, 0, 400
    for _ in range(total):
        changed = model.replace_indices(batch)
        users += int((changed.users != batch.users).sum())
        items += int((changed.items != batch.items).sum())
        assert changed.users.min() >= 0
        assert changed.users.max() < len(SEQUENCES)
        assert (changed.items > 0).equal(batch.items > 0)
        assert changed.items.max() <= V
        assert (changed.targets > 0).equal(batch.targets > 0)
    # a uniform draw gives the same index again once in N or V times
    assert users / (total * len(batch.users)) == pytest.approx(0.6 * 3 / 4, abs=0.04)
    assert items / (total * int(batch.lengths.sum())) == pytest.approx(0.3 * 29 / 30, abs=0.02)


def test_replaced_items_take_the_labels_beside_them_along() -> None:
    """The position before a replaced input is taught the replacement, its own a random item."""
    model, batch = _model(item_replacement=0.4), _batch()
    torch.manual_seed(0)
    following, told, own, fresh = 0, 0, 0, 0
    for _ in range(50):
        changed = model.replace_indices(batch)
        hit = changed.items != batch.items
        for row, t in (batch.targets > 0).nonzero().tolist():
            target, before = int(changed.targets[row, t]), int(batch.targets[row, t])
            if hit[row, t]:
                own, fresh = own + 1, fresh + (target != before)
            elif t + 1 < int(batch.lengths[row]) and hit[row, t + 1]:
                following, told = following + 1, told + (target == int(changed.items[row, t + 1]))
    # a position whose item was replaced by itself looks unhit here, but has a random label
    assert min(following, own) > 100
    assert told > 0.95 * following
    assert fresh > 0.9 * own


def test_labels_are_the_targets_in_their_order_and_the_rest_is_unchanged() -> None:
    model, batch = _model(item_replacement=0.5, user_replacement=0.5), _batch()
    copies = {name: getattr(batch, name).clone() for name in ("users", "items", "targets")}
    torch.manual_seed(0)
    changed = model.replace_indices(batch)
    assert all(getattr(batch, name).equal(copy) for name, copy in copies.items())
    for name in ("lengths", "select", "rows", "key"):
        assert getattr(changed, name) is getattr(batch, name)
    assert not changed.labels.equal(batch.labels)
    expected = torch.cat(
        [
            changed.targets[row, :length][batch.targets[row, :length] > 0]
            for row, length in enumerate(batch.lengths.tolist())
        ]
    )
    assert changed.labels.equal(expected)


def test_replacement_does_not_depend_on_how_wide_the_batch_is() -> None:
    model = _model(item_replacement=0.5, user_replacement=0.5)
    found = []
    for pad in (False, True):
        torch.manual_seed(0)
        found.append(model.replace_indices(_batch(window=5, pad_to_window=pad)))
    width = found[0].items.shape[1]
    assert found[0].items.equal(found[1].items[:, :width])
    assert found[0].labels.equal(found[1].labels)
    assert found[0].users.equal(found[1].users)


def test_inputs_whose_position_is_not_trained_are_replaced_but_get_no_target() -> None:
    model, batch = _model(item_replacement=1.0), _batch()
    targets = batch.targets.clone()
    targets[:, :2] = 0
    batch = replace(batch, targets=targets)
    changed = model.replace_indices(batch)
    assert (changed.items[:, :2] != batch.items[:, :2]).any()
    assert (changed.targets > 0).equal(targets > 0)
    assert (targets > 0).any()


@torch.no_grad()
def test_nothing_is_drawn_without_probabilities_or_when_ranking() -> None:
    batch, query = _batch(), next(iter(_data().test_dataloader()))
    plain, lively = _model(**PLAIN), _model(user_replacement=1.0, item_replacement=1.0)
    before = torch.get_rng_state()
    same = plain.replace_indices(batch)
    assert same.items is batch.items
    assert same.users is batch.users
    assert same.labels is batch.labels
    assert torch.get_rng_state().equal(before)
    first = lively.eval().score(query)
    assert torch.get_rng_state().equal(before)
    assert lively.score(query).equal(first)
    lively.replace_indices(batch)  # in training they do draw
    assert not torch.get_rng_state().equal(before)


@pytest.mark.parametrize("loss", ["bce1", "ce"])
def test_every_parameter_takes_a_gradient(loss: Any) -> None:
    model = _model(loss=loss, item_replacement=0.1, user_replacement=0.5)
    model.loss(_batch())["total"].backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_the_same_histories_can_end_differently_for_different_users() -> None:
    """What no method without users can learn: users differ in nothing but their row."""
    sequences = [[1, 2, 3, 4 + user % 2, 9, 9] for user in range(4)]
    data = _data(sequences, batch_size=4)
    model = _model(loss="ce", dropout=0.0, learning_rate=1e-2, **PLAIN)
    optimizer = model.configure_optimizers()
    for _ in range(150):
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    batch = next(iter(data.train_dataloader()))
    vectors = model.eval()._inputs(batch.items[:, :3], batch.users)
    scores = model.encoder.attend(vectors)[:, -1, :8] @ model.item_table()[1:].T
    assert (scores.argmax(1) + 1).equal(4 + batch.users % 2)


def test_loss_without_the_training_events_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        SSEPT(V, 4, WINDOW).loss(_batch())
