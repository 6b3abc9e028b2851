"""Views and pooled states, against loops; neither may depend on how far a batch was trimmed."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from datamodules.augment import crop, mask, reorder
from datamodules.loader import Gatherer
from datamodules.rows import Groups, training_rows
from datamodules.types import PAD, SequenceBatch, TrainingData
from intentbench.nn.info_nce import info_nce
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.transformer import SequenceEncoder
from intentbench.nn.views import (
    EncodedRows,
    UserWindows,
    bce_with_one_negative,
    crop_mask_reorder,
    encode_rows,
    encode_view,
    instance_contrast,
    intent_contrast,
    random_view,
)

V, WINDOW, WIDTH = 20, 8, 4
ROWS = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5], [3, 1, 4], [11, 12], [20]]
EDITS = crop_mask_reorder(0.5, 0.5, 0.9)


def padded(rows: Sequence[Sequence[int]], width: int = 0) -> tuple[Tensor, Tensor]:
    width = max(width, *(len(row) for row in rows))
    filled = [[*row, *[PAD] * (width - len(row))] for row in rows]
    return torch.tensor(filled), torch.tensor([len(row) for row in rows])


def encoder() -> SequenceEncoder:
    torch.manual_seed(0)
    return SequenceEncoder(V, WINDOW, "bert", WIDTH, 1, 2, 0.5).eval()


def encoded(width: int = 0) -> EncodedRows:
    items, lengths = padded(ROWS, width)
    groups: Groups = ((0, 2, items.shape[1]), (2, 5, max(3, width)))
    return encode_rows(items, lengths, groups, encoder())


def states_of(row: Sequence[int]) -> Tensor:
    """The states of one row alone, without padding."""
    with torch.no_grad():
        states: Tensor = encoder()(torch.tensor([row]))[0]
    return states


def training(rows: Sequence[Sequence[int]]) -> TrainingData:
    lengths = torch.tensor([len(row) for row in rows])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return TrainingData(torch.tensor([item for row in rows for item in row]), offsets, V)


def batch_of(data: TrainingData, window: int = WINDOW, pad: bool = False) -> SequenceBatch:
    offsets = data.offsets.numpy()
    rows = training_rows(offsets[:-1], data.offsets.diff().numpy(), "all", window, "last")
    gatherer = Gatherer(data.items, offsets, window, pad, False, False)
    return gatherer.training(rows, torch.arange(len(rows)).numpy())


def test_means_are_those_of_each_row_alone() -> None:
    expected = torch.stack([states_of(row).mean(0) for row in ROWS])
    for width in (0, WINDOW):
        torch.testing.assert_close(encoded(width).means(), expected)


def test_running_means_are_the_means_of_the_prefixes() -> None:
    found = encoded().running_means().parts[0][1]  # of the second row, eight columns wide
    for length in range(1, len(ROWS[1]) + 1):
        torch.testing.assert_close(found[length - 1], states_of(ROWS[1][:length]).mean(0))


def test_rows_are_aligned_to_their_last_item_and_zero_before() -> None:
    for width in (8, 11):
        found = encoded().right_aligned(width)
        assert found.shape == (len(ROWS), width, WIDTH)
        for got, row in zip(found, ROWS, strict=True):
            torch.testing.assert_close(got[width - len(row) :], states_of(row))
            assert not got[: width - len(row)].any()


def test_rows_are_aligned_to_their_first_item_and_zero_after() -> None:
    for width, padding in ((8, 0), (11, 0), (8, WINDOW)):
        found = encoded(padding).left_aligned(width)
        assert found.shape == (len(ROWS), width, WIDTH)
        for got, row in zip(found, ROWS, strict=True):
            torch.testing.assert_close(got[: len(row)], states_of(row))
            assert not got[len(row) :].any()


def test_alignment_does_not_change_dot_products() -> None:
    """What is beyond a row is zero: wider tables give the same similarities."""
    for align in (EncodedRows.right_aligned, EncodedRows.left_aligned):
        narrow, wide = (align(encoded(width), 8).flatten(1) for width in (0, WINDOW))
        torch.testing.assert_close(narrow @ narrow.T, wide @ wide.T)


def test_flat_states_are_indexed_by_the_batch() -> None:
    batch = batch_of(training([row for row in ROWS if len(row) > 1]))
    rows = encode_rows(batch.items, batch.lengths, batch.groups, encoder())
    expected = [states_of(row[:-1]) for row in ROWS if len(row) > 1]
    torch.testing.assert_close(rows.flat()[batch.select], torch.cat(expected))


def test_map_changes_states_and_nothing_else() -> None:
    rows = encoded()
    torch.testing.assert_close(rows.map(lambda part: 2 * part).means(), 2 * rows.means())


def test_encoding_a_view_in_new_groups_keeps_the_order_of_its_rows() -> None:
    backwards = ROWS[::-1]  # the shortest first, as after an edit
    view = padded(backwards)
    found = encode_view(view, ((0, len(ROWS), 8),), encoder())
    expected = torch.stack([states_of(row).mean(0) for row in backwards])
    torch.testing.assert_close(found.means(), expected)
    for got, row in zip(found.right_aligned(found.width), backwards, strict=True):
        torch.testing.assert_close(got[found.width - len(row) :], states_of(row))
    for got, row in zip(found.left_aligned(found.width), backwards, strict=True):
        torch.testing.assert_close(got[: len(row)], states_of(row))


def test_a_view_is_one_of_the_edits_row_by_row() -> None:
    items, lengths = padded(ROWS)
    torch.manual_seed(1)
    edited, kept = random_view(items, lengths, EDITS, WINDOW)
    torch.manual_seed(1)
    noise = torch.rand(len(items), WINDOW + 2)
    results = [
        crop(items, lengths, 0.5, noise[:, 1]),
        mask(items, lengths, 0.5, noise[:, 1:]),
        reorder(items, lengths, 0.9, noise[:, 1:]),
    ]
    for row, draw in enumerate(noise[:, 0].tolist()):
        expected, length = results[int(draw * 3)]
        assert edited[row].equal(expected[row])
        assert kept[row] == length[row]


def test_masked_items_vanish_or_become_the_token() -> None:
    items, lengths = padded(ROWS)
    noise = torch.rand(len(items), WINDOW + 1, generator=torch.Generator().manual_seed(0))
    for token in (None, V + 1):
        edit = crop_mask_reorder(0.5, 0.5, 0.9, token)[1]
        found, expected = edit(items, lengths, noise=noise), mask(items, lengths, 0.5, noise, token)
        assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
        assert bool((found[0] == V + 1).any()) == (token is not None)


def test_views_do_not_depend_on_how_far_the_batch_was_trimmed() -> None:
    views = []
    for width in (0, WINDOW):
        torch.manual_seed(2)
        items, lengths = padded(ROWS[1:], width)
        views.append(random_view(items, lengths, EDITS, WINDOW))
    (narrow, short), (wide, long) = views
    assert narrow.equal(wide[:, : narrow.shape[1]])
    assert short.equal(long)
    assert not wide[:, narrow.shape[1] :].any()


def test_views_leave_the_input_alone_and_stay_in_range() -> None:
    items, lengths = padded(ROWS)
    copy = items.clone()
    for seed in range(20):
        torch.manual_seed(seed)
        edited, kept = random_view(items, lengths, EDITS, WINDOW)
        real = torch.arange(edited.shape[1]) < kept[:, None]
        assert ((edited != PAD) == real).all()
        assert (kept >= 1).all()
        for row, source in zip(edited, items, strict=True):
            assert set(row[row != PAD].tolist()) <= set(source.tolist())
    assert items.equal(copy)


def test_every_edit_is_drawn_about_as_often() -> None:
    items = torch.arange(1, 5).expand(6000, 4)
    lengths = torch.full((6000,), 4)
    marked = [
        lambda items, lengths, noise, mark=mark: (torch.full_like(items, mark), lengths)
        for mark in range(3)
    ]
    torch.manual_seed(0)
    edited, _ = random_view(items, lengths, marked, WINDOW)
    counts = torch.bincount(edited[:, 0], minlength=3)
    assert (counts - 2000).abs().max() < 200
    allowed = torch.tensor([[True, False, True]]).expand(6000, 3)
    edited, _ = random_view(items, lengths, marked, WINDOW, allowed)
    counts = torch.bincount(edited[:, 0], minlength=3)
    assert counts[1] == 0
    assert (counts[[0, 2]] - 3000).abs().max() < 250


def test_wider_results_of_one_edit_keep_those_of_another() -> None:
    items, lengths = padded([[1, 2, 3], [4, 5, 6]])

    def doubled(items: Tensor, lengths: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([items, items], 1), 2 * lengths

    def same(items: Tensor, lengths: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return items, lengths

    allowed = torch.tensor([[True, False], [False, True]])
    edited, kept = random_view(items, lengths, [doubled, same], WINDOW, allowed)
    assert edited.tolist() == [[1, 2, 3, 1, 2, 3], [4, 5, 6, 0, 0, 0]]
    assert kept.tolist() == [6, 3]


@torch.no_grad()
def test_contrasts_are_those_of_the_flattened_and_mean_states() -> None:
    first, second = encoded(), encode_view(padded([row[:2] for row in ROWS]), (), encoder())
    flat, other = (view.right_aligned(8).flatten(1) for view in (first, second))
    found = instance_contrast(first, second, 0.5)
    torch.testing.assert_close(found, info_nce(flat, other, 0.5))
    torch.testing.assert_close(found, instance_contrast(second, first, 0.5))
    prototypes = torch.randn(len(ROWS), WIDTH)
    groups = torch.tensor([0, 1, 0, 2, 1])
    halves = [info_nce(view.means(), prototypes, 0.5, groups) / 2 for view in (first, second)]
    found = intent_contrast(first, second, prototypes, 0.5, groups)
    torch.testing.assert_close(found, halves[0] + halves[1])


def test_main_loss_is_that_of_a_loop() -> None:
    data = training([[1, 2, 3, 4], [5, 6, 7]])
    batch, sampler = batch_of(data), UniformNegatives(data)
    states = torch.randn(len(batch.labels), WIDTH)
    table = torch.randn(V + 1, WIDTH)
    torch.manual_seed(3)
    found = bce_with_one_negative(states, table, batch, sampler)
    torch.manual_seed(3)
    negatives = sampler.sample(batch.users[batch.rows], 1)[:, 0]
    terms = []
    for state, positive, negative in zip(
        states.double(), batch.labels.tolist(), negatives.tolist(), strict=True
    ):
        up, down = (state @ table[item].double() for item in (positive, negative))
        terms.append(-torch.sigmoid(up).log() - (1 - torch.sigmoid(down)).log())
    assert float(found) == pytest.approx(float(torch.stack(terms).mean()), abs=1e-6)
    with pytest.raises(RuntimeError, match="prepare"):
        bce_with_one_negative(states, table, batch, None)


def test_windows_of_users_are_their_last_inputs_with_a_target() -> None:
    rows = [[1, 2, 3, 4, 5, 6], [7], [8, 9], [], [10, 11, 12, 13]]
    windows = UserWindows(training(rows), 3)
    assert len(windows) == 3
    found = windows.means(encoder())
    expected = [states_of(row).mean(0) for row in ([3, 4, 5], [10, 11, 12], [8])]
    torch.testing.assert_close(found, torch.stack(expected))
    assert not windows.state_dict()


def test_many_users_are_encoded_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = UserWindows(training([row for row in ROWS if len(row) > 1]), WINDOW)
    whole = windows.means(encoder())
    monkeypatch.setattr("intentbench.nn.views.PASS_ROWS", 2)
    torch.testing.assert_close(windows.means(encoder()), whole)
