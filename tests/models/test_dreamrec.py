"""DreamRec: what its specification says must hold."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from datamodules.errors import RequestError
from datamodules.prepared import TEST, TRAIN, VALID, Meta, PreparedDataset
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, SequenceBatch
from intentbench.models.dreamrec import DreamRec, spread_of
from intentbench.nn.diffusion import step_embedding
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


def _model(**arguments: Any) -> DreamRec:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"window": 8, "steps": 6, "width": 16, "dropout": 0.0}
    return DreamRec(N_ITEMS, len(LENGTHS), **{**settings, **arguments})


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _seeded_loss(model: DreamRec, batch: SequenceBatch) -> Tensor:
    torch.manual_seed(3)
    return model.loss(batch)["total"]


def _times(model: DreamRec, step: int) -> Tensor:
    """The embedded step (1, D)."""
    sinusoid = step_embedding(torch.tensor([step]), 16).to(model.items.weight)
    result: Tensor = model.diffusion.denoiser.time(sinusoid)
    return result


@torch.no_grad()
def _sampled(model: DreamRec, history: list[int]) -> Tensor:
    """The reverse process of one user, written out in float64 with two calls a step."""
    double = _model(**{name: model.hparams[name] for name in ("steps", "denoiser")}).double()
    double.load_state_dict(model.state_dict())
    denoiser, weight = double.diffusion.denoiser, model.hparams["guidance_weight"]
    alpha_bar = [1.0, *double.diffusion.process.alpha_bar.tolist()]
    count = len(alpha_bar) - 1
    noise = torch.randn(
        count, 16, generator=torch.Generator().manual_seed(model.sampling_seed)
    ).double()
    guidance = double.guidance(torch.tensor([history]), torch.tensor([len(history)]))
    state = noise[:1]
    for step in range(count, 0, -1):
        times = _times(double, step)
        conditional = denoiser.network(torch.cat([state, guidance, times], 1))
        free = denoiser.network(torch.cat([state, denoiser.nothing[None], times], 1))
        clean = (1 + weight) * conditional - weight * free
        now, before = alpha_bar[step], alpha_bar[step - 1]
        beta = 1 - now / before
        mean = beta * before**0.5 / (1 - now) * clean
        mean = mean + (1 - before) * (now / before) ** 0.5 / (1 - now) * state
        spread = (beta * (1 - before) / (1 - now)) ** 0.5
        state = mean if step == 1 else mean + spread * noise[step - 1]
    return (state @ double.items.weight.T)[0].float()


@pytest.mark.parametrize("denoiser", ["mlp1", "mlp2"])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_scores_equal_the_reverse_process_written_out(denoiser: str, weight: float) -> None:
    """For `mlp1` this is the exactness of the shifted signal."""
    model = _model(denoiser=denoiser, guidance_weight=weight, sampling_seed=7).eval()
    scores = model.score(queries_of(HISTORIES))
    for row, history in enumerate(HISTORIES):
        expected = _sampled(model, history)
        torch.testing.assert_close(scores[row, 1:], expected[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("denoiser", ["mlp1", "mlp2"])
def test_weight_0_ignores_the_unconditional_branch(denoiser: str) -> None:
    for weight, same in ((0.0, True), (2.0, False)):
        model = _model(denoiser=denoiser, guidance_weight=weight).eval()
        before = model.score(queries_of(HISTORIES))
        with torch.no_grad():
            model.diffusion.denoiser.nothing.add_(1.0)
        assert model.score(queries_of(HISTORIES)).equal(before) == same


def test_dropout_1_makes_training_unconditional() -> None:
    batch = _batch(_data())
    other = replace(batch, items=torch.where(batch.items > 0, batch.items % N_ITEMS + 1, PAD))
    for share, same in ((1.0, True), (0.0, False)):
        model = _model(guidance_dropout=share)
        loss = _seeded_loss(model, batch)
        assert loss.equal(_seeded_loss(model, other)) == same
        loss.backward()  # type: ignore[no-untyped-call]
        history, nothing = model.positions.weight.grad, model.diffusion.denoiser.nothing.grad
        assert history is not None
        assert nothing is not None
        assert history.any() != same
        assert nothing.any() == same


@pytest.mark.parametrize(("denoiser", "calls"), [("mlp1", 0), ("mlp2", 2)])
def test_cost_of_sampling_is_linear_in_the_steps(denoiser: str, calls: int) -> None:
    """Two calls a step; for `mlp1` none, but as many products more for each step more."""
    work: list[int] = []
    for steps in (1, 5, 9):
        model = _model(denoiser=denoiser, steps=steps).eval().requires_grad_(False)
        seen: list[int] = []
        model.diffusion.denoiser.network.register_forward_hook(lambda *_, s=seen: s.append(1))
        with FlopCounterMode(display=False) as counter:
            scores = model.score(queries_of(HISTORIES))
        assert scores[:, 1:].isfinite().all()
        assert len(seen) == calls * steps
        work.append(counter.get_total_flops())
    if denoiser == "mlp1":
        assert work[2] - work[1] == work[1] - work[0] > 0


def test_loss_is_the_mean_squared_error_of_the_rebuilt_target() -> None:
    model, batch = _model(guidance_dropout=0.0, schedule="linear", steps=1).eval(), _batch(_data())
    torch.manual_seed(3)
    torch.rand(len(batch.labels))
    torch.randint(1, 2, batch.labels.shape)
    noise = torch.randn(len(batch.labels), 16)
    total, kept = 0.0, float(model.diffusion.process.alpha_bar[0])
    for row, length in enumerate(batch.lengths.tolist()):
        clean = model.items.weight[batch.labels[row]]
        noisy = kept**0.5 * clean + (1 - kept) ** 0.5 * noise[row]
        states = model.items.weight[batch.items[row, :length]] + model.positions.weight[:length]
        guidance = model.last_norm(model.block(states[None]))[0, -1]
        signal = torch.cat([noisy, guidance, _times(model, 1)[0]])
        rebuilt = model.diffusion.denoiser.network(signal)
        total += float((rebuilt - clean).square().mean().detach()) / len(batch.labels)
    assert float(_seeded_loss(model, batch).detach()) == pytest.approx(total, rel=1e-5)


def test_noise_comes_from_the_sampling_seed_and_leaves_the_global_generator_alone() -> None:
    model, other = _model().eval(), _model(sampling_seed=1).eval()
    batch = queries_of(HISTORIES)
    state = torch.get_rng_state()
    scores = model.score(batch)
    assert scores.equal(model.score(batch))
    assert torch.get_rng_state().equal(state)
    assert not other.score(batch).equal(scores)
    alone = model.score(queries_of(HISTORIES[1:2]))
    torch.testing.assert_close(alone[0, 1:], scores[1, 1:], atol=1e-5, rtol=0)


def test_collapse_shows_in_the_logged_spread() -> None:
    torch.manual_seed(0)
    apart, alike = torch.randn(5000, 16), torch.ones(5000, 16) + 1e-3 * torch.randn(5000, 16)
    assert float(spread_of(apart)["item_norm"]) == pytest.approx(4.0, rel=0.05)
    assert float(spread_of(apart)["item_spread"]) == pytest.approx(1.0, abs=0.01)
    assert float(spread_of(alike)["item_spread"]) == pytest.approx(0.0, abs=0.01)
    assert float(spread_of(0.01 * apart)["item_norm"]) == pytest.approx(0.04, rel=0.05)


def test_loss_does_not_depend_on_how_wide_the_batch_is() -> None:
    model = _model().eval()
    narrow, wide = (_batch(_data(pad_to_window=pad)) for pad in (False, True))
    torch.testing.assert_close(_seeded_loss(model, narrow), _seeded_loss(model, wide))


def test_layout_all_is_refused() -> None:
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(RequestError, match="layout"):
        trainer.fit(_model(), _data(layout="all"))


def test_a_cycle_is_learned_and_every_parameter_takes_a_gradient() -> None:
    data = _data(lengths=[12, 13] * 5, window=5)
    model = _model(learning_rate=1e-2, steps=10, guidance_dropout=0.2)
    optimizer = model.configure_optimizers()
    torch.manual_seed(1)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(_batch(data))["total"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    batch = next(iter(data.test_dataloader()))
    ranks = (model.eval().score(batch).argsort(1, descending=True) == batch.target[:, None]).long()
    assert ranks.argmax(1).float().mean() < 2


def test_empty_histories_and_equal_targets_are_finite() -> None:
    scores = _model().eval().score(queries_of([[4, 5], [7], []]))
    assert scores[:, 1:].isfinite().all()
    assert (scores[:, PAD] == -torch.inf).all()
    batch = _batch(_data([4]))
    assert len(batch.users) == 1
    equal = replace(batch, items=torch.ones_like(batch.items), labels=torch.ones_like(batch.labels))
    assert all(term.isfinite() for term in _model().loss(equal).values())


def test_odd_width_is_refused_in_words() -> None:
    with pytest.raises(RequestError, match="width 15"):
        _model(width=15, heads=1)
