"""BPR-MF: its loss against NumPy, where its gradient goes, and that pairs get ordered."""

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.models.bpr_mf import BPRMF


def _data(batch_size: int = 64) -> SequenceDataModule:
    return SequenceDataModule(planted_cycles(), layout="pair", batch_size=batch_size)


def _model(data: SequenceDataModule, l2: float = 1e-2, learning_rate: float = 1e-2) -> BPRMF:
    torch.manual_seed(0)
    model = BPRMF(data.n_items, data.n_users, width=8, l2=l2, learning_rate=learning_rate)
    model.prepare(data.training())
    return model


def _bias(model: BPRMF) -> torch.nn.Parameter:
    assert model.bias is not None
    return model.bias


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _negatives(model: BPRMF, batch: SequenceBatch, seed: int) -> Tensor:
    assert model.sampler is not None
    torch.manual_seed(seed)
    return model.sampler.sample(batch.users, 1)[:, 0]


def test_loss_is_that_of_the_paper() -> None:
    data = _data()
    model, batch = _model(data), _batch(data)
    torch.nn.init.normal_(_bias(model))
    negatives = _negatives(model, batch, seed=3)
    torch.manual_seed(3)
    terms = {name: float(value.detach()) for name, value in model.loss(batch).items()}
    p, q = model.users.weight.detach().numpy(), model.items.weight.detach().numpy()
    b = _bias(model).detach().numpy()
    ranking, penalty = [], []
    for u, i, j in zip(
        batch.users.tolist(), batch.items[:, 0].tolist(), negatives.tolist(), strict=True
    ):
        margin = p[u] @ q[i] + b[i] - p[u] @ q[j] - b[j]
        ranking.append(np.log1p(np.exp(-margin)))
        penalty.append(p[u] @ p[u] + q[i] @ q[i] + q[j] @ q[j])
    assert terms["bpr"] == pytest.approx(np.mean(ranking), rel=1e-5)
    assert terms["l2"] == pytest.approx(1e-2 * np.mean(penalty), rel=1e-5)
    assert terms["total"] == pytest.approx(terms["bpr"] + terms["l2"], rel=1e-6)


def test_gradient_touches_the_rows_of_the_batch_only() -> None:
    data = _data(batch_size=4)
    model, batch = _model(data), _batch(data)
    items = {*batch.labels.tolist(), *_negatives(model, batch, seed=5).tolist()}
    torch.manual_seed(5)
    model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
    assert _touched(model.users.weight) == {*batch.users.tolist()}
    assert _touched(model.items.weight) == items
    assert _touched(_bias(model)[:, None], _bias(model).grad) <= items


def _touched(weight: Tensor, gradient: Tensor | None = None) -> set[int]:
    gradient = weight.grad if gradient is None else gradient[:, None]
    assert gradient is not None
    return set(gradient.any(1).nonzero()[:, 0].tolist())


def test_negatives_are_items_that_the_user_has_not_had_in_training() -> None:
    data = _data()
    model, batch = _model(data), _batch(data)
    training = data.training()
    for seed in range(5):
        negatives = _negatives(model, batch, seed).tolist()
        for user, negative in zip(batch.users.tolist(), negatives, strict=True):
            begin, end = training.offsets[user : user + 2].tolist()
            assert 1 <= negative <= data.n_items
            assert negative not in training.items[begin:end]


def test_scores_are_factors_and_biases_in_one_product() -> None:
    data = _data()
    model = _model(data)
    torch.nn.init.normal_(_bias(model))
    batch = next(iter(data.test_dataloader()))
    expected = model.users.weight[batch.users] @ model.items.weight.T + _bias(model)
    scores = model.score(batch)
    torch.testing.assert_close(scores[:, 1:], expected[:, 1:])
    assert (scores[:, 0] == -torch.inf).all()


def test_training_orders_what_was_had_before_what_was_not() -> None:
    data = _data(batch_size=256)
    model = _model(data, l2=1e-4, learning_rate=5e-2)
    optimizer = model.configure_optimizers()
    areas = [_area_under_curve(model, data)]
    for _ in range(4):
        for _ in range(10):
            for batch in data.train_dataloader():
                optimizer.zero_grad()
                model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        areas.append(_area_under_curve(model, data))
    assert areas[0] == pytest.approx(0.5, abs=0.05)
    assert areas[1] > 0.9
    assert areas[-1] > 0.99


def _area_under_curve(model: BPRMF, data: SequenceDataModule) -> float:
    """Share of (user, had, not had) triples that are scored in that order."""
    with torch.no_grad():
        scores = model.users.weight @ model.items.weight.T + _bias(model)
    training = data.training()
    shares = []
    for user in range(data.n_users):
        begin, end = training.offsets[user : user + 2].tolist()
        had = torch.zeros(data.n_items + 1, dtype=torch.bool)
        had[training.items[begin:end]] = True
        not_had = ~had
        not_had[0] = False
        higher = scores[user, had][:, None] > scores[user, not_had]
        shares.append(float(higher.float().mean()))
    return sum(shares) / len(shares)


def test_loss_without_the_training_events_says_what_is_missing() -> None:
    data = _data()
    with pytest.raises(RuntimeError, match="prepare"):
        BPRMF(data.n_items, data.n_users).loss(_batch(data))


def test_defaults_are_biases_the_penalty_of_the_batch_and_normal_factors() -> None:
    data = _data()
    model = _model(data)
    torch.manual_seed(0)
    written = BPRMF(
        data.n_items, data.n_users, width=8, item_bias=True, l2_on="batch", initial="normal"
    )
    for name, value in model.state_dict().items():
        assert value.equal(written.state_dict()[name]), name
    torch.manual_seed(0)  # what an embedding draws for itself comes first, and is thrown away
    torch.randn(data.n_users, 8), torch.randn(data.n_items + 1, 8)
    assert model.users.weight.equal(0.1 * torch.randn(data.n_users, 8))
    assert model.items.weight[1:].equal(0.1 * torch.randn(data.n_items, 8))
    assert not _bias(model).any()


def test_xavier_factors_are_drawn_users_first_and_nothing_else() -> None:
    data = _data()
    torch.manual_seed(0)
    model = BPRMF(data.n_items, data.n_users, width=8, initial="xavier")
    after = torch.rand(1)
    torch.manual_seed(0)
    users, items = torch.empty(data.n_users, 8), torch.empty(data.n_items, 8)
    for table in (users, items):
        torch.nn.init.xavier_uniform_(table)
    assert model.users.weight.equal(users)
    assert model.items.weight[1:].equal(items)
    assert not model.items.weight[0].any()
    assert after.equal(torch.rand(1))


@pytest.mark.parametrize("item_bias", [True, False])
def test_penalty_on_all_is_that_of_every_trained_number(item_bias: bool) -> None:
    data = _data(batch_size=4)
    model = BPRMF(data.n_items, data.n_users, width=8, l2=0.3, item_bias=item_bias, l2_on="all")
    model.prepare(data.training())
    if model.bias is not None:
        torch.nn.init.normal_(model.bias[1:])
    l2 = model.loss(_batch(data))["l2"]
    squares = sum(
        float(np.square(p.detach().numpy().astype(float)).sum()) for p in model.parameters()
    )
    assert float(l2.detach()) == pytest.approx(0.3 * squares, rel=1e-5)
    l2.backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        torch.testing.assert_close(parameter.grad, 0.6 * parameter.detach())


def test_without_biases_scores_and_margins_are_inner_products() -> None:
    data = _data()
    model = BPRMF(data.n_items, data.n_users, width=8, item_bias=False)
    model.prepare(data.training())
    assert {name for name, _ in model.named_parameters()} == {"users.weight", "items.weight"}
    batch = next(iter(data.test_dataloader()))
    expected = model.users.weight[batch.users] @ model.items.weight[1:].T
    torch.testing.assert_close(model.score(batch)[:, 1:], expected)
    training = _batch(data)
    negatives = _negatives(model, training, seed=3)
    torch.manual_seed(3)
    bpr = model.loss(training)["bpr"]
    user = model.users.weight[training.users]
    scores = user @ model.items.weight.T
    margin = scores.gather(1, training.labels[:, None]) - scores.gather(1, negatives[:, None])
    torch.testing.assert_close(bpr, -torch.nn.functional.logsigmoid(margin).mean())
