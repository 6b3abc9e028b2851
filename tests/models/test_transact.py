"""TransAct, adapted: what its specification says must hold."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from datamodules.errors import RequestError
from intentbench.models.transact import TransAct, hidden_places
from tests.models.events import (
    N_ITEMS,
    TINY,
    change_after,
    event_data,
    events_of,
    gradients,
    test_batch,
    training_batch,
    without_training_after,
)


def _model(**arguments: Any) -> TransAct:
    torch.manual_seed(0)
    model = TransAct(N_ITEMS, 6, **{**TINY, **arguments})
    model.take(event_data())
    return model


def test_nothing_sees_later_events() -> None:
    model, k = _model().eval(), 5
    data = without_training_after(event_data(), 0, k)
    before = model.read(events_of(model, data, 0))
    after = model.read(events_of(model, change_after(data, 0, k), 0))
    pairs = [(before.queries, after.queries), *zip(before.logits, after.logits, strict=True)]
    for first, second in pairs:
        assert first[:, : k + 1].equal(second[:, : k + 1])
        assert not torch.allclose(first[:, k + 1 :], second[:, k + 1 :])


def test_state_is_the_last_output_and_the_running_maximum() -> None:
    model = _model().eval()
    states = model.read(events_of(model, event_data(), 0)).states[0]
    outputs, best = states[:, :16], states[:, 16:]
    for k in range(len(states)):
        assert best[k].equal(outputs[: k + 1].amax(0))


def test_it_reads_items_and_one_field_alone() -> None:
    model = _model().eval()
    events = events_of(model, event_data(), 0)
    found = model.read(events).queries
    action, *others = events.values
    other = [torch.zeros_like(value) for value in others]
    same = events._replace(values=[action, *other], numbers=events.numbers * 0)
    assert model.read(same).queries.equal(found)
    changed = events._replace(values=[action % 3 + 1, *others])
    assert not torch.allclose(model.read(changed).queries, found)


@pytest.mark.parametrize("pad", [False, True])
def test_hidden_span_is_that_of_the_definition(pad: bool) -> None:
    """Against a loop over targets; nothing is hidden where all would be."""
    data = event_data()
    batch = training_batch(data, pad_to_window=pad)
    model = _model()
    known = model.known(torch.device("cpu"))
    rows = known.table.rows(batch)
    torch.manual_seed(5)
    span = torch.rand(len(batch.users)) * 9000
    found = hidden_places(batch, rows, known.times, span)
    assert data.timestamps is not None
    starts: list[int] = []
    base = 0
    for start, stop, width in batch.groups:
        starts += [base + width * row for row in range(stop - start)]
        base += width * (stop - start)
    hidden = 0
    for place, select, row in zip(
        found.tolist(), batch.select.tolist(), batch.rows.tolist(), strict=True
    ):
        last = select - starts[row]
        target = data.timestamps[rows[row, last] + 1]
        old = [
            i for i in range(last + 1) if target - data.timestamps[rows[row, i]] >= span[row].item()
        ]
        expected = max(old) if old else last
        assert place - starts[row] == expected
        hidden += expected < last
    assert hidden > 5
    nothing = hidden_places(batch, rows, known.times, torch.zeros(len(batch.users)))
    assert nothing.equal(batch.select)


def test_events_are_hidden_in_training_only() -> None:
    batch = training_batch(event_data())
    model = _model(hidden_hours=3.0)
    rows = model.known(torch.device("cpu")).table.rows(batch)
    assert not model.places(batch, rows).equal(batch.select)
    assert model.eval().places(batch, rows).equal(batch.select)
    assert _model(hidden_hours=0.0).places(batch, rows).equal(batch.select)


def test_a_hidden_target_sees_only_what_is_old_enough() -> None:
    """Changing what is hidden changes no state that predicts the target."""
    data = event_data()
    batch = training_batch(data)
    model = _model().train()
    known = model.known(torch.device("cpu"))
    rows = known.table.rows(batch)
    span = torch.full((len(batch.users),), 2500.0)
    places = hidden_places(batch, rows, known.times, span)
    model.places = lambda *_: places  # type: ignore[method-assign]
    target = int((places < batch.select).nonzero()[-1])
    row = int(batch.rows[target])
    reading, before = model.reading(batch)
    position = int(before[target] - rows[row, 0])
    old = position - int(batch.select[target] - places[target])
    items = batch.items.clone()
    items[row, old + 1 :] = items[row, old + 1 :] % N_ITEMS + 1
    after, _ = model.reading(replace(batch, items=items))
    assert after.queries[target].equal(reading.queries[target])


def test_every_parameter_learns_and_the_loss_falls() -> None:
    model = _model(learning_rate=1e-2, hidden_hours=0.0)
    batch = training_batch(event_data())
    assert all(gradients(model, model.loss(batch)["total"]).values())
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        total = model.loss(batch)["total"]
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(total.detach()))
    assert values[-1] < 0.9 * values[0]


def test_heads_stand_side_by_side() -> None:
    model = _model(intent_weight=0.0)
    got = gradients(model, model.loss(training_batch(event_data()))["total"])
    assert all(has != name.startswith("heads") for name, has in got.items())


def test_what_cannot_be_is_refused_in_a_line() -> None:
    with pytest.raises(RequestError, match="action 'buy' is none of its fields; they are: action"):
        _model(action="buy")
    untimed = replace(event_data(), timestamps=None)
    with pytest.raises(RequestError, match="TransAct needs timestamps"):
        _model().take(untimed)
    model = _model(action="", fields={}, intents=(), position="order", hidden_hours=0.0)
    model.take(untimed)
    assert model.score(test_batch(untimed))[:, 1:].isfinite().all()
