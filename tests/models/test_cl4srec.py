"""CL4SRec: what its specification says must hold."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.models.base import GradientRecommender
from intentbench.models.cl4srec import CL4SRec
from intentbench.models.sasrec import SASRec
from intentbench.nn.info_nce import info_nce

V, WINDOW = 30, 12
LENGTHS = (14, 9, 7, 4, 3)
SEQUENCES = [[1 + (7 * u + 3 * step) % V for step in range(n)] for u, n in enumerate(LENGTHS)]
LAYOUTS = ("all", "prefix")


def _data(layout: Any = "prefix", **arguments: Any) -> SequenceDataModule:
    settings = {"window": WINDOW, "batch_size": 8} | arguments
    return SequenceDataModule(build_dataset("x", SEQUENCES, V), layout=layout, **settings)


def _model(**arguments: Any) -> CL4SRec:
    torch.manual_seed(0)
    settings = {"window": WINDOW, "width": 8, "dropout": 0.3} | arguments
    model = CL4SRec(V, len(SEQUENCES), **settings)
    model.prepare(_data().training())
    return model


def _batch(layout: Any = "prefix", **arguments: Any) -> SequenceBatch:
    return next(iter(_data(layout, **arguments).train_dataloader()))


def _trained(model: GradientRecommender, layout: str) -> list[float]:
    torch.manual_seed(1)
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(3):
        for batch in _data(layout).train_dataloader():
            total = model.loss(batch)["total"]
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(float(total.detach()))
    return values


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("loss", ["ce", "bce1"])
def test_without_the_contrast_it_is_sasrec_bit_for_bit(loss: Any, layout: Any) -> None:
    model = _model(contrast_weight=0.0, loss=loss, layout=layout)
    torch.manual_seed(0)
    base = SASRec(V, 5, WINDOW, loss, layout, "bert", width=8, heads=2, dropout=0.3)
    base.prepare(_data().training())
    values = _trained(base, layout)
    assert _trained(model, layout) == values
    found = model.state_dict()
    assert all(found[name].equal(weight) for name, weight in base.state_dict().items())
    assert _trained(_model(loss=loss, layout=layout), layout) != values


@torch.no_grad()
@pytest.mark.parametrize("pool", ["last", "flatten"])
def test_swapping_the_views_leaves_the_loss_unchanged(pool: str) -> None:
    model = _model(pool=pool, dropout=0.0)
    batch = _batch()
    torch.manual_seed(3)
    contrast = model.loss(batch)["contrast"]
    torch.manual_seed(3)
    first, second = model._pooled(model.views(batch))
    assert info_nce(first, second).equal(contrast)
    torch.testing.assert_close(info_nce(second, first), contrast)


def test_the_contrast_leaves_the_batch_alone() -> None:
    model, batch = _model(layout="all"), _batch("all")
    names = [field.name for field in fields(batch) if field.name != "groups"]
    copies = {name: getattr(batch, name).clone() for name in names}
    for _ in range(5):
        for view in model.views(batch):
            assert view.items.data_ptr() != batch.items.data_ptr()
        model.loss(batch)
    assert all(getattr(batch, name).equal(copy) for name, copy in copies.items())


@pytest.mark.parametrize("masking", ["token", "removal"])
def test_views_are_edits_of_the_stated_size(masking: str) -> None:
    """Each row of each view is explained by its kind: crop, mask or reorder."""
    model, batch = _model(masking=masking), _batch("all")
    for kind, name in enumerate(("crop", "mask", "reorder")):
        for _ in range(10):
            view = model._edited(batch, torch.full_like(batch.users, kind))
            for row in range(len(batch.users)):
                n = int(batch.lengths[row])
                old = batch.items[row, :n].tolist()
                new = view.items[row, : int(view.lengths[row])].tolist()
                assert not view.items[row, len(new) :].any()
                _check_edit(name, old, new, masking)


def _check_edit(name: str, old: list[int], new: list[int], masking: str) -> None:
    n = len(old)
    if name == "crop":
        kept = max(1, int(0.6 * n))
        assert new in [old[begin : begin + kept] for begin in range(n - kept + 1)]
    elif name == "reorder":
        moved = [place for place in range(n) if old[place] != new[place]]
        assert sorted(new) == sorted(old)
        assert not moved or moved[-1] - moved[0] < int(0.6 * n)
    elif masking == "token":
        assert new.count(V + 1) == int(0.3 * n)
        assert all(b in (a, V + 1) for a, b in zip(old, new, strict=True))
    else:
        rest = iter(old)
        assert len(new) == n - int(0.3 * n)
        assert all(item in rest for item in new)  # a subsequence


def test_kinds_differ_where_asked() -> None:
    """A cropped row is shorter, a masked one has the token: the kinds of long rows show."""
    batch = _batch("all")
    for different in (True, False):
        model = _model(different_kinds=different)
        pairs = set()
        for _ in range(60):
            first, second = model.views(batch)
            pairs |= {(_kind(first, row, batch), _kind(second, row, batch)) for row in range(2)}
        kinds = ("crop", "mask", "reorder")
        equal = {(kind, kind) for kind in kinds}
        every = {(a, b) for a in kinds for b in kinds}
        assert pairs == (every - equal if different else every)


def _kind(view: SequenceBatch, row: int, batch: SequenceBatch) -> str:
    if view.lengths[row] < batch.lengths[row]:
        return "crop"
    return "mask" if (view.items[row] > V).any() else "reorder"


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pool", ["last", "flatten"])
def test_trimming_changes_no_draw_and_no_loss(pool: str, layout: Any) -> None:
    model = _model(pool=pool, layout=layout, dropout=0.0)
    losses = []
    for pad in (False, True):
        torch.manual_seed(3)
        losses.append(model.loss(_batch(layout, pad_to_window=pad))["total"])
    torch.testing.assert_close(*losses, atol=1e-5, rtol=0)


@torch.no_grad()
def test_flattened_states_are_lined_up_at_the_last_item() -> None:
    model = _model(pool="flatten", layout="all").eval()
    batch = _batch("all")
    view, _ = views = model.views(batch)
    found = model._pooled(views)[0].reshape(len(view.users), -1, 8)
    assert found.shape[:2] == batch.items.shape
    for row, length in enumerate(view.lengths.tolist()):
        states = model.encoder.attend(model._vectors(view.items[row : row + 1, :length]))[0]
        torch.testing.assert_close(found[row, :length], states.flip(0), atol=1e-5, rtol=0)
        assert not found[row, length:].any()


def test_the_token_has_a_vector_that_is_trained_and_is_no_candidate() -> None:
    model = _model()
    batch = _batch()
    assert model.mask_vector is not None
    for _ in range(5):
        model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
    assert model.mask_vector.grad is not None
    assert model.mask_vector.grad.any()
    assert len(model.item_table()) == V + 1
    known = model._vectors(torch.tensor([[4, V + 1, 0]]))[0]
    expected = [model.item_table()[4], model.mask_vector, torch.zeros(8)]
    assert all(vector.equal(wanted) for vector, wanted in zip(known, expected, strict=True))
    assert _model(masking="removal").mask_vector is None


@torch.no_grad()
def test_a_row_of_one_item_and_equal_rows_give_finite_losses() -> None:
    alone = SequenceDataModule(build_dataset("x", [[5, 6, 7, 8]], V), layout="prefix", window=3)
    for pool in ("last", "flatten"):
        model = _model(pool=pool)
        terms: dict[str, Tensor] = model.loss(next(iter(alone.train_dataloader())))
        assert all(term.isfinite() for term in terms.values())
