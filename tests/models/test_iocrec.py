"""IOCRec: what its specification says must hold."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, layer_norm
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.errors import RequestError
from datamodules.rows import flat_starts
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import quiet_trainer
from intentbench.models.iocrec import IOCRec
from intentbench.nn.info_nce import info_nce
from intentbench.nn.views import random_view

WINDOW, WIDTH, K = 6, 16, 3


def _data(layout: Any = "prefix", **arguments: Any) -> SequenceDataModule:
    settings: dict[str, Any] = {"window": WINDOW, "batch_size": 8, "layout": layout, **arguments}
    return SequenceDataModule(planted_cycles(12, 3, 8), **settings)


def _model(data: SequenceDataModule, **arguments: Any) -> IOCRec:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"window": WINDOW, "width": WIDTH, "blocks": 1, "prototypes": K}
    model = IOCRec(data.n_items, data.n_users, **{**settings, "dropout": 0.0, **arguments})
    for norm in ("state_norm", "prototype_norm", "query_norm", "key_norm", "intent_norm"):
        torch.nn.init.normal_(getattr(model.disentangle, norm).weight, 1.0, 0.1)
        torch.nn.init.normal_(getattr(model.disentangle, norm).bias, 0.0, 0.1)
    return model


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _vectors(model: IOCRec, row: Tensor) -> Tensor:
    """(n, D) embeddings of n items, or the mask vector where one is masked."""
    table = model.encoder.items.weight
    masked = len(table)  # V + 1
    return torch.stack([model.mask_vector if item == masked else table[item] for item in row])


def _intents_of_one_row(model: IOCRec, row: Tensor) -> Tensor:
    """z (n, K, D) of n items, by the formulas, in float64, without padding."""
    model = model.double()
    part, whole = model.disentangle, model.whole
    items = _vectors(model, row)
    near = model.encoder.attend(items[None])[0]
    far = torch.stack(
        [
            (whole.queries[t] @ whole.key(items).T).softmax(0) @ whole.value(items)
            for t in range(len(row))
        ]
    )
    result = torch.zeros(len(row), len(part.prototypes), WIDTH, dtype=torch.float64)
    for states in (near, far):
        query = part.query_norm(states[-1] + part.positions.weight[len(row) - 1] + part.last)
        keys = []
        for t, state in enumerate(states):
            key = part.key_norm(state + part.positions.weight[t])
            keys.append(key + part.project(key).relu())
        places = torch.stack([query @ key / math.sqrt(WIDTH) for key in keys]).softmax(0)
        for t, state in enumerate(states):
            prototypes = part.prototype_norm(part.prototypes)
            shares = (prototypes @ part.state_norm(state) / math.sqrt(WIDTH)).softmax(0)
            for k in range(len(shares)):
                weighted = shares[k] * places[t] * state
                norm = part.intent_norm
                result[t, k] += layer_norm(weighted, [WIDTH], norm.weight, norm.bias, norm.eps)
    return result


@torch.no_grad()
def test_scores_are_the_largest_over_the_intents_of_the_last_item() -> None:
    data = _data()
    model, batch = _model(data).double().eval(), next(iter(data.test_dataloader()))
    scores = model.score(batch)
    assert (scores[:, PAD] == -torch.inf).all()
    for row, length in enumerate(batch.lengths.tolist()):
        intents = _intents_of_one_row(model, batch.items[row, :length])[-1]
        expected = (intents @ model.encoder.items.weight.T).amax(0)
        torch.testing.assert_close(scores[row, 1:], expected[1:])


@torch.no_grad()
def test_loss_is_that_of_a_loop_over_rows() -> None:
    data = _data()
    model, batch = _model(data, instance_weight=0.3).double().eval(), _batch(data)
    torch.manual_seed(1)
    found = model.loss(batch)
    torch.manual_seed(1)
    views = [random_view(batch.items, batch.lengths, model.edits, WINDOW) for _ in range(2)]
    assert any((items > data.n_items).any() for items, _ in views)
    assert any((lengths < batch.lengths).any() for _, lengths in views)
    flat = [torch.zeros(len(batch.users), K, WINDOW, WIDTH).double() for _ in views]
    for (items, lengths), table in zip(views, flat, strict=True):
        for row, n in enumerate(lengths.tolist()):
            intents = _intents_of_one_row(model, items[row, :n])
            table[row, :, :n] = intents.transpose(0, 1)
    first, second = (table.flatten(0, 1).flatten(1) for table in flat)
    assert len(first) == len(batch.users) * K
    torch.testing.assert_close(found["instance"], info_nce(first, second))
    logits = torch.stack(
        [
            (_intents_of_one_row(model, row[:n])[-1] @ model.encoder.items.weight[1:].T).amax(0)
            for row, n in zip(batch.items, batch.lengths.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(found["next"], cross_entropy(logits, batch.labels - 1))
    expected = found["next"] + 0.3 * found["instance"]
    torch.testing.assert_close(found["total"], expected)


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    narrow, wide = _data(), _data(pad_to_window=True)
    model = _model(narrow).eval()
    terms = []
    for data in (narrow, wide):
        torch.manual_seed(1)
        terms.append(model.loss(_batch(data)))
    torch.testing.assert_close(*terms)


@torch.no_grad()
def test_one_prototype_gives_one_intent() -> None:
    data = _data()
    model, batch = _model(data, prototypes=1).eval(), next(iter(data.test_dataloader()))
    intent = model._last_intents(batch)
    assert intent.shape == (len(batch.users), 1, WIDTH)
    expected = intent[:, 0] @ model.encoder.items.weight.T
    torch.testing.assert_close(model.score(batch)[:, 1:], expected[:, 1:])
    found = model.intents(_batch(_data("all")))
    assert found.assignment is not None
    assert not found.assignment.any()


class _LargestResult(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Numbers in the largest tensor that any operation returned."""

    found = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result: object = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.found = max(self.found, result.numel())
        return result


@torch.no_grad()
def test_where_the_last_item_counts_alone_nothing_is_made_for_all_places_or_scores() -> None:
    data = _data()
    model = _model(data, prototypes=64, instance_weight=0.0)
    batch = next(iter(data.test_dataloader()))
    with _LargestResult() as scoring:  # type: ignore[no-untyped-call]
        model.score(batch)
    users, length = batch.items.shape
    assert scoring.found < users * 64 * min(data.n_items, length * WIDTH)
    rows = _batch(data)
    with _LargestResult() as training:  # type: ignore[no-untyped-call]
        model.loss(rows)
    assert training.found < rows.items.numel() * 64 * WIDTH
    assert training.found >= len(rows.users) * 64 * data.n_items  # it does see large results


@torch.no_grad()
def test_masked_items_become_a_token_that_keeps_its_place() -> None:
    data = _data()
    model, batch = _model(data, mask=0.5), _batch(data)
    torch.manual_seed(1)
    edit = model.edits[1]
    items, lengths = edit(batch.items, batch.lengths, noise=torch.rand(len(batch.users), WINDOW))
    assert lengths.equal(batch.lengths)
    for before, after, length in zip(batch.items, items, lengths.tolist(), strict=True):
        masked = after != before
        assert masked.sum() == length // 2
        assert (after[masked] == data.n_items + 1).all()
    near, far, _ = model.eval()._states(items)
    model.mask_vector.add_(1.0)
    changed = zip(model._states(items)[:2], (near, far), strict=True)
    touched = (items > data.n_items).any(1)
    assert touched.any()
    for after, before in changed:
        assert after[~touched].equal(before[~touched])
        assert ((after - before)[touched].abs().amax((1, 2)) > 0).all()


def test_the_mask_vector_learns() -> None:
    data = _data()
    model = _model(data, mask=0.9)
    model.loss(_batch(data))["total"].backward()  # type: ignore[no-untyped-call]
    assert model.mask_vector.grad is not None
    assert model.mask_vector.grad.any()


@torch.no_grad()
def test_order_of_prototypes_does_not_matter() -> None:
    data = _data()
    model, batch = _model(data).eval(), next(iter(data.test_dataloader()))
    before = model.score(batch)
    model.disentangle.prototypes.copy_(model.disentangle.prototypes[torch.tensor([2, 0, 1])])
    torch.testing.assert_close(model.score(batch), before)


def test_a_batch_of_one_row_works() -> None:
    data = _data(batch_size=1)
    model = _model(data, dropout=0.5)
    terms = model.loss(_batch(data))
    terms["total"].backward()  # type: ignore[no-untyped-call]
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_an_empty_history_gives_finite_scores() -> None:
    data = _data()
    model, batch = _model(data).eval(), next(iter(data.test_dataloader()))
    empty = replace(
        batch, items=torch.zeros_like(batch.items), lengths=torch.zeros_like(batch.lengths)
    )
    assert model.score(empty)[:, 1:].isfinite().all()


def test_without_weight_no_view_is_drawn() -> None:
    data = _data()
    batch = _batch(data)
    plain, contrasted = _model(data, instance_weight=0.0), _model(data)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    terms = plain.loss(batch)
    assert torch.get_rng_state().equal(state)
    assert terms.keys() == {"total", "next"}
    assert terms["total"].equal(contrasted.loss(batch)["next"])


def test_rows_with_many_targets_are_refused() -> None:
    data = _data("all")
    with pytest.raises(RequestError, match="trains on layout 'prefix'"):
        quiet_trainer(1).fit(_model(data), data)


@torch.no_grad()
def test_intents_are_those_of_the_strongest_prototype_of_each_prefix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("intentbench.models.iocrec.PASS_ROWS", 7)
    data = _data("all")
    model, batch = _model(data).double().eval(), _batch(data)
    found = model.intents(batch)
    assert found.assignment is not None
    start = flat_starts(batch.groups)
    for target, (row, at) in enumerate(
        zip(batch.rows.tolist(), batch.select.tolist(), strict=True)
    ):
        prefix = batch.items[row, : at - start[row] + 1]
        state = model.encoder(prefix[None])[0, -1]
        strongest = model.disentangle.shares(state).argmax()
        torch.testing.assert_close(found.states[target], state)
        assert found.assignment[target] == strongest
        expected = _intents_of_one_row(model, prefix)[-1, strongest]
        torch.testing.assert_close(found.vectors[target], expected)
