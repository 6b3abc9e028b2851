"""BSARec: against a slow reference, against SASRec at alpha 0, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.contracts.subject import quiet_trainer
from intentbench.models.bsarec import BSARec, BSARecBlock, visible_keys
from intentbench.models.sasrec import SASRec

WINDOW, WIDTH, N_ITEMS = 6, 8, 12
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


def _model(**arguments: Any) -> BSARec:
    torch.manual_seed(0)
    settings = {"window": WINDOW, "width": WIDTH, "heads": 2, "dropout": 0.0} | arguments
    return BSARec(N_ITEMS, len(LENGTHS), **settings)


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _norm(states: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    return layer_norm(states, (WIDTH,), norm.weight, norm.bias, eps=1e-12)


def _filtered(states: Tensor, block: BSARecBlock, cutoff: int) -> Tensor:
    """F(H) of one window (N, D), with cosines and sines instead of a transform."""
    assert block.filter is not None
    low = torch.zeros_like(states)
    for t in range(WINDOW):
        for s in range(WINDOW):
            for f in range(min(cutoff // 2, WINDOW // 2) + 1):
                both = 1 if f in (0, WINDOW / 2) else 2
                low[t] += both / WINDOW * math.cos(2 * math.pi * f * (t - s) / WINDOW) * states[s]
    mixer: Any = block.filter.mixer
    mixed = low + mixer.root_beta**2 * (states - low)
    return _norm(states + mixed, block.filter.norm)


def _attended(states: Tensor, real: list[bool], block: BSARecBlock) -> Tensor:
    """A(H) of one window (N, D), with the reference code's additive mask of -10000."""
    attention = block.attention
    assert attention is not None
    query = linear(states, attention.query.weight, attention.query.bias)
    both = linear(states, attention.key_value.weight, attention.key_value.bias)
    key, value = both[:, :WIDTH], both[:, WIDTH:]
    size = WIDTH // attention.heads
    mixed = torch.zeros_like(states)
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(WINDOW):
            scores = torch.stack(
                [
                    query[t, part] @ key[s, part] / math.sqrt(size)
                    - (0.0 if real[s] and s <= t else 10000.0)
                    for s in range(WINDOW)
                ]
            )
            weights = torch.exp(scores - scores.max())
            mixed[t, part] = (weights / weights.sum()) @ value[:, part]
    return _norm(states + attention.out(mixed), attention.norm)


def _reference(model: BSARec, row: list[int], alpha: float, cutoff: int) -> Tensor:
    """The state (D,) after a history, every position of every block computed."""
    window = ([0] * WINDOW + row)[-WINDOW:]
    real = [item != 0 for item in window]
    encoder = model.encoder
    states = encoder.items.weight[torch.tensor(window)] + encoder.positions.weight
    states = _norm(states, encoder.norm)
    for block in encoder.blocks:
        assert isinstance(block, BSARecBlock)
        filtered, attended = _filtered(states, block, cutoff), _attended(states, real, block)
        states = alpha * filtered + (1 - alpha) * attended
        states = _norm(states + block.feed_forward.layers(states), block.feed_forward.norm)
    return states[-1]


@torch.no_grad()
@pytest.mark.parametrize("cutoff", [1, 3, 5])
def test_states_are_those_of_a_slow_reference(cutoff: int) -> None:
    model = _model(alpha=0.4, cutoff=cutoff).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # first weights are too small to tell much
    rows = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8], [5, 3], [7], []]
    items = torch.tensor([row + [0] * (8 - len(row)) for row in rows])
    states = model.encoder(items, torch.tensor([len(row) for row in rows]))
    expected = torch.stack([_reference(model, row, 0.4, cutoff) for row in rows])
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


def _sasrec() -> SASRec:
    torch.manual_seed(0)
    return SASRec(
        N_ITEMS,
        len(LENGTHS),
        window=WINDOW,
        loss="ce",
        layout="prefix",
        encoder="bert",
        width=WIDTH,
        heads=2,
        dropout=0.0,
    )


def test_alpha_zero_starts_as_sasrec_does() -> None:
    pairs = zip(_model(alpha=0.0).parameters(), _sasrec().parameters(), strict=True)
    assert all(first.equal(second) for first, second in pairs)


def test_alpha_zero_trains_as_sasrec_does_but_for_where_positions_are_counted() -> None:
    """With position tables of zeros the two conventions cannot differ."""
    batch = _batch(_data())
    assert len({*batch.lengths.tolist()}) == WINDOW
    model, sasrec = _model(alpha=0.0), _sasrec()
    for table in (model.encoder.positions, sasrec.encoder.positions):
        torch.nn.init.zeros_(table.weight)
    losses = [method.loss(batch)["total"] for method in (model, sasrec)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    for first, second in zip(model.parameters(), sasrec.parameters(), strict=True):
        if first is not model.encoder.positions.weight:
            torch.testing.assert_close(first.grad, second.grad, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_alpha_zero_is_sasrec_whose_last_item_stands_at_the_last_position() -> None:
    model, sasrec = _model(alpha=0.0).eval(), _sasrec().eval()
    batch = next(iter(_data().test_dataloader()))
    states = model.encode(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        shifted = model.encoder.positions.weight.roll(length, 0)  # the last `length` come first
        sasrec.encoder.positions.weight.copy_(shifted)
        expected = sasrec.encoder(batch.items[row : row + 1, :length])[0, -1]
        torch.testing.assert_close(states[row], expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_alpha_one_with_beta_one_is_a_residual_layer() -> None:
    block = BSARecBlock(WINDOW, WIDTH, heads=2, alpha=1.0, cutoff=3, dropout=0.0)
    assert block.attention is None
    assert block.filter is not None
    mixer: Any = block.filter.mixer
    torch.nn.init.ones_(mixer.root_beta)
    states = torch.randn(2, WINDOW, WIDTH)
    real = torch.ones(2, WINDOW, dtype=torch.bool)
    expected = block.feed_forward(_norm(2 * states, block.filter.norm))
    torch.testing.assert_close(block(states, real, last=False), expected, atol=1e-5, rtol=1e-5)


def test_last_position_alone_sees_what_it_sees_among_all() -> None:
    real = torch.tensor([[False] * 3, [False, False, True], [False, True, True], [True] * 3])
    assert visible_keys(real, last=True).equal(visible_keys(real, last=False)[:, -1:])


@torch.no_grad()
def test_block_gives_the_last_position_as_it_gives_all() -> None:
    block = BSARecBlock(WINDOW, WIDTH, heads=2, alpha=0.5, cutoff=3, dropout=0.0)
    states = torch.randn(3, WINDOW, WIDTH)
    real = torch.arange(WINDOW) >= torch.tensor([[0], [4], [WINDOW]])
    last = block(states, real, last=True)
    torch.testing.assert_close(last, block(states, real, last=False)[:, -1:])


@torch.no_grad()
def test_loss_is_the_cross_entropy_of_the_next_item() -> None:
    batch = _batch(_data())
    model = _model(alpha=0.5).eval()
    scores = model.encode(batch) @ model.item_table().T
    terms = [
        -math.log(math.exp(row[target]) / sum(math.exp(score) for score in row[1:]))
        for row, target in zip(scores.tolist(), batch.labels.tolist(), strict=True)
    ]
    assert float(model.loss(batch)["total"]) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@torch.no_grad()
def test_loss_does_not_depend_on_how_wide_the_batch_is() -> None:
    model = _model(alpha=0.5).eval()
    narrow, wide = (
        [model.loss(batch)["total"] for batch in data.train_dataloader()]
        for data in (_data(batch_size=3), _data(batch_size=3, pad_to_window=True))
    )
    torch.testing.assert_close(narrow, wide)


def test_loss_on_every_position_is_refused() -> None:
    with pytest.raises(RequestError, match="trains on layout 'prefix'"):
        quiet_trainer(1).fit(_model(), _data("all"))


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"alpha": -0.1}, {"heads": 3}])
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="alpha"):
        _model(**wrong)
