"""CaDiRec: what its specification says must hold, against references written out in loops."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, layer_norm

from datamodules.errors import RequestError
from datamodules.prepared import TEST, TRAIN, VALID, Meta, PreparedDataset
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, SequenceBatch
from intentbench.models.base import GradientRecommender
from intentbench.models.cadirec import CaDiRec, mean_over_rows
from intentbench.models.sasrec import SASRec
from intentbench.nn.bidirectional_diffusion import DisentangledBlock, DisentangledEncoder
from tests.models.reference import queries_of

LENGTHS = (14, 9, 9, 7, 5, 4, 3)
N_ITEMS = 30
SMALL = {"width": 16, "blocks": 1, "heads": 2, "denoiser_blocks": 1, "steps": 20}


def _data(lengths: Sequence[int] = LENGTHS, **arguments: Any) -> SequenceDataModule:
    """Users who walk round a cycle of all items from places of their own."""
    items = torch.cat([1 + (torch.arange(n) + 5 * u) % N_ITEMS for u, n in enumerate(lengths)])
    split = torch.cat([torch.tensor([TRAIN] * (n - 2) + [VALID, TEST]) for n in lengths])
    offsets = torch.tensor([0, *itertools.accumulate(lengths)])
    counts: dict[str, float] = {"users": len(lengths), "items": N_ITEMS}
    meta = Meta("cycle", "0" * 64, {}, "successive", counts, {})
    dataset = PreparedDataset(meta, items.int(), split.to(torch.uint8), offsets)
    return SequenceDataModule(dataset, **{"window": 10, **arguments})


def _model(data: SequenceDataModule, **arguments: Any) -> CaDiRec:
    torch.manual_seed(0)
    model = CaDiRec(data.n_items, data.n_users, window=10, **{**SMALL, **arguments})
    model.prepare(data.training())
    return model


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _cells(batch: SequenceBatch) -> Tensor:
    return torch.cat([batch.items[i:j, :width].flatten() for i, j, width in batch.groups])


def _train(model: GradientRecommender, data: SequenceDataModule, steps: int) -> list[float]:
    torch.manual_seed(1)
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(steps):
        total = model.loss(_batch(data))["total"]
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(total.detach()))
    return values


def test_without_both_terms_it_is_the_base_bit_for_bit() -> None:
    data = _data()
    model = _model(data, alpha=0.0, beta=0.0, dropout=0.3)
    torch.manual_seed(0)
    base = SASRec(
        data.n_items, data.n_users, window=10, encoder="bert", width=16, blocks=1, heads=2,
        dropout=0.3,
    )  # fmt: skip
    base.prepare(data.training())
    assert _train(model, data, 8) == _train(base, data, 8)
    for name, weight in base.encoder.state_dict().items():
        assert weight.equal(model.encoder.state_dict()[name]), name
    batch = next(iter(data.test_dataloader()))
    assert model.eval().score(batch).equal(base.eval().score(batch))


def test_total_is_the_weighted_sum_and_each_term_stands_alone() -> None:
    data = _data()
    batch = _batch(data)
    for alpha, beta in ((0.5, 0.0), (0.0, 0.7), (0.5, 0.7)):
        model = _model(data, alpha=alpha, beta=beta)
        terms = model.loss(batch)
        assert ("contrast" in terms) == (alpha > 0)
        assert ("diffusion" in terms) == (beta > 0)
        expected = terms["recommendation"]
        for weight, name in ((beta, "diffusion"), (alpha, "contrast")):
            expected = expected + weight * terms.get(name, torch.zeros(()))
        torch.testing.assert_close(terms["total"], expected)
        terms["total"].backward()  # type: ignore[no-untyped-call]
        taught = [weight.grad is not None for weight in model.denoiser.parameters()]
        assert all(taught) if beta else not any(taught)


def test_views_leave_unmasked_items_and_padding_alone() -> None:
    data = _data(pad_to_window=True)
    model, batch = _model(data, mask_ratio=0.4), _batch(data)
    before = batch.items.clone()
    items = _cells(batch)
    masked = model._masked(batch)
    places = batch.select[masked]
    assert len(places) == round(0.4 * len(batch.select)) == len(set(places.tolist()))
    logits = model._denoise(batch, items, masked)
    assert (logits[:, PAD] == -torch.inf).all()
    best = logits.topk(10, dim=1).indices
    found = torch.stack([model._views(items, places, logits) for _ in range(50)])
    untouched = torch.ones(len(items), dtype=torch.bool)
    untouched[places] = False
    assert (items == PAD).any()
    assert (items[places] != PAD).all()
    assert (found[:, untouched] == items[untouched, None]).all()
    drawn = found[:, places]  # (50, M, 2)
    assert (drawn != PAD).all()
    assert (drawn[..., None] == best[:, None]).any(-1).all()
    assert (drawn[..., 0] != drawn[..., 1]).any(), "the two views are drawn apart"
    assert batch.items.equal(before), "the input is untouched"


def test_views_are_encoded_from_a_frozen_table() -> None:
    data = _data()
    model, batch = _model(data, dropout=0.0), _batch(data)
    items = _cells(batch)
    first, second = model._view_states(batch, torch.stack([items, items], 1))
    assert first.equal(second)
    torch.testing.assert_close(first, model.encode(batch))
    (first * torch.randn_like(first)).sum().backward()  # type: ignore[no-untyped-call]
    assert model.encoder.items.weight.grad is None
    assert model.encoder.positions.weight.grad is not None


def test_diffusion_term_is_the_mean_of_the_rows_means() -> None:
    values, rows = torch.rand(6), torch.tensor([0, 0, 3, 1, 1, 1])
    by_row: dict[int, list[float]] = {}
    for value, row in zip(values.tolist(), rows.tolist(), strict=True):
        by_row.setdefault(row, []).append(value)
    expected = sum(sum(found) / len(found) for found in by_row.values()) / 5
    assert float(mean_over_rows(values, rows, 5)) == pytest.approx(expected)


def test_only_masked_positions_are_noised(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    model, batch = _model(data, schedule="linear", steps=1000), _batch(data)
    seen: list[Tensor] = []

    def watch(vectors: Tensor) -> Tensor:
        seen.append(vectors.detach())
        return vectors

    monkeypatch.setattr(model.noisy_input, "forward", watch)
    for layer in (model.step_mlp[0], model.step_mlp[2]):
        assert isinstance(layer, torch.nn.Linear)
        torch.nn.init.zeros_(layer.weight)
    monkeypatch.setattr(torch, "randint", lambda *a, **k: torch.full(a[2], 1000))  # all at t = T
    masked = model._masked(batch)
    model._denoise(batch, _cells(batch), masked)
    away = (
        torch.cat([part.flatten(0, 1) for part in seen])
        - model.encoder.items(_cells(batch)).detach()
    )
    moved = away.square().mean(1).sqrt()
    real = torch.zeros(len(moved), dtype=torch.bool)
    real[batch.select] = True
    hidden = torch.zeros_like(real)
    hidden[batch.select[masked]] = True
    assert (moved[~real] == 0).all()
    spread = math.sqrt(1 - float(model.diffusion.alpha_bar[0]))  # of x_0 round the embedding
    assert moved[real & ~hidden].mean() == pytest.approx(spread, rel=0.2)
    assert moved[hidden].min() > 10 * moved[real & ~hidden].max()


def test_disentangled_block_equals_its_sums_in_loops() -> None:
    torch.manual_seed(0)
    width, heads, length, real = 8, 2, 5, 3
    size = width // heads
    block = DisentangledBlock(width, heads, 0.3).double().eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    states = torch.randn(1, length, width, dtype=torch.float64)
    positions = torch.randn(2 * length - 1, width, dtype=torch.float64)
    found = block(states, positions, torch.arange(length)[None] < real)[0]
    query, key, value = (layer(states[0]) for layer in (block.query, block.key, block.value))
    far_key, far_query = block.position_key(positions), block.position_query(positions)
    mixed = torch.zeros(length, width, dtype=torch.float64)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(length):
            scores = torch.stack([
                query[i, part] @ key[j, part]
                + query[i, part] @ far_key[i - j + length - 1, part]
                + key[j, part] @ far_query[i - j + length - 1, part]
                for j in range(real)
            ])  # fmt: skip
            weights = (scores / math.sqrt(3 * size)).softmax(0)
            mixed[i, part] = sum(weights[j] * value[j, part] for j in range(real))
    norm, last = block.attention_norm, block.forward_norm
    shape = (width,)
    hidden = layer_norm(states[0] + block.out(mixed), shape, norm.weight, norm.bias, norm.eps)
    wide, narrow = block.feed_forward[0], block.feed_forward[2]
    hidden = hidden + narrow(gelu(wide(hidden)))
    torch.testing.assert_close(found, layer_norm(hidden, shape, last.weight, last.bias, last.eps))


def test_denoiser_reads_relative_positions_and_no_padding() -> None:
    torch.manual_seed(0)
    encoder = DisentangledEncoder(10, 8, 2, 2, 0.1).eval()
    vectors, lengths = torch.randn(2, 6, 8), torch.tensor([6, 4])
    states = encoder(vectors, lengths)
    wide = torch.cat([vectors, torch.randn(2, 4, 8)], 1)
    torch.testing.assert_close(encoder(wide, lengths)[:, :6], states)
    torch.testing.assert_close(encoder(vectors[1:, :4], lengths[1:])[0], states[1, :4])
    flipped = encoder(vectors[:1].flip(1), lengths[:1]).flip(1)
    assert not torch.allclose(flipped, states[:1], atol=1e-3), "order counts"
    other = vectors.clone()
    other[0, 5] += 1
    assert not torch.allclose(encoder(other, lengths)[0, 0], states[0, 0]), "both sides are seen"


def test_diffusion_term_is_the_cross_entropy_over_real_items() -> None:
    data = _data()
    model, batch = _model(data, alpha=0.0).eval(), _batch(data)
    torch.manual_seed(3)
    term = float(model.loss(batch)["diffusion"].detach())
    torch.manual_seed(3)
    model._recommendation(batch)
    masked = model._masked(batch)
    logits = model._denoise(batch, _cells(batch), masked)[:, 1:]
    labels = _cells(batch)[batch.select[masked]] - 1
    each = cross_entropy(logits, labels, reduction="none")
    rows = batch.rows[masked].tolist()
    expected = sum(float(v) / rows.count(r) for v, r in zip(each.detach(), rows, strict=True))
    assert term == pytest.approx(expected / len(batch.users), rel=1e-5)


def test_loss_does_not_depend_on_how_wide_the_batch_is() -> None:
    totals = []
    for pad in (False, True):
        data = _data(pad_to_window=pad)
        model, batch = _model(data).eval(), _batch(data)
        torch.manual_seed(5)
        totals.append({name: float(term.detach()) for name, term in model.loss(batch).items()})
    assert totals[0] == pytest.approx(totals[1], abs=1e-5)


def test_states_that_rank_are_causal() -> None:
    model = _model(_data()).eval()
    items = torch.randint(1, N_ITEMS + 1, (3, 8))
    other = items.clone()
    other[:, 5:] = items[:, 5:] % N_ITEMS + 1
    torch.testing.assert_close(model.encoder(items)[:, :5], model.encoder(other)[:, :5])


def test_terms_fall_and_every_parameter_takes_a_gradient() -> None:
    data = _data()
    model = _model(data, dropout=0.0, learning_rate=1e-2, mask_ratio=0.3)
    values = _train(model, data, 60)
    assert sum(values[-5:]) < 0.7 * sum(values[:5])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_short_rows_and_equal_targets_are_finite() -> None:
    data = _data([4, 4])
    model, batch = _model(data), _batch(data)
    assert batch.items.shape[1] == 1
    equal = replace(batch, items=torch.ones_like(batch.items))
    assert all(term.isfinite() for term in model.loss(equal).values())
    scores = model.eval().score(queries_of([[4, 5], [7], []]))
    assert scores[:, 1:].isfinite().all()
    assert (scores[:, PAD] == -torch.inf).all()


def test_a_catalogue_smaller_than_the_candidates_is_fine() -> None:
    assert CaDiRec(4, 2, **SMALL).candidates == 4  # type: ignore[arg-type]


def test_odd_width_is_refused_in_words() -> None:
    with pytest.raises(RequestError, match="width 15"):
        CaDiRec(4, 2, width=15, heads=1)
