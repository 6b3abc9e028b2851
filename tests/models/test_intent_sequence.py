"""Sequence models with intent heads: what their specification says must hold."""

from typing import Any

import pytest
import torch

from intentbench.contracts.subject import quiet_trainer
from intentbench.models.intent_sequence import IntentSequence
from intentbench.models.intentrec import IntentRec
from tests.models.events import (
    N_ITEMS,
    TINY,
    batches,
    change_after,
    event_data,
    events_of,
    gradients,
    test_batch,
    training_batch,
    without_training_after,
)

ENCODERS = ("lstm", "gru", "transformer")


def _model(encoder: Any = "transformer", **arguments: Any) -> IntentSequence:
    torch.manual_seed(0)
    model = IntentSequence(N_ITEMS, 6, encoder=encoder, **{**TINY, **arguments})
    model.take(event_data())
    return model


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_nothing_sees_later_events(encoder: str, features: bool) -> None:
    model, k = _model(encoder, features=features).eval(), 5
    data = without_training_after(event_data(), 0, k)
    before = model.read(events_of(model, data, 0))
    after = model.read(events_of(model, change_after(data, 0, k), 0))
    pairs = [(before.queries, after.queries), *zip(before.logits, after.logits, strict=True)]
    assert len(pairs) == 4
    for first, second in pairs:
        torch.testing.assert_close(first[:, : k + 1], second[:, : k + 1])
        assert not torch.allclose(first[:, k + 1 :], second[:, k + 1 :])


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_fields_are_read_only_where_asked_for(encoder: str, features: bool) -> None:
    model, data = _model(encoder, features=features).eval(), event_data()
    events = events_of(model, data, 0)
    changed = events._replace(
        values=[torch.zeros_like(value) for value in events.values],
        numbers=torch.zeros_like(events.numbers),
    )
    same = model.read(events).queries.equal(model.read(changed).queries)
    assert same != features
    late = events._replace(times=events.times + 5000, codes=(events.codes + 1) % 7)
    assert model.read(late).queries.equal(model.read(events).queries), "time is no input"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_learns_and_the_loss_falls(encoder: str) -> None:
    model = _model(encoder, features=True, learning_rate=1e-2)
    batch = training_batch(event_data())
    assert all(gradients(model, model.loss(batch)["total"]).values())
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        terms = model.loss(batch)
        terms["total"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append({name: float(term.detach()) for name, term in terms.items()})
    assert all(values[-1][name] < value for name, value in values[0].items())


def test_heads_stand_side_by_side() -> None:
    """Intent losses reach the encoder; without their weight nothing reaches the heads."""
    model = _model(intent_weight=0.0)
    got = gradients(model, model.loss(training_batch(event_data()))["total"])
    assert all(has != name.startswith("heads") for name, has in got.items())


def test_transformer_with_features_is_intentrec_without_time() -> None:
    """V0 with the order in place of the time: the same network, weight for weight."""
    shape: dict[str, Any] = {"blocks": 2, "heads": 2, "intents": ()}
    model = _model(features=True, **shape).eval()
    other = IntentRec(N_ITEMS, 6, **TINY, **shape, position="order", short_term_window=None)
    names = {name.replace("item_encoder", "encoder"): name for name in other.state_dict()}
    state = model.state_dict()
    assert names.keys() == state.keys()
    other.load_state_dict({names[name]: value for name, value in state.items()})
    other.take(event_data())
    batch = test_batch(event_data())
    torch.testing.assert_close(other.eval().score(batch), model.score(batch))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_trimmed_and_padded_batches_agree(encoder: str) -> None:
    model, data = _model(encoder).eval(), event_data()
    narrow = model.loss(training_batch(data))
    padded = model.loss(training_batch(data, pad_to_window=True))
    for name, value in narrow.items():
        torch.testing.assert_close(padded[name], value)


def test_intents_are_judged_at_the_test() -> None:
    model = _model("gru", intents=("drift",))
    quiet_trainer(1).test(model, batches(event_data()), verbose=False)
    assert {name.split("/")[0] for name in model.intent_metrics} == {"drift", "item"}
    assert {"drift/accuracy", "drift/accuracy_majority", "drift/accuracy_last"} <= set(
        model.intent_metrics
    )
