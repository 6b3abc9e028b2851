"""CoSeRec: what its specification says must hold."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, SequenceBatch
from intentbench.contracts.data import build_dataset, planted_cycles
from intentbench.models.coserec import CoSeRec, closest, item_cf_iuf, most_similar
from intentbench.models.sasrec import SASRec
from intentbench.nn.views import EncodedRows, encode_view
from tests.models.reference import N_ITEMS, SEQUENCES, training_of

WINDOW = 10
SMALL: dict[str, Any] = {"window": WINDOW, "width": 16, "blocks": 1}


def _data() -> SequenceDataModule:
    return SequenceDataModule(planted_cycles(12, 3, 8), window=WINDOW, batch_size=8)


def _model(data: SequenceDataModule, **arguments: Any) -> CoSeRec:
    torch.manual_seed(0)
    model = CoSeRec(data.n_items, data.n_users, **{"dropout": 0.0, **SMALL, **arguments})
    model.prepare(data.training())
    with torch.no_grad():
        model.eval().on_epoch()
    return model.train()


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _similarity(sequences: list[list[int]], a: int, b: int) -> float:
    users = [set(sequence) for sequence in sequences]
    common = sum(1 / math.log(1 + len(user)) for user in users if {a, b} <= user)
    counts = [sum(item in user for user in users) for item in (a, b)]
    return common / math.sqrt(counts[0] * counts[1]) if common else 0.0


@settings(max_examples=60, derandomize=True, deadline=None)
@given(SEQUENCES)
def test_similarity_is_item_cf_iuf(sequences: list[list[int]]) -> None:
    found = item_cf_iuf(training_of(sequences)).toarray()
    assert found.shape == (N_ITEMS + 1, N_ITEMS + 1)
    for a, b in product(range(N_ITEMS + 1), repeat=2):
        expected = 0.0 if PAD in (a, b) or a == b else _similarity(sequences, a, b)
        assert found[a, b] == pytest.approx(expected)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(SEQUENCES)
def test_most_similar_is_another_item_or_none(sequences: list[list[int]]) -> None:
    similarity = item_cf_iuf(training_of(sequences))
    table = similarity.toarray()
    found, score = most_similar(similarity)
    values = sorted({table[a, b] for a, b in product(range(N_ITEMS + 1), repeat=2)} - {0.0})
    for item in range(N_ITEMS + 1):
        if table[item].any():
            assert found[item] != item
            assert table[item, found[item]] == table[item].max()
            span = values[-1] - values[0]
            scaled = (table[item].max() - values[0]) / span if span else 0.0
            assert float(score[item]) == pytest.approx(scaled, abs=1e-6)
        else:
            assert found[item] == item
            assert score[item] == 0


def test_closest_skips_the_vector_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    products = vectors.double() @ vectors.double().T
    for cells in (1, 100, 8_000_000):
        monkeypatch.setattr("intentbench.models.coserec.CHUNK_CELLS", cells)
        found, score = closest(vectors)
        for a in range(len(vectors)):
            best = max((b for b in range(len(vectors)) if b != a), key=lambda b: products[a, b])
            assert found[a] == best
            scaled = (products[a, best] - products.min()) / (products.max() - products.min())
            assert float(score[a]) == pytest.approx(float(scaled), abs=1e-5)


def test_the_larger_similarity_wins_after_the_warm_up() -> None:
    """By counts 1 and 2, 3 and 4 go together, and 5 with 1; by embeddings 2 with 5."""
    rows = [[1, 2], [1, 2], [3, 4], [3, 4, 5], [5, 1]]
    data = SequenceDataModule(build_dataset("pairs", [[*row, 6, 6] for row in rows], 6), window=5)
    model = _model(data, warm_up=1)
    assert model.similar.tolist() == model.frequent.tolist() == [0, 2, 1, 4, 3, 1, 6]
    assert model.frequent_score[[3, 4]].tolist() == [1, 1]  # the largest of all
    with torch.no_grad():
        model.encoder.items.weight.zero_()
        model.encoder.items.weight[[2, 5], 0] = 1.0  # the largest product is theirs
        model.encoder.items.weight[6] = 100.0  # held out from everybody
        model.warm_up = 0
        model.on_epoch()
    assert model.similar.tolist() == [0, 2, 5, 4, 3, 2, 6]


def test_during_the_warm_up_embeddings_do_not_matter() -> None:
    data = _data()
    early, late = _model(data, warm_up=1), _model(data, warm_up=0)
    assert early.similar.equal(early.frequent)
    assert not late.similar.equal(late.frequent)
    assert (late.similar[late.known] != late.known).all()


def _views_by_length(model: CoSeRec, batch: SequenceBatch) -> list[tuple[int, int, set[int]]]:
    """Of many views: a row's length before and after, and the items that it did not have."""
    model.encoder.forward = lambda items: items[:, :, None]  # type: ignore[method-assign]
    result = []
    for seed in range(60):
        torch.manual_seed(seed)
        view = model._view(batch)
        edited = view.right_aligned(view.width)[:, :, 0]
        for row, before in enumerate(batch.lengths.tolist()):
            items = edited[row][edited[row] != PAD].tolist()
            new = set(items) - set(batch.items[row].tolist())
            result.append((before, len(items), new))
    return result


def test_lengths_of_views_are_as_stated_and_items_are_of_the_training_part() -> None:
    rows = [[*range(1, 11)], [*range(5, 14)], [2, 4, 6, 8], [1, 3, 5], [7, 9], [3, 7, 11, 13]]
    lonely = [14, 15]  # 15 is held out from everybody
    dataset = build_dataset("rows", [[*row, 15, 15] for row in [*rows, lonely[:1]]], 15)
    data = SequenceDataModule(dataset, window=WINDOW, batch_size=8)
    for warm_up in (0, 1):
        model = _model(data, warm_up=warm_up)
        training = set(data.training().items.tolist())
        assert 15 not in training
        found: dict[int, set[int]] = {}
        changes: set[int] = set()  # of length, where a row got a new item
        for before, after, new in _views_by_length(model, _batch(data)):
            assert new <= training
            found.setdefault(before, set()).add(after)
            changes |= {after - before} if new else set()
        assert found.keys() == {1, 2, 3, 8, 9}
        for before, lengths in found.items():
            inserted = min(before + max(int(0.4 * before), 1), WINDOW)
            masked = before - int(0.7 * before)
            cropped = {max(int(0.2 * before), 1)} if before > 4 else set()
            assert lengths == {before, inserted, masked} | cropped
        assert changes == {0, 1, 2}  # substitution, and insertions of one item or more


def test_short_rows_are_not_reordered() -> None:
    rows = [[*range(1, 10)], [8, 3, 5, 1, 9, 2], [2, 4, 6, 8, 1], [9, 7, 5, 3], [7, 9, 1]]
    dataset = build_dataset("rows", [[*row, 11, 11] for row in rows], 11)
    data = SequenceDataModule(dataset, window=WINDOW, batch_size=8)
    model, batch = _model(data, warm_up=1, reorder=1.0, mask=0.5), _batch(data)
    model.similar = torch.full_like(model.similar, 10)  # so that what is left can be told
    model.encoder.forward = lambda items: items[:, :, None]  # type: ignore[method-assign]
    shuffled = dict.fromkeys(batch.lengths.tolist(), 0)
    for seed in range(60):
        torch.manual_seed(seed)
        view = model._view(batch)
        for row, after in zip(batch.items.tolist(), view.right_aligned(view.width), strict=True):
            left = [row.index(item) for item in after[:, 0].tolist() if item not in (PAD, 10)]
            shuffled[sum(item != PAD for item in row)] += left != sorted(left)
    assert {length: count > 0 for length, count in shuffled.items()} == {
        length: length > 4 for length in (8, 5, 4, 3, 2)
    }


def test_groups_are_as_wide_as_an_insertion_can_make_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = SequenceDataModule(
        build_dataset("rows", [[*range(1, n + 4)] for n in (100, 90, 33, 10, 3)], 103), window=200
    )
    seen: list[tuple[Tensor, Any]] = []

    def encode(view: Any, groups: Any, encoder: Any) -> EncodedRows:
        seen.append((view[1], groups))
        return encode_view(view, groups, encoder)

    monkeypatch.setattr("intentbench.models.coserec.encode_view", encode)
    # 0.57 * 100 is 56.99… in float64 and 57 in float32
    for share in (0.57, 0.05, 1.0):
        model, batch = _model(data, window=200, insert=share, short_length=0), _batch(data)
        for seed in range(20):
            torch.manual_seed(seed)
            model._view(batch)
    assert max(int(lengths.max()) for lengths, _ in seen[:20]) == 157
    for lengths, groups in seen:
        for start, stop, width in groups:
            assert int(lengths[start:stop].max()) <= width <= 200


def test_short_rows_are_not_cropped() -> None:
    data = _data()
    batch = _batch(data)
    short = _model(data, short_length=WINDOW, mask=0.01, substitute=0.01, insert=0.01)
    lengths = {after - before for before, after, _ in _views_by_length(short, batch)}
    assert lengths <= {0, 1}
    free = _model(data, short_length=0, mask=0.01, substitute=0.01, insert=0.01)
    assert min(after - before for before, after, _ in _views_by_length(free, batch)) < 0


def test_without_weight_it_is_sasrec_bit_for_bit() -> None:
    data = _data()
    torch.manual_seed(0)
    base = SASRec(data.n_items, data.n_users, loss="bce1", encoder="bert", heads=2, **SMALL)
    base.prepare(data.training())
    model = _model(data, instance_weight=0.0, dropout=0.5)
    losses: list[list[Tensor]] = []
    for method in (base, model):
        optimizer = method.configure_optimizers()
        torch.manual_seed(2)
        values = []
        for batch in list(data.train_dataloader()) * 3:
            optimizer.zero_grad()
            total = method.loss(batch)["total"]
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(total.detach())
        losses.append(values)
    assert all(a.equal(b) for a, b in zip(*losses, strict=True))
    parameters = dict(model.named_parameters())
    assert all(value.equal(parameters[name]) for name, value in base.named_parameters())


@torch.no_grad()
def test_total_is_the_weighted_sum() -> None:
    data = _data()
    model = _model(data, instance_weight=0.3)
    terms = model.loss(_batch(data))
    torch.testing.assert_close(terms["total"], terms["next"] + 0.3 * terms["instance"])
