"""GRU4Rec: causal, blind to padding, and the same state for a prefix as within the whole."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from datamodules.sequence import SequenceDataModule
from intentbench.contracts.data import planted_cycles
from intentbench.models.gru4rec import GRU4Rec
from tests.models.reference import N_ITEMS, queries_of


def _model(n_items: int = N_ITEMS, tied: bool = True, learning_rate: float = 1e-3) -> GRU4Rec:
    torch.manual_seed(0)
    model = GRU4Rec(n_items, 3, 8, 12, 0.2, 0.2, tied, learning_rate)
    torch.nn.init.normal_(model.items.weight[1:])  # far from zero, so that states differ
    torch.nn.init.normal_(model.bias)
    return model.eval()


def test_states_do_not_see_later_items() -> None:
    model = _model()
    one, other = torch.tensor([[1, 4, 2, 6, 3]]), torch.tensor([[1, 4, 2, 5, 5]])
    first, second = model.states(one), model.states(other)
    assert first[:, :3].equal(second[:, :3])
    assert (first[:, 3:] - second[:, 3:]).abs().min(-1).values.max() > 1e-3


def test_state_of_a_prefix_is_the_state_at_that_step_of_the_whole() -> None:
    model = _model()
    sequence = torch.tensor([[1, 4, 2, 6, 3]])
    whole = model.states(sequence)
    for length in range(1, 6):
        prefix = model.states(sequence[:, :length])
        torch.testing.assert_close(prefix[:, -1], whole[:, length - 1], atol=1e-6, rtol=0)


def test_padding_does_not_move_the_state_that_is_read() -> None:
    model = _model()
    short, alone = queries_of([[3, 1, 2, 5, 4, 6, 1], [2, 5]]), queries_of([[2, 5]])
    torch.testing.assert_close(model.encode(short)[1:], model.encode(alone), atol=1e-6, rtol=0)


def test_unknown_user_gets_finite_scores() -> None:
    scores = _model().score(queries_of([[2, 5], []]))
    assert scores[:, 1:].isfinite().all()
    assert (scores[:, 0] == -torch.inf).all()


@pytest.mark.parametrize("tied", [True, False])
def test_scores_are_products_with_the_output_table_and_biases(tied: bool) -> None:
    model = _model(tied=tied)
    batch = queries_of([[3, 1, 4]])
    expected = model.states(batch.items)[:, -1] @ model.output.weight.T + model.bias
    torch.testing.assert_close(model.score(batch)[:, 1:], expected[:, 1:])
    assert (model.output is model.items) is tied


def test_loss_is_the_cross_entropy_at_each_real_target() -> None:
    data = SequenceDataModule(planted_cycles(), batch_size=16)
    model = _model(data.n_items, tied=False)
    batch = next(iter(data.train_dataloader()))
    terms = []
    for row, length in enumerate(batch.lengths.tolist()):
        states = model.states(batch.items[row : row + 1, :length])[0]
        logits = (states @ model.output.weight.T + model.bias)[:, 1:]
        terms.append(cross_entropy(logits, batch.targets[row, :length] - 1, reduction="none"))
    expected = float(torch.cat(terms).mean().detach())
    assert float(model.loss(batch)["total"].detach()) == pytest.approx(expected, rel=1e-5)


def test_planted_cycles_are_learned() -> None:
    data = SequenceDataModule(planted_cycles(), batch_size=64)
    torch.manual_seed(0)
    model = GRU4Rec(data.n_items, data.n_users, 16, 32, 0.0, 0.0, learning_rate=1e-2)
    optimizer = model.configure_optimizers()
    for _ in range(60):
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    model.eval()
    hits = [model.score(batch).argmax(1) == batch.target for batch in data.test_dataloader()]
    assert float(torch.cat(hits).float().mean()) > 0.95
