"""Flat lists of vectors and back, against loops."""

import torch
from torch import Tensor

from datamodules.types import SequenceBatch
from intentbench.nn.grouping import encode_last
from intentbench.nn.packing import encode_vectors, places
from intentbench.nn.transformer import SequenceEncoder


def batch(groups: tuple[tuple[int, int, int], ...], width: int = 3) -> SequenceBatch:
    items = torch.tensor([[3, 1, 4], [1, 5, 0], [2, 0, 0]])
    items = torch.cat([items, torch.zeros(3, width - 3, dtype=torch.int64)], 1)
    users, lengths = torch.arange(3), torch.tensor([3, 2, 1])
    none = torch.zeros(0, dtype=torch.int64)
    return SequenceBatch(users, items, lengths, items, none, none, none, lengths, groups)


def encoder() -> SequenceEncoder:
    torch.manual_seed(0)
    return SequenceEncoder(5, 8, "bert", width=4, blocks=2, heads=2, dropout=0.5).eval()


def pairs(found: tuple[Tensor, Tensor]) -> list[tuple[int, int]]:
    return list(zip(found[0].tolist(), found[1].tolist(), strict=True))


def test_places_are_those_of_a_loop_however_wide_the_batch() -> None:
    expected = [(row, column) for row, length in enumerate([3, 2, 1]) for column in range(length)]
    for width in (3, 7):
        assert pairs(places(batch(((0, 3, width),), width))) == expected


def test_embeddings_given_as_vectors_are_encoded_like_their_items() -> None:
    model, given = encoder(), batch(((0, 1, 3), (1, 3, 2)))
    vectors = model.items(given.items[places(given)])
    found = encode_vectors(given, vectors, model)
    torch.testing.assert_close(found, encode_last(given, model.last_state))
    wide = encode_vectors(batch(((0, 3, 7),), 7), vectors, model)
    torch.testing.assert_close(wide, found)
