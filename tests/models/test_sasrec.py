"""SASRec: what its specification says must hold."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.prepared import TEST, TRAIN, VALID, Meta, PreparedDataset
from datamodules.rows import Layout
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.models.sasrec import SASRec
from intentbench.nn.losses import positive_and_negative_scores, sampled_softmax

LENGTHS = (12, 7, 5, 4, 3)
LOSSES = ("bce1", "bceK", "ce", "ss", "gbce")


def _data(
    layout: Any = "all", lengths: Sequence[int] = LENGTHS, **arguments: Any
) -> SequenceDataModule:
    """Users on a deterministic cycle of ten items, each two items further."""
    items = torch.cat([1 + (torch.arange(n) + 2 * u) % 10 for u, n in enumerate(lengths)])
    split = torch.cat([torch.tensor([TRAIN] * (n - 2) + [VALID, TEST]) for n in lengths])
    offsets = torch.tensor([0, *itertools.accumulate(lengths)])
    meta = Meta("cycle", "0" * 64, {}, "successive", {"users": len(lengths), "items": 10}, {})
    dataset = PreparedDataset(meta, items.int(), split.to(torch.uint8), offsets)
    return SequenceDataModule(dataset, layout=layout, **arguments)


def _model(data: SequenceDataModule, **arguments: Any) -> SASRec:
    torch.manual_seed(0)
    settings = {"width": 16, "heads": 2, "dropout": 0.0, "layout": data.layout} | arguments
    model = SASRec(data.n_items, data.n_users, **settings)
    model.prepare(data.training())
    return model


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


@torch.no_grad()
def _loss(model: SASRec, batch: SequenceBatch) -> float:
    return float(model.loss(batch)["total"])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("encoder", ["sasrec", "bert"])
def test_loss_falls_and_every_parameter_takes_a_gradient(encoder: str, loss: str) -> None:
    data = _data()
    model = _model(data, loss=loss, encoder=encoder, negatives=4, learning_rate=1e-2)
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(40):
        total = model.loss(_batch(data))["total"]
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(total.detach()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_layouts_give_the_same_states_to_the_same_prefixes() -> None:
    """A causal encoder that counts positions from the first item cannot tell the layouts apart."""
    rows, prefixes = _data("all"), _data("prefix")
    model = _model(rows, loss="ce", encoder="bert").eval()
    whole = _loss(model, _batch(rows))
    assert _loss(model, _batch(prefixes)) == pytest.approx(whole, abs=1e-6)


def test_loss_does_not_depend_on_how_wide_the_batch_is() -> None:
    model = _model(_data(), loss="ce").eval()
    narrow = _loss(model, _batch(_data()))
    padded = _loss(model, _batch(_data(pad_to_window=True)))
    assert padded == pytest.approx(narrow, abs=1e-6)


def test_ranking_uses_the_state_after_the_last_item() -> None:
    data = _data()
    model = _model(data, encoder="bert").eval()
    batch = next(iter(data.test_dataloader()))
    scores = model.score(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        states = model.encoder(batch.items[row : row + 1, :length])
        expected = states[0, -1] @ model.item_table().T
        torch.testing.assert_close(scores[row, 1:], expected[1:])
    assert (scores[:, 0] == -torch.inf).all()


def _drawn(model: SASRec, batch: SequenceBatch) -> Tensor:
    return model._negatives(batch)


def test_shared_negatives_are_one_draw_a_row() -> None:
    data = _data()
    batch = _batch(data)
    assert _drawn(_model(data, loss="ss", negatives=6), batch).shape == (len(batch.users), 6)
    assert _drawn(_model(data, loss="bce1", negatives=6), batch).shape == (len(batch.labels), 1)
    assert _drawn(_model(data, loss="gbce", negatives=6), batch).shape == (len(batch.labels), 6)


@pytest.mark.parametrize("layout", ["all", "prefix"])
def test_sampled_softmax_is_the_one_over_copied_negatives(layout: Layout) -> None:
    data = _data(layout)
    batch, model = _batch(data), _model(data, loss="ss", layout=layout, negatives=6).eval()
    torch.manual_seed(5)
    total = model.loss(batch)["total"]
    torch.manual_seed(5)
    copied = _drawn(model, batch)[batch.rows]
    states, table = model._states(batch), model.item_table()
    scores = positive_and_negative_scores(states, table, batch.labels, copied)
    expected = sampled_softmax(*scores, copied == batch.labels[:, None])
    torch.testing.assert_close(total, expected)
    weights = list(model.parameters())
    found, wanted = (torch.autograd.grad(value, weights) for value in (total, expected))
    torch.testing.assert_close(found, wanted)


def test_a_deterministic_cycle_is_learned() -> None:
    data = _data(lengths=[12, 13] * 5, window=5)
    model = _model(data, window=5, loss="ce", encoder="bert", learning_rate=1e-2)
    optimizer = model.configure_optimizers()
    for _ in range(150):
        optimizer.zero_grad()
        total = model.loss(_batch(data))["total"]
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    batch = next(iter(data.test_dataloader()))
    assert float(total.detach()) < 0.02
    assert (model.eval().score(batch).argmax(1) == batch.target).all()
