"""DiffuRec: what its specification says must hold."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu

from datamodules.errors import RequestError
from datamodules.prepared import TEST, TRAIN, VALID, Meta, PreparedDataset
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, SequenceBatch
from intentbench.models.diffurec import DiffuRec
from intentbench.nn.bidirectional_diffusion import PreNormBlock
from tests.models.reference import queries_of

LENGTHS = (12, 9, 7, 5, 4)
N_ITEMS = 20
HISTORIES = [[3, 7, 9, 2], [5, 1], [8]]


def _data(lengths: Sequence[int] = LENGTHS, **arguments: Any) -> SequenceDataModule:
    """Users who walk round a cycle of all items from places of their own."""
    items = torch.cat([1 + (torch.arange(n) + 3 * u) % N_ITEMS for u, n in enumerate(lengths)])
    split = torch.cat([torch.tensor([TRAIN] * (n - 2) + [VALID, TEST]) for n in lengths])
    offsets = torch.tensor([0, *itertools.accumulate(lengths)])
    counts: dict[str, float] = {"users": len(lengths), "items": N_ITEMS}
    meta = Meta("cycle", "0" * 64, {}, "successive", counts, {})
    dataset = PreparedDataset(meta, items.int(), split.to(torch.uint8), offsets)
    return SequenceDataModule(dataset, **{"window": 8, "layout": "prefix", **arguments})


def _model(**arguments: Any) -> DiffuRec:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"window": 8, "steps": 4, "width": 16, "blocks": 2, "heads": 2}
    return DiffuRec(N_ITEMS, len(LENGTHS), **{**settings, **arguments})


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _seeded_loss(model: DiffuRec, batch: SequenceBatch) -> Tensor:
    torch.manual_seed(3)
    return model.loss(batch)["total"]


def _trainer(epochs: int) -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        num_sanity_val_steps=0,
    )  # fmt: skip


def _attended(block: PreNormBlock, states: Tensor) -> Tensor:
    """One block over the states (n, D) of one row, position by position."""
    width, heads = states.shape[1], block.heads
    size = width // heads
    context = block.attention_norm(states)
    query = block.query(context)
    key, value = block.key_value(context).split(width, 1)
    mixed = torch.zeros_like(states)
    for head, position in itertools.product(range(heads), range(len(states))):
        part = slice(head * size, (head + 1) * size)
        weights = (key[:, part] @ query[position, part] / math.sqrt(size)).softmax(0)
        mixed[position, part] = weights @ value[:, part]
    states = states + block.out(mixed)
    wide, narrow = block.feed_forward[0], block.feed_forward[3]
    wider = gelu(wide(block.forward_norm(states)), approximate="tanh")
    result: Tensor = states + narrow(wider)
    return result


def _rebuilt(
    model: DiffuRec, history: list[int], noisy: Tensor, step: int, spread: Tensor
) -> Tensor:
    """x̂_0 (D,) of one history, by the equations."""
    half = model.items.embedding_dim // 2
    angle = (step - 1) * 1000 / model.diffusion.steps
    angles = [angle * 10000 ** (-k / (half - 1)) for k in range(half)]
    waves = [*map(math.sin, angles), *map(math.cos, angles)]
    signal = noisy + model.step_mlp(torch.tensor(waves))
    omega = model.uncertainty + model.uncertainty * spread[: len(history)]
    states = model.first_norm(model.items.weight[history]) + omega * signal
    for block in model.blocks:
        assert isinstance(block, PreNormBlock)
        states = _attended(block, states)
    result: Tensor = model.last_norm(states[-1])
    return result


@torch.no_grad()
def _sampled(model: DiffuRec, history: list[int]) -> Tensor:
    """The reverse process of one user."""
    count, window = model.diffusion.steps, model.window
    generator = torch.Generator().manual_seed(model.sampling_seed)
    drawn = torch.randn(count, 1 + window, model.items.embedding_dim, generator=generator)
    alpha_bar = [1.0, *model.diffusion.alpha_bar.tolist()]
    state = drawn[0, 0]
    for step in range(count, 0, -1):
        clean = _rebuilt(model, history, state, step, drawn[step - 1, 1:])
        now, before = alpha_bar[step], alpha_bar[step - 1]
        beta = 1 - now / before
        state = (1 - before) * (now / before) ** 0.5 / (1 - now) * state
        state = state + beta * before**0.5 / (1 - now) * clean
        if step > 1:
            state = state + (beta * (1 - before) / (1 - now)) ** 0.5 * drawn[step - 1, 0]
    return model.items.weight @ state


@pytest.mark.parametrize("steps", [1, 4])
def test_scores_equal_the_reverse_process_written_out(steps: int) -> None:
    model = _model(steps=steps, uncertainty=0.3, sampling_seed=7).eval()
    scores = model.score(queries_of(HISTORIES))
    for row, history in enumerate(HISTORIES):
        torch.testing.assert_close(
            scores[row, 1:], _sampled(model, history)[1:], rtol=1e-4, atol=1e-4
        )


def test_loss_is_the_cross_entropy_of_the_rebuilt_target() -> None:
    model, batch = _model(uncertainty=0.3).eval(), _batch(_data())
    torch.manual_seed(3)
    steps = torch.randint(1, 5, batch.labels.shape)
    noise = torch.randn(len(steps), 16)
    spread = torch.randn(len(steps), 8, 16)
    logits = []
    for row, length in enumerate(batch.lengths.tolist()):
        kept = float(model.diffusion.alpha_bar[steps[row] - 1])
        noisy = kept**0.5 * model.items.weight[batch.labels[row]] + (1 - kept) ** 0.5 * noise[row]
        history = batch.items[row, :length].tolist()
        rebuilt = _rebuilt(model, history, noisy, int(steps[row]), spread[row])
        logits.append(model.items.weight[1:] @ rebuilt)
    expected = cross_entropy(torch.stack(logits), batch.labels - 1)
    torch.testing.assert_close(_seeded_loss(model, batch), expected)


def test_without_uncertainty_it_is_a_deterministic_encoder_with_cross_entropy() -> None:
    model, batch = _model(uncertainty=0.0).eval(), _batch(_data())
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.append(model.loss(batch)["total"])
    assert losses[0].equal(losses[1])
    queries = queries_of(HISTORIES)
    scores = model.score(queries)
    for seed, steps in ((1, 4), (0, 1)):
        other = _model(uncertainty=0.0, sampling_seed=seed, steps=steps).eval()
        torch.testing.assert_close(other.score(queries), scores)


def test_order_before_the_last_item_is_not_seen() -> None:
    model = _model(uncertainty=0.0).eval()
    scores = model.score(queries_of([[3, 7, 9, 2], [9, 3, 7, 2], [3, 7, 2, 9]]))
    torch.testing.assert_close(scores[0], scores[1])
    assert not torch.allclose(scores[0, 1:], scores[2, 1:], atol=1e-2), "the last item is"


def test_noise_comes_from_the_sampling_seed_and_leaves_the_global_generator_alone() -> None:
    model, other = (_model(uncertainty=0.3, sampling_seed=seed).eval() for seed in (0, 1))
    batch = queries_of(HISTORIES)
    state = torch.get_rng_state()
    scores = model.score(batch)
    assert scores.equal(model.score(batch))
    assert torch.get_rng_state().equal(state)
    assert not other.score(batch).equal(scores)
    alone = model.score(queries_of(HISTORIES[1:2]))
    torch.testing.assert_close(alone[0, 1:], scores[1, 1:], atol=1e-5, rtol=0)


def test_uncertainty_has_its_mean_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = _model(uncertainty=0.2, blocks=1).eval(), _batch(_data(pad_to_window=True))
    seen: list[Tensor] = []

    def watch(states: Tensor, lengths: Tensor, last_only: bool) -> Tensor:
        seen.append(states)
        return states[:, :1]

    monkeypatch.setattr(model.blocks[0], "forward", watch)
    history = model._histories(batch)
    ones = torch.ones(len(batch.users), 16)
    with torch.no_grad():  # a signal of ones shows ω itself
        model.step_mlp[2].weight.zero_()  # type: ignore[operator]
        model.step_mlp[2].bias.zero_()  # type: ignore[operator]
        spread = torch.randn(len(ones), 8, 16)
        model.approximate(batch, history, ones, torch.ones(len(ones), dtype=torch.long), spread)
    omega = torch.cat(seen) - torch.cat(history)
    assert float(omega.mean().detach()) == pytest.approx(0.2, rel=0.1)
    assert float(omega.std().detach()) == pytest.approx(0.2, rel=0.1)


def test_loss_does_not_depend_on_how_wide_the_batch_is() -> None:
    model = _model(uncertainty=0.3).eval()
    narrow, wide = (_batch(_data(pad_to_window=pad)) for pad in (False, True))
    torch.testing.assert_close(_seeded_loss(model, narrow), _seeded_loss(model, wide))


def test_layout_all_is_refused() -> None:
    with pytest.raises(RequestError, match="layout"):
        _trainer(1).fit(_model(), _data(layout="all"))


def test_learning_rate_falls_by_decay_every_so_many_epochs() -> None:
    model = _model(learning_rate=0.01, decay=0.5, decay_every=2)
    rates: list[float] = []
    trainer = _trainer(5)
    before = model.on_train_epoch_start

    def watch() -> None:
        before()
        rates.append(float(trainer.optimizers[0].param_groups[0]["lr"]))

    model.on_train_epoch_start = watch  # type: ignore[method-assign]
    trainer.fit(model, _data())
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025])


def test_a_cycle_is_learned_and_every_parameter_takes_a_gradient() -> None:
    data = _data(lengths=[12, 13] * 5, window=5)
    model = _model(learning_rate=1e-2, uncertainty=0.05)
    optimizer = model.configure_optimizers()
    torch.manual_seed(1)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(_batch(data))["total"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    batch = next(iter(data.test_dataloader()))
    assert (model.eval().score(batch).argmax(1) == batch.target).all()


def test_empty_histories_and_equal_targets_are_finite() -> None:
    scores = _model().eval().score(queries_of([[4, 5], [7], []]))
    assert scores[:, 1:].isfinite().all()
    assert (scores[:, PAD] == -torch.inf).all()
    batch = _batch(_data([4]))
    assert len(batch.users) == 1
    equal = replace(batch, items=torch.ones_like(batch.items), labels=torch.ones_like(batch.labels))
    assert _model().loss(equal)["total"].isfinite()


def test_odd_width_is_refused_in_words() -> None:
    with pytest.raises(RequestError, match="width 15"):
        _model(width=15, heads=1)
