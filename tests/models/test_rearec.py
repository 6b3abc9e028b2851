"""ReaRec: what its specification says must hold."""

import math
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.models.base import GradientRecommender
from intentbench.models.rearec import ReaRec, step_contrast
from intentbench.models.sasrec import SASRec
from intentbench.nn.bidirectional import BidirectionalEncoder
from intentbench.nn.transformer import BertBlock

V, WINDOW = 9, 6
SEQUENCES = [
    [3, 1, 4, 1, 5, 9, 2, 6, 5, 3],
    [2, 7, 1, 8, 2, 8],
    [7, 6, 8, 9],
    [1, 2, 3, 4, 5, 8, 9],
]


def _data(sequences: list[list[int]] = SEQUENCES, **arguments: Any) -> SequenceDataModule:
    settings: dict[str, Any] = {"layout": "prefix", "window": WINDOW, "batch_size": 5} | arguments
    return SequenceDataModule(build_dataset("x", sequences, V), **settings)


def _model(**arguments: Any) -> ReaRec:
    torch.manual_seed(0)
    settings = {"window": WINDOW, "width": 8, "dropout": 0.3, "temperature": 0.5} | arguments
    return ReaRec(V, len(SEQUENCES), **settings)


def _lively(**arguments: Any) -> ReaRec:
    """In evaluation mode, with weights large enough for every position to matter."""
    model = _model(**arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape))
    return model


def _batch(**arguments: Any) -> SequenceBatch:
    return next(iter(_data(**arguments).train_dataloader()))


def _trained(model: GradientRecommender, epochs: int = 3) -> list[float]:
    torch.manual_seed(1)
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(epochs):
        for batch in _data().train_dataloader():
            total = model.loss(batch)["total"]
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(float(total.detach()))
    return values


# the encoder and its steps ---------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["erl", "prl"])
def test_without_steps_it_is_sasrec_bit_for_bit(variant: str) -> None:
    model = _model(variant=variant, steps=0, temperature=1.0)
    torch.manual_seed(0)
    base = SASRec(V, 4, WINDOW, "ce", "prefix", "bert", width=8, heads=2, dropout=0.3)
    values = _trained(base)
    assert _trained(model) == values
    found = model.state_dict()
    assert all(found[name].equal(weight) for name, weight in base.state_dict().items())
    batch = next(iter(_data().test_dataloader()))
    assert model.eval().score(batch).equal(base.eval().score(batch))
    assert _trained(_model(variant=variant, temperature=1.0)) != values


@torch.no_grad()
def test_without_steps_the_other_backbone_is_a_bidirectional_encoder() -> None:
    model, batch = _lively(backbone="bert4rec", steps=0), _batch()
    encoder = BidirectionalEncoder(V, WINDOW, 8, 2, 2, 0.3, 0.3).eval()
    encoder.load_state_dict(model.encoder.state_dict())
    expected = encoder(batch.items, batch.lengths, batch.lengths[:, None] - 1)[:, 0]
    torch.testing.assert_close(model.encode(batch), expected)
    causal = _lively(backbone="sasrec", steps=0)
    assert not torch.allclose(model.encode(batch)[0], causal.encode(batch)[0])


def _slow_rollout(model: ReaRec, items: Tensor, noise: Tensor | None = None) -> Tensor:
    """r_0 … r_K of one row without padding, (K + 1, D): everything is recomputed at each step.

    With noise (K, D) the steps' inputs are those of the rollout without it, and that.
    """
    encoder = model.encoder
    vectors = encoder.items(items) + encoder.positions.weight[: len(items)]
    states = [_slow_stack(model, vectors, len(items))[-1]]
    for k in range(model.steps):
        vectors = torch.cat([vectors, (states[-1] + model.step_positions[k])[None]])
        states.append(_slow_stack(model, vectors, len(items))[-1])
    if noise is not None:
        vectors = torch.cat([vectors[: len(items)], vectors[len(items) :] + noise])
        states = [*_slow_stack(model, vectors, len(items))[len(items) - 1 :].unbind()]
    return torch.stack(states)


def _slow_stack(model: ReaRec, vectors: Tensor, n: int) -> Tensor:
    states: Tensor = model.encoder.first_norm(vectors)
    visible = torch.ones(len(states), len(states)).tril().bool()
    if not model.causal:
        visible[:n, :n] = True
    for block in model.encoder.blocks:
        assert isinstance(block, BertBlock)
        states = _slow_block(block, states, visible)
    return states


def _slow_block(block: BertBlock, states: Tensor, visible: Tensor) -> Tensor:
    attention = block.attention
    queries = attention.query(states).chunk(attention.heads, 1)
    keys, values = attention.key_value(states).chunk(2, 1)
    heads = []
    for query, key, value in zip(
        queries, keys.chunk(attention.heads, 1), values.chunk(attention.heads, 1), strict=True
    ):
        logits = query @ key.T / query.shape[1] ** 0.5
        heads.append(logits.masked_fill(~visible, -torch.inf).softmax(1) @ value)
    states = block.attention_norm(states + attention.out(torch.cat(heads, 1)))
    result: Tensor = block.forward_norm(states + block.feed_forward(states))
    return result


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
def test_kept_keys_and_values_give_what_recomputation_gives(backbone: str) -> None:
    model = _lively(backbone=backbone, steps=3)
    batch = _batch(batch_size=20)
    assert len({*batch.lengths.tolist()}) > 3
    noise = 0.3 * torch.randn(len(batch.users), 3, 8)
    states, noisy = model.rollouts(batch, noise)
    for row, length in enumerate(batch.lengths.tolist()):
        items = batch.items[row, :length]
        torch.testing.assert_close(states[row], _slow_rollout(model, items))
        torch.testing.assert_close(noisy[row], _slow_rollout(model, items, noise[row])[1:])


@torch.no_grad()
def test_states_do_not_depend_on_padding_and_empty_rows_are_finite() -> None:
    model = _lively(steps=2)
    trimmed, padded = _batch(), _batch(pad_to_window=True)
    torch.testing.assert_close(model.rollouts(trimmed)[0], model.rollouts(padded)[0])
    state, memory = model.read(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2).long())
    assert model.step(state, memory)[0].isfinite().all()


@torch.no_grad()
def test_further_steps_change_nothing_before_them() -> None:
    model, deeper, batch = _lively(steps=2), _lively(steps=5), _batch()
    deeper.encoder.load_state_dict(model.encoder.state_dict())
    deeper.step_positions[:2] = model.step_positions
    torch.testing.assert_close(deeper.rollouts(batch)[0][:, :3], model.rollouts(batch)[0])


@pytest.mark.parametrize("variant", ["erl", "prl"])
@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
def test_every_parameter_takes_a_gradient_those_of_the_steps_included(
    variant: str, backbone: str
) -> None:
    model, batch = _model(variant=variant, backbone=backbone, steps=3), _batch()
    model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    positions, steps = model.encoder.positions.weight.grad, model.step_positions.grad
    assert positions is not None
    assert steps is not None
    # every position that a row has, and every step
    assert (positions[: int(batch.lengths.max())].abs().sum(1) > 0).all()
    assert (steps.abs().sum(1) > 0).all()


# ERL -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_ensemble_ranks_by_the_mean_state_and_progression_by_the_last() -> None:
    batch = next(iter(_data().test_dataloader()))
    for variant in ("erl", "prl"):
        model = _lively(variant=variant)
        states = model.rollouts(batch)[0]
        mean = (states[:, 0] + states[:, 1] + states[:, 2]) / 3
        user = mean if variant == "erl" else states[:, 2]
        expected = user @ model.item_table().T
        torch.testing.assert_close(model.score(batch)[:, 1:], expected[:, 1:])
        assert (model.score(batch)[:, 0] == -torch.inf).all()


def _cross_entropy(model: ReaRec, query: Tensor, labels: Tensor) -> Tensor:
    """Of queries (B, D), over the items alone."""
    scores = (query @ model.item_table().T)[:, 1:]
    return nn.functional.cross_entropy(scores, labels - 1)


@torch.no_grad()
def test_ensemble_without_its_weight_is_cross_entropy_on_the_mean() -> None:
    model, batch = _lively(variant="erl", lambda_kl=0.0), _batch()
    terms = model.loss(batch)
    assert terms.keys() == {"total"}
    expected = _cross_entropy(model, model.encode(batch) / 0.5, batch.labels)
    torch.testing.assert_close(terms["total"], expected)


@torch.no_grad()
def test_ensemble_loss_equals_its_equation() -> None:
    model, batch = _lively(variant="erl", lambda_kl=0.3, steps=3), _batch()
    terms = model.loss(batch)
    states = model.rollouts(batch)[0].double()
    table = model.item_table()[1:].double()
    divergences = []
    for row in states:
        steps = [(state @ table.T / 0.5).softmax(0) for state in row]
        for i, p in enumerate(steps):
            divergences += [_kl(p, q) for j, q in enumerate(steps) if j != i]
    expected = torch.stack(divergences).mean()
    assert float(expected) > 0.01
    assert float(terms["divergence"]) == pytest.approx(float(expected), rel=1e-4)
    main = _cross_entropy(model, states.float().mean(1) / 0.5, batch.labels)
    assert float(terms["total"]) == pytest.approx(float(main - 0.3 * expected), rel=1e-4)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum()


# PRL -------------------------------------------------------------------------------------------


def test_temperatures_fall_to_the_base() -> None:
    assert _model(alpha=2.0, steps=3).temperatures[:, 0].tolist() == [4.0, 2.0, 1.0, 0.5]
    assert _model(alpha=1.0, steps=2).temperatures[:, 0].tolist() == [0.5] * 3
    assert "temperatures" not in _model().state_dict()


@torch.no_grad()
def test_progressive_loss_equals_its_equation() -> None:
    model, batch = _lively(alpha=1.5, gamma=0.2, lambda_rcl=0.7), _batch()
    torch.manual_seed(4)
    terms = model.loss(batch)
    torch.manual_seed(4)
    noise = 0.2 * torch.randn(len(batch.users), 2, 8)
    states, noisy = model.rollouts(batch, noise)
    main = torch.stack(
        [
            _cross_entropy(model, states[:, k] / (0.5 * 1.5 ** (2 - k)), batch.labels)
            for k in range(3)
        ]
    ).mean()
    contrast = []
    for row in range(len(states)):
        for k in (1, 2):
            logits = states[:, k] @ noisy[row, k - 1] / 0.5
            contrast.append(logits.logsumexp(0) - logits[row])
    # two of them a row, over K + 1: as many times the paper's as the mean of three cross-entropies
    expected = torch.stack(contrast).sum() / len(states) / 3
    torch.testing.assert_close(terms["recommendation"], main)
    torch.testing.assert_close(terms["contrast"], expected)
    torch.testing.assert_close(terms["total"], main + 0.7 * expected)


@torch.no_grad()
def test_with_weight_one_the_progressive_loss_is_the_papers_sum_over_k_plus_one() -> None:
    """Eq. 13: the sum of K + 1 cross-entropies and that of K contrasts, and a factor of both."""
    model, batch = _lively(alpha=1.5, steps=3), _batch()
    torch.manual_seed(4)
    found = model.loss(batch)["total"]
    torch.manual_seed(4)
    noise = model.gamma * torch.randn(len(batch.users), 3, 8)
    states, noisy = model.rollouts(batch, noise)
    total = torch.zeros(())
    for k in range(4):
        total += _cross_entropy(model, states[:, k] / (0.5 * 1.5 ** (3 - k)), batch.labels)
    for k in range(1, 4):
        logits = noisy[:, k - 1] @ states[:, k].T / 0.5
        total += nn.functional.cross_entropy(logits, torch.arange(len(states)))
    torch.testing.assert_close(found, total / 4)


@torch.no_grad()
def test_with_one_temperature_all_steps_weigh_alike() -> None:
    model, batch = _lively(alpha=1.0, lambda_rcl=0.0), _batch()
    states = model.rollouts(batch)[0].transpose(0, 1).flatten(0, 1)
    expected = _cross_entropy(model, states / 0.5, batch.labels.repeat(3))
    torch.testing.assert_close(model.loss(batch)["total"], expected)


@torch.no_grad()
def test_without_noise_and_dropout_the_noisy_rollout_is_the_clean_one() -> None:
    model, batch = _lively(steps=3), _batch()
    states, noisy = model.rollouts(batch, torch.zeros(len(batch.users), 3, 8))
    torch.testing.assert_close(noisy, states[:, 1:])
    model.train()  # dropout: two draws
    states, noisy = model.rollouts(batch, torch.zeros(len(batch.users), 3, 8))
    assert not torch.allclose(noisy, states[:, 1:])


def test_contrast_has_its_closed_forms() -> None:
    same = torch.ones(5, 2, 3)
    assert float(step_contrast(same, same, 0.5)) == pytest.approx(2 / 3 * math.log(5))
    apart = torch.eye(3)[:, None].expand(-1, 2, -1)
    assert float(step_contrast(apart, apart, 0.01)) == pytest.approx(0, abs=1e-6)
    assert float(step_contrast(same[:1], same[:1], 0.5)) == 0  # a row alone has no negative


def test_without_its_weight_the_contrast_draws_nothing() -> None:
    model, batch = _model(lambda_rcl=0.0).eval(), _batch()
    before = torch.get_rng_state()
    assert model.loss(batch).keys() == {"total"}
    assert torch.get_rng_state().equal(before)


# training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["erl", "prl"])
@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
def test_cycles_are_learnt(variant: str, backbone: str) -> None:
    cycles = [[1 + (start + step) % V for step in range(6)] for start in range(V)]
    data = _data(cycles, batch_size=16)
    settings = {"dropout": 0.0, "step_dropout": 0.0, "learning_rate": 5e-3, "width": 16}
    model = _model(variant=variant, backbone=backbone, kl_detach=True, **settings)
    optimizer = model.configure_optimizers()
    for _ in range(50):
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    for query in data.test_dataloader():
        assert (model.eval().score(query).argmax(1) == query.target).all()


def test_presets_name_both_variants_on_both_backbones(request: pytest.FixtureRequest) -> None:
    file = request.config.rootpath / "benchmarks" / "models" / "rearec.yaml"
    presets = yaml.safe_load(file.read_text(encoding="utf-8"))["presets"]
    models = {name: ReaRec(V, 4, **arguments) for name, arguments in presets.items()}
    assert {name: (model.variant, model.causal) for name, model in models.items()} == {
        "erl": ("erl", True),
        "erl_both_sides": ("erl", True),
        "erl_bert4rec": ("erl", False),
        "prl": ("prl", True),
        "prl_bert4rec": ("prl", False),
    }
    detached = {name for name, model in models.items() if model.kl_detach}
    assert detached == {"erl", "erl_bert4rec"}
