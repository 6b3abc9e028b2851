"""Random edits, against slow references; what every edit must hold."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.augment import Edited, crop, insert, mask, reorder, substitute
from datamodules.types import PAD

V, WINDOW = 30, 12
SIMILAR = torch.tensor([PAD, *[item % V + 1 for item in range(1, V + 1)]])
Edit = Callable[[Tensor, Tensor, float, Tensor], Edited]
EDITS: dict[str, Edit] = {
    "crop": lambda items, lengths, ratio, noise: crop(items, lengths, ratio, noise[:, 0]),
    "mask": mask,
    "mask_token": lambda items, lengths, ratio, noise: mask(items, lengths, ratio, noise, V),
    "reorder": reorder,
    "substitute": lambda items, lengths, ratio, noise: substitute(
        items, lengths, ratio, noise, SIMILAR
    ),
    "insert": lambda items, lengths, ratio, noise: insert(
        items, lengths, ratio, noise, SIMILAR, WINDOW
    ),
}
sequences = st.lists(
    st.lists(st.integers(1, V), min_size=0, max_size=WINDOW), min_size=1, max_size=6
)


def padded(rows: list[list[int]], extra: int = 0) -> tuple[Tensor, Tensor]:
    width = max(1, *(len(row) for row in rows)) + extra
    filled = [row + [PAD] * (width - len(row)) for row in rows]
    return torch.tensor(filled), torch.tensor([len(row) for row in rows])


def listed(edited: Edited) -> list[list[int]]:
    items, lengths = edited
    return [row[:n] for row, n in zip(items.tolist(), lengths.tolist(), strict=True)]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(sequences, st.sampled_from(sorted(EDITS)), st.floats(0.05, 0.95), st.integers(0, 9))
def test_edits_keep_ids_in_range_and_the_input_untouched(
    rows: list[list[int]], name: str, ratio: float, seed: int
) -> None:
    items, lengths = padded(rows)
    copies = items.clone(), lengths.clone()
    noise = torch.rand(len(rows), WINDOW + 1, generator=torch.Generator().manual_seed(seed))
    edited, shorter = EDITS[name](items, lengths, ratio, noise)
    again = EDITS[name](items, lengths, ratio, noise)
    assert edited.equal(again[0])
    assert shorter.equal(again[1])
    assert items.equal(copies[0])
    assert lengths.equal(copies[1])
    real = torch.arange(edited.shape[1]) < shorter[:, None]
    assert ((edited != PAD) == real).all()
    assert (edited <= V).all()
    assert ((shorter > 0) == (lengths > 0)).all()
    assert edited.shape[1] <= WINDOW
    assert shorter.dtype == lengths.dtype


@pytest.mark.parametrize("name", EDITS)
def test_padding_changes_no_edit(name: str) -> None:
    rows = [[5, 3, 9, 1, 7, 2], [4], [8, 6, 2]]
    noise = torch.rand(3, WINDOW + 1, generator=torch.Generator().manual_seed(2))
    narrow = listed(EDITS[name](*padded(rows), 0.5, noise))
    assert narrow == listed(EDITS[name](*padded(rows, extra=4), 0.5, noise))


def test_crop_keeps_items_in_a_row() -> None:
    row = [5, 3, 9, 1, 7, 2, 8]
    found = [listed(crop(*padded([row]), 0.45, torch.tensor([x])))[0] for x in (0.0, 0.5, 0.99)]
    assert found == [row[:3], row[2:5], row[4:]]


def test_mask_removes_items_and_closes_the_gap() -> None:
    noise = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.7]])
    assert listed(mask(*padded([[5, 3, 9, 1, 7]]), 0.4, noise)) == [[5, 9, 7]]
    assert listed(mask(*padded([[5, 3, 9, 1, 7]]), 0.4, noise, 30)) == [[5, 30, 9, 30, 7]]


def test_reorder_shuffles_a_part_and_nothing_else() -> None:
    row = [*range(1, 11)]
    seen = set()
    for seed in range(200):
        noise = torch.rand(1, WINDOW, generator=torch.Generator().manual_seed(seed))
        found = listed(reorder(*padded([row]), 0.4, noise))[0]
        assert sorted(found) == row
        changed = [place for place in range(10) if found[place] != row[place]]
        assert not changed or changed[-1] - changed[0] < 4
        seen.add(tuple(found))
    assert len(seen) > 50


def test_substitute_puts_the_similar_item_in_place() -> None:
    noise = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.7]])
    assert listed(substitute(*padded([[5, 3, 9, 1, 7]]), 0.4, noise, SIMILAR)) == [[5, 4, 9, 2, 7]]


def test_insert_puts_the_similar_item_before() -> None:
    noise = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.7], [0.5, 0.6, 0.7, 0.8, 0.9]])
    found = listed(insert(*padded([[5, 3, 9, 1, 7], [2]]), 0.4, noise, SIMILAR, WINDOW))
    assert found == [[5, 4, 3, 9, 2, 1, 7], [3, 2]]


def test_insert_drops_the_oldest_beyond_the_window() -> None:
    noise = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.7]])
    found = listed(insert(*padded([[5, 3, 9, 1, 7]]), 0.4, noise, SIMILAR, 5))
    assert found == [[3, 9, 2, 1, 7]]
