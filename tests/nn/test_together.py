import pytest
import torch
from torch import Tensor

from intentbench.nn.together import encode_together
from intentbench.nn.transformer import SequenceEncoder


def rows(lengths: list[int], width: int) -> tuple[Tensor, Tensor]:
    kept = torch.tensor(lengths)
    items = torch.randint(1, 30, (len(lengths), width))
    return items * (torch.arange(width) < kept[:, None]), kept


@pytest.fixture
def encoder() -> SequenceEncoder:
    torch.manual_seed(0)
    return SequenceEncoder(30, 9, "bert", 8, 2, 2, 0.5).eval()


def test_each_row_gets_the_state_that_it_has_alone(encoder: SequenceEncoder) -> None:
    sets = [rows([9, 4, 1], 9), rows([2, 7], 7), rows([3], 5)]
    found = encode_together(sets, encoder.last_state)
    assert [len(part) for part in found] == [3, 2, 1]
    for (items, lengths), states in zip(sets, found, strict=True):
        for row, length in enumerate(lengths.tolist()):
            alone = encoder(items[row : row + 1, :length])[0, -1]
            torch.testing.assert_close(states[row], alone, rtol=1e-5, atol=1e-6)


def test_rows_that_stand_twice_have_two_dropouts(encoder: SequenceEncoder) -> None:
    same = rows([5, 5, 2], 5)
    first, second = encode_together([same, same], encoder.train().last_state)
    assert (first != second).any(1).all()


def test_gradients_are_those_of_separate_passes(encoder: SequenceEncoder) -> None:
    sets = [rows([6, 3], 6), rows([1, 5], 5)]
    joined = torch.cat(encode_together(sets, encoder.last_state)).sin().sum()
    (whole,) = torch.autograd.grad(joined, encoder.items.weight)
    apart = torch.cat([encoder.last_state(items, lengths) for items, lengths in sets]).sin().sum()
    (parts,) = torch.autograd.grad(apart, encoder.items.weight)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-6)
