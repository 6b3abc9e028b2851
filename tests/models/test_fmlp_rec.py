"""FMLP-Rec: against a slow reference, its losses, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset, planted_cycles
from intentbench.contracts.subject import quiet_trainer
from intentbench.models.fmlp_rec import FMLPRec, FMLPRecBlock
from intentbench.nn.frequency import LearnableFilter

WINDOW, WIDTH, N_ITEMS = 6, 4, 20
LENGTHS = (14, 9, 8, 6, 5, 4, 3)


def _data(layout: Any = "prefix", **arguments: Any) -> SequenceDataModule:
    """Users of several lengths, longer and shorter than the window."""
    random = torch.Generator().manual_seed(0)
    sequences = [
        torch.randint(1, N_ITEMS + 1, (length,), generator=random).tolist() for length in LENGTHS
    ]
    dataset = build_dataset("random", sequences, N_ITEMS)
    settings = {"layout": layout, "window": WINDOW, "targets": "every"} | arguments
    return SequenceDataModule(dataset, **settings)


def _model(**arguments: Any) -> FMLPRec:
    torch.manual_seed(0)
    settings = {"window": WINDOW, "width": WIDTH, "dropout": 0.0} | arguments
    return FMLPRec(N_ITEMS, len(LENGTHS), **settings)


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _norm(states: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    return layer_norm(states, (WIDTH,), norm.weight, norm.bias, eps=1e-12)


def _convolved(states: Tensor, mixer: LearnableFilter) -> Tensor:
    """The filter on one window (N, D) as a circular convolution, its kernel a sum of cosines."""
    result = torch.zeros_like(states)
    for t in range(WINDOW):
        for s in range(WINDOW):
            for f in range(WINDOW // 2 + 1):
                both = 1 if f in (0, WINDOW / 2) else 2
                angle = 2 * math.pi * f * (t - s) / WINDOW
                real, imaginary = mixer.weight[f, :, 0], mixer.weight[f, :, 1]
                kernel = both / WINDOW * (real * math.cos(angle) - imaginary * math.sin(angle))
                result[t] += kernel * states[s]
    return result


def _reference(model: FMLPRec, row: list[int]) -> Tensor:
    """The state (D,) after a history, every position of every block computed."""
    window = ([0] * WINDOW + row)[-WINDOW:]
    encoder = model.encoder
    states = encoder.items.weight[torch.tensor(window)] + encoder.positions.weight
    states = _norm(states, encoder.norm)
    for block in encoder.blocks:
        assert isinstance(block, FMLPRecBlock)
        mixer = block.filter.mixer
        assert isinstance(mixer, LearnableFilter)
        states = _norm(states + _convolved(states, mixer), block.filter.norm)
        states = _norm(states + block.feed_forward.layers(states), block.feed_forward.norm)
    return states[-1]


@torch.no_grad()
def test_states_are_those_of_a_slow_reference() -> None:
    model = _model().double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # first weights are too small to tell much
    rows = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8], [5, 3], [7], []]
    items = torch.tensor([row + [0] * (8 - len(row)) for row in rows])
    states = model.encoder(items, torch.tensor([len(row) for row in rows]))
    expected = torch.stack([_reference(model, row) for row in rows])
    torch.testing.assert_close(states, expected)


@torch.no_grad()
def test_block_with_weights_of_one_is_a_residual_layer() -> None:
    block = FMLPRecBlock(WINDOW, WIDTH, dropout=0.0)
    mixer = block.filter.mixer
    assert isinstance(mixer, LearnableFilter)
    mixer.weight[..., 0], mixer.weight[..., 1] = 1, 0
    states = torch.randn(2, WINDOW, WIDTH)
    real = torch.ones(2, WINDOW, dtype=torch.bool)
    expected = block.feed_forward(_norm(2 * states, block.filter.norm))
    torch.testing.assert_close(block(states, real, last=False), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_state_reads_every_item_of_the_window_and_none_before_it() -> None:
    model = _model().eval()
    items = torch.tensor([[9, 8, 3, 1, 4, 5, 2, 6]])
    lengths = torch.tensor([8])
    state = model.encoder(items, lengths)
    for column in range(8):
        other = items.clone()
        other[0, column] = 10
        assert model.encoder(other, lengths).equal(state) == (column < 8 - WINDOW)


@torch.no_grad()
def test_losses_are_those_of_the_papers() -> None:
    data = _data()
    batch = _batch(data)
    model = _model().eval()
    model.prepare(data.training())
    assert model.sampler is not None
    torch.manual_seed(3)
    negatives = model.sampler.sample(batch.users, 1)[:, 0].tolist()
    torch.manual_seed(3)
    loss = float(model.loss(batch)["total"])
    scores = (model.encode(batch) @ model.item_table().T).tolist()
    logistic, full = [], []
    for row, target, negative in zip(scores, batch.labels.tolist(), negatives, strict=True):
        logistic.append(math.log1p(math.exp(-row[target])) + math.log1p(math.exp(row[negative])))
        full.append(math.log(sum(math.exp(score) for score in row[1:])) - row[target])
    assert loss == pytest.approx(sum(logistic) / len(logistic), rel=1e-5)
    softmax = _model(loss="ce").eval()
    assert float(softmax.loss(batch)["total"]) == pytest.approx(sum(full) / len(full), rel=1e-5)


@torch.no_grad()
def test_loss_does_not_depend_on_how_wide_the_batch_is() -> None:
    model = _model(loss="ce").eval()
    narrow, wide = (
        [model.loss(batch)["total"] for batch in data.train_dataloader()]
        for data in (_data(batch_size=3), _data(batch_size=3, pad_to_window=True))
    )
    torch.testing.assert_close(narrow, wide)


def test_a_deterministic_cycle_is_learnt() -> None:
    data = SequenceDataModule(planted_cycles(), layout="prefix", window=8)
    torch.manual_seed(0)
    model = FMLPRec(data.n_items, data.n_users, 8, "ce", 16, 1, 0.0, learning_rate=1e-2)
    optimizer = model.configure_optimizers()
    batch = _batch(data)
    for _ in range(150):
        optimizer.zero_grad()
        total = model.loss(batch)["total"]
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    query = next(iter(data.test_dataloader()))
    right = (model.eval().score(query).argmax(1) == query.target).float().mean()
    assert float(total.detach()) < 0.1
    assert right > 0.9


def test_loss_on_every_position_is_refused() -> None:
    with pytest.raises(RequestError, match="trains on layout 'prefix'"):
        quiet_trainer(1).fit(_model(), _data("all"))


def test_loss_without_the_training_events_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        _model().loss(_batch(_data()))
