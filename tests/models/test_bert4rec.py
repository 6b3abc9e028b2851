"""BERT4Rec: what its specification says must hold."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.models.bert4rec import BERT4Rec

V, WINDOW = 10, 6
SEQUENCES = [
    [1 + (2 * user + step) % V for step in range(n)] for user, n in enumerate((12, 7, 5, 4, 3))
]


def _data(**arguments: Any) -> SequenceDataModule:
    return SequenceDataModule(build_dataset("cycle", SEQUENCES, V), window=WINDOW, **arguments)


def _model(**arguments: Any) -> BERT4Rec:
    torch.manual_seed(0)
    settings = {"window": WINDOW, "width": 8, "dropout": 0.0, "attention_dropout": 0.0} | arguments
    model = BERT4Rec(V, len(SEQUENCES), **settings)
    for parameter in model.parameters():  # larger than the initialisation: differences must show
        torch.nn.init.normal_(parameter, std=0.5)
    return model.double()


def _batch(**arguments: Any) -> SequenceBatch:
    return next(iter(_data(**arguments).train_dataloader()))


def _rows(batch: SequenceBatch) -> list[list[int]]:
    """What each row is to fill in: its inputs and its last target, the oldest dropped."""
    return [
        [*items[:n], int(target[n - 1])][-WINDOW:]
        for items, n, target in zip(
            batch.items.tolist(), batch.lengths.tolist(), batch.targets.tolist(), strict=True
        )
    ]


def _scores(model: BERT4Rec, row: list[int]) -> Tensor:
    """Scores (n, V) at every position of one row, each item alone."""
    encoded = model.head(model.encoder(torch.tensor([row]), torch.tensor([len(row)])))[0]
    scores: Tensor = encoded @ model.item_table().T + model.bias
    return scores[:, 1:]


@torch.no_grad()
def test_loss_is_the_mean_over_hidden_items_and_no_others() -> None:
    model, batch = _model(last_only=0.4), _batch()
    torch.manual_seed(5)
    loss = model.loss(batch)["total"]
    torch.manual_seed(5)
    noise = torch.rand(len(batch.users), WINDOW + 1)
    terms, single = [], 0
    for row, draw in zip(_rows(batch), noise, strict=True):
        count = max(1, int(0.6 * len(row) + 0.5))
        hidden = draw[: len(row)].argsort()[:count].tolist()
        if draw[-1] < 0.4:
            hidden, single = [len(row) - 1], single + 1
        scores = _scores(model, [V + 1 if t in hidden else v for t, v in enumerate(row)])
        terms += [cross_entropy(scores[t], torch.tensor(row[t] - 1)) for t in hidden]
    assert 0 < single < len(batch.users)
    torch.testing.assert_close(loss, torch.stack(terms).mean(), atol=1e-12, rtol=0)


def test_gradient_ignores_slots_without_a_hidden_item() -> None:
    """The bias is where a slot that is not used would leave a trace."""
    model, batch = _model(last_only=1.0), _batch()  # one hidden item a row, room for several
    model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
    found = model.bias.grad
    assert found is not None
    bias = model.bias.detach().clone().requires_grad_()
    rows = _rows(batch)
    terms = []
    for row in rows:
        items = torch.tensor([[*row[:-1], V + 1]])
        state = model.head(model.encoder(items, torch.tensor([len(row)])))[0, -1].detach()
        scores = (state @ model.item_table().T.detach() + bias)[1:]
        terms.append(cross_entropy(scores, torch.tensor(row[-1] - 1)))
    torch.stack(terms).mean().backward()  # type: ignore[no-untyped-call]
    assert bias.grad is not None
    torch.testing.assert_close(found, bias.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5, 0.6, 0.95])
def test_places_are_real_different_and_as_many_as_stated(ratio: float) -> None:
    model = _model(mask_ratio=ratio, last_only=0.3)
    lengths = torch.tensor([6, 6, 5, 3, 2, 2])
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        noise = torch.rand(len(lengths), WINDOW + 1, generator=generator)
        places, hidden = model._places(lengths, 6, noise)
        for n, row, real, draw in zip(lengths.tolist(), places, hidden, noise, strict=True):
            chosen = row[real].tolist()
            assert len(set(chosen)) == len(chosen)
            assert all(place < n for place in chosen)
            if draw[-1] < 0.3:
                assert chosen == [n - 1]
            else:
                assert len(chosen) == max(1, int(ratio * n + 0.5))


def test_every_item_of_a_row_can_be_hidden() -> None:
    model = _model(last_only=0.0, mask_ratio=0.2)
    lengths = torch.tensor([4])
    seen = set()
    for seed in range(40):
        noise = torch.rand(1, WINDOW + 1, generator=torch.Generator().manual_seed(seed))
        places, hidden = model._places(lengths, 4, noise)
        seen |= set(places[hidden].tolist())
    assert seen == {0, 1, 2, 3}


@torch.no_grad()
def test_a_later_item_changes_the_prediction_of_an_earlier_gap() -> None:
    model = _model().eval()
    before = _scores(model, [3, V + 1, 5, 6])
    after = _scores(model, [3, V + 1, 5, 9])
    assert not torch.allclose(before[1], after[1])


@torch.no_grad()
def test_padding_changes_no_loss() -> None:
    model = _model()
    losses = []
    for pad in (False, True):
        torch.manual_seed(3)
        losses.append(model.loss(_batch(pad_to_window=pad))["total"])
    torch.testing.assert_close(*losses, atol=1e-12, rtol=0)


@torch.no_grad()
def test_ranking_reads_the_token_after_the_last_item() -> None:
    """The oldest item goes where the token would make the row longer than the window."""
    model = _model().eval()
    batch = next(iter(_data().test_dataloader()))
    scores = model.score(batch)
    assert scores.shape == (len(SEQUENCES), V + 1)  # no column for the token
    assert (scores[:, 0] == -torch.inf).all()
    for user, found in zip(batch.users.tolist(), scores, strict=True):
        row = [*SEQUENCES[user][:-1], V + 1][-WINDOW:]
        torch.testing.assert_close(found[1:], _scores(model, row)[-1], atol=1e-12, rtol=0)


def test_the_softmax_leaves_padding_and_token_out() -> None:
    """Were they candidates, large vectors of theirs would move the loss."""
    model, batch = _model(), _batch()
    torch.manual_seed(1)
    before = model.loss(batch)["total"]
    with torch.no_grad():
        model.encoder.items.weight[0] = 50.0
        model.bias[0] = 50.0
    torch.manual_seed(1)
    assert model.loss(batch)["total"].equal(before)
    assert len(model.item_table()) == V + 1


def test_the_rate_warms_up() -> None:
    model = _model(warmup_steps=4, learning_rate=0.8)
    optimizer = model.configure_optimizers()
    rates = []
    for step in range(6):
        model._trainer = SimpleNamespace(global_step=step)  # type: ignore[assignment]
        model.on_before_optimizer_step(optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_loss_falls() -> None:
    data, model = _data(), _model(learning_rate=1e-2, last_only=1.0)
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(80):
        total = model.loss(next(iter(data.train_dataloader())))["total"]
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(total.detach()))
    assert values[-1] < 0.3 * values[0]
