"""DuoRec: what its specification says must hold."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch, TrainingData
from intentbench.contracts.data import build_dataset
from intentbench.models.base import GradientRecommender
from intentbench.models.duorec import DuoRec
from intentbench.models.sasrec import SASRec
from intentbench.nn.info_nce import info_nce
from intentbench.nn.together import encode_together

V, WINDOW = 9, 4
SEQUENCES = [
    [3, 1, 4, 1, 5, 2, 8, 9],
    [2, 5, 3, 5, 8, 9],
    [7, 6, 8, 9],
    [1, 2, 3, 4, 5, 8, 9],
]
PAPER = {"dropout_weight": 0.1, "target_weight": 0.1, "anchor": "first"}


def _data(sequences: list[list[int]] = SEQUENCES, **arguments: Any) -> SequenceDataModule:
    settings: dict[str, Any] = {"layout": "prefix", "window": WINDOW, "batch_size": 5} | arguments
    return SequenceDataModule(build_dataset("x", sequences, V), **settings)


def _model(training: TrainingData | None = None, **arguments: Any) -> DuoRec:
    torch.manual_seed(0)
    settings = {"window": WINDOW, "width": 8, "dropout": 0.3} | arguments
    model = DuoRec(V, len(SEQUENCES), **settings)
    model.prepare(training or _data().training())
    return model


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


def test_without_its_terms_it_is_sasrec_bit_for_bit() -> None:
    model = _model(dropout_weight=0.0, target_weight=0.0)
    torch.manual_seed(0)
    base = SASRec(
        V, 4, WINDOW, "ce", "prefix", "bert", width=8, heads=2, dropout=0.3, learning_rate=1e-3
    )
    values = _trained(base)
    assert _trained(model) == values
    found = model.state_dict()
    assert all(found[name].equal(weight) for name, weight in base.state_dict().items())
    assert _trained(_model()) != values


@torch.no_grad()
def test_without_dropout_both_passes_agree() -> None:
    """h' = h: then both anchors give one loss, and the pair of a row is the row itself."""
    batch = next(iter(_data().train_dataloader()))
    losses = []
    for anchor in ("first", "second"):
        model = _model(dropout=0.0, dropout_weight=0.1, anchor=anchor)
        torch.manual_seed(2)
        losses.append(model.loss(batch))
    assert losses[0]["total"].equal(losses[1]["total"])
    state = model.encode(batch)
    assert losses[0]["dropout"].equal(info_nce(state, state))


@torch.no_grad()
def test_with_a_target_of_its_own_a_row_is_its_own_partner() -> None:
    unique = [[1, 2, 3, 4, 8, 9], [9, 5, 6, 7, 8, 9]]  # targets 2, 3, 4, 5, 6, 7
    data = _data(unique, batch_size=6)
    model = _model(data.training(), dropout=0.0)
    batch = next(iter(data.train_dataloader()))
    items, lengths = model._partners(batch)
    assert lengths.equal(batch.lengths)
    assert items.equal(batch.items)
    contrast = model.loss(batch)["target"]
    state = model.encode(batch)
    torch.testing.assert_close(contrast, info_nce(state, state), atol=1e-6, rtol=0)
    noisy = _model(data.training(), dropout=0.5).loss(batch)["target"]
    assert not torch.isclose(contrast, noisy)  # a pass of its own


@torch.no_grad()
@pytest.mark.parametrize("arguments", [{}, PAPER])
def test_loss_equals_its_equation(arguments: dict[str, Any]) -> None:
    """The passes are made again with the same draws, dropout on."""
    model = _model(**arguments)
    batch = next(iter(_data(batch_size=10).train_dataloader()))
    torch.manual_seed(5)
    terms = model.loss(batch)
    torch.manual_seed(5)
    rows = (batch.items, batch.lengths)
    sets = [rows, rows, model._partners(batch)]
    first, second, third = encode_together(sets, model.encoder.last_state)
    expected = terms["recommendation"]
    if arguments:
        expected = expected + 0.1 * _nce(first, second) + 0.1 * _nce(first, third)
    else:
        expected = expected + 0.1 * _nce(second, third)
    torch.testing.assert_close(terms["total"], expected)
    assert ("dropout" in terms) == bool(arguments)


def _nce(first: Tensor, second: Tensor) -> Tensor:
    rows, count = torch.cat([first, second]), len(first)
    terms = []
    for a in range(2 * count):
        logits = rows @ rows[a]
        rest = torch.cat([logits[:a], logits[a + 1 :]])  # all but the row itself
        terms.append(rest.logsumexp(0) - logits[(a + count) % (2 * count)])
    return torch.stack(terms).mean()


@torch.no_grad()
def test_partners_come_from_training_rows_of_the_same_target() -> None:
    model = _model()
    assert model.prefixes is not None
    assert not torch.isin(model.prefixes.target, torch.tensor([8, 9])).any()
    items, _ = model.prefixes.windows(torch.arange(len(model.prefixes)))
    assert not torch.isin(items, torch.tensor([8, 9])).any()


@torch.no_grad()
def test_rows_of_one_target_can_be_spared() -> None:
    batch = _of_one_target(next(iter(_data().train_dataloader())))
    spared = _model(mask_false_negatives=True, dropout_weight=0.1).loss(batch)
    assert float(spared["target"]) == pytest.approx(0, abs=1e-6)
    assert float(spared["dropout"]) == pytest.approx(0, abs=1e-6)
    counted = _model(dropout_weight=0.1).loss(batch)
    assert float(counted["target"]) > 1
    assert all(term.isfinite() for term in counted.values())


def _of_one_target(batch: SequenceBatch) -> SequenceBatch:
    return replace(
        batch,
        labels=batch.labels[:1].expand_as(batch.labels),
        users=batch.users[:1].expand_as(batch.users),
        key=batch.key[:1].expand_as(batch.key),
    )
