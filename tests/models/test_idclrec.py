"""IDCLRec: what its specification says must hold."""

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision

from datamodules.sequence import SequenceDataModule
from intentbench.contracts.subject import quiet_trainer
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.models.idclrec import IDCLRec
from intentbench.models.sasrec import SASRec
from tests.models.idclrec_reference import (
    NOTHING,
    SHAPE,
    SWITCHES,
    backward,
    build_model,
    data_module,
    first_batch,
    train,
)


@pytest.mark.parametrize("own", [True, False])
def test_what_follows_changes_nothing_before_it(own: bool) -> None:
    model = build_model(data_module(), cca_self=own).eval()
    items = torch.tensor([[1, 2, 3, 4, 5, 6]])
    before = model.disentangle.split(model.encoder(items))
    for j in range(6):
        changed = items.clone()
        changed[0, j] = 9
        after = model.disentangle.split(model.encoder(changed))
        for one, other in zip(before, after, strict=True):
            assert one[:, :j].equal(other[:, :j])
        assert not before.intents[:, j].equal(after.intents[:, j])


@pytest.mark.parametrize("switch", SWITCHES)
def test_padding_changes_nothing(switch: dict[str, Any]) -> None:
    layout = switch.get("layout", "prefix")
    narrow, wide = data_module(layout=layout), data_module(layout=layout, pad_to_window=True)
    model = build_model(narrow, **switch).eval()
    losses = []
    for data in (narrow, wide):
        torch.manual_seed(1)
        losses.append(model.loss(first_batch(data)))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, atol=1e-9, rtol=0, msg=name)
    rows = [next(iter(data.test_dataloader())) for data in (narrow, wide)]
    torch.testing.assert_close(model.score(rows[0]), model.score(rows[1]), atol=1e-9, rtol=0)


def test_interest_and_intent_make_up_behaviour() -> None:
    data = data_module(layout="all")
    model = build_model(data)
    for _ in range(2):
        with torch.no_grad():
            found = model.eval().intents(first_batch(data))
        assert found.interests is not None
        torch.testing.assert_close(found.interests + found.vectors, found.states, atol=1e-6, rtol=0)
        states = model.encoder(first_batch(data).items)[first_batch(data).targets != 0]
        order = found.states.sum(1).argsort(), states.sum(1).argsort()
        torch.testing.assert_close(found.states[order[0]], states.detach()[order[1]])
        train(model.train(), data, 10)


def _base(data: SequenceDataModule) -> SASRec:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"loss": "ce", "layout": data.layout, "encoder": "bert"}
    return SASRec(10, data.n_users, heads=2, **settings, **SHAPE).double()


@pytest.mark.parametrize("layout", ["prefix", "all"])
@pytest.mark.parametrize("importance", ["mean_dot", "mean_cos", "self_attention", "to_current"])
def test_above_one_the_threshold_leaves_sasrec(layout: str, importance: Any) -> None:
    data = data_module(layout=layout)
    base = _base(data)
    torch.manual_seed(0)
    settings: dict[str, Any] = {"delta": 1.5, "importance": importance, "layout": layout}
    model = IDCLRec(10, data.n_users, **settings, **NOTHING, **SHAPE).double()
    for name, weight in base.encoder.named_parameters():
        assert model.encoder.get_parameter(name).equal(weight), "one seed, one encoder"
    first, second = base.loss(first_batch(data))["total"], model.loss(first_batch(data))["total"]
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)
    backward(first)
    backward(second)
    for name, weight in base.encoder.named_parameters():
        torch.testing.assert_close(model.encoder.get_parameter(name).grad, weight.grad)
    for parameter in model.disentangle.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any(), "the split has no part in the scores"
    losses = train(base, data, 5), train(model, data, 5)
    assert losses[0] == pytest.approx(losses[1], abs=1e-8)
    batch = next(iter(data.test_dataloader()))
    ranks = [
        ranks_from_scores(m.eval().score(batch), batch.target, batch.masked) for m in (base, model)
    ]
    assert ranks[0].equal(ranks[1])


def test_current_behaviour_is_the_query_where_nothing_else_is_in_the_category() -> None:
    data = data_module()
    model = build_model(data, delta=1.5).float().eval()
    batch = next(iter(data.test_dataloader()))
    states = [
        model.encoder(row[:n][None])[0, -1]
        for row, n in zip(batch.items, batch.lengths, strict=True)
    ]
    torch.testing.assert_close(model.encode(batch), torch.stack(states), atol=1e-5, rtol=0)


def test_weights_of_zero_skip_the_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_module()
    full = {"total", "recommendation", "adjustment", "intent_intent", "intent_item", "same_user"}
    for name, gone in (
        ("lambda_d", {"adjustment"}),
        ("lambda_1", {"intent_intent"}),
        ("lambda_2", {"intent_item"}),
    ):
        assert full - build_model(data, **{name: 0.0}).loss(first_batch(data)).keys() == gone
    passes: list[int] = []
    bare = build_model(data, lambda_1=0.0, lambda_2=0.0)
    bare.encoder.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    terms = bare.loss(first_batch(data))
    assert bare.prefixes is None
    assert len(passes) == len(first_batch(data).groups), "one pass"
    assert full - terms.keys() == {"intent_intent", "intent_item", "same_user"}
    model = build_model(data, **NOTHING)
    state = torch.get_rng_state()
    model.loss(first_batch(data))
    assert torch.get_rng_state().equal(state), "nothing is drawn"


@pytest.mark.parametrize("switch", SWITCHES)
def test_loss_falls_and_parameters_take_gradients(switch: dict[str, Any]) -> None:
    data = data_module(layout=switch.get("layout", "prefix"))
    model = build_model(data, learning_rate=1e-2, **switch)
    values = train(model, data, 25)
    assert sum(values[-3:]) < 0.9 * sum(values[:3])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("own", "given", "used"),
    [(5.0, None, 5.0), (5.0, 0.5, 0.5), (5.0, 0.0, 0.0), (0.0, None, 0.0), (0.0, 0.5, 0.5)],
)
def test_own_clipping_gives_way_to_the_trainers(
    own: float, given: float | None, used: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = quiet_trainer(1, gradient_clip_val=given)
    seen: list[float] = []
    monkeypatch.setattr(Precision, "clip_gradients", lambda _, __, value, ___: seen.append(value))
    trainer.fit(build_model(data_module(), clip=own), data_module())
    assert seen
    assert set(seen) == {used}
