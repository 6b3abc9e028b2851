"""InDiRec: what its specification says must hold of training, and whether the intent is used."""

from inspect import signature
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss

from datamodules.catalog import catalog
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.contracts.subject import quiet_trainer, same_state
from intentbench.models.indirec import InDiRec
from intentbench.models.sasrec import SASRec
from intentbench.runner.arguments import resolve_arguments
from tests.models.indirec import PRESETS, SMALL, build, cycles, e_step, first_batch, terms_of


def test_weights_zero_are_sasrec_bit_for_bit() -> None:
    """Also through Lightning, where SASRec's Trainer clips as InDiRec does by itself."""
    arguments = {name: SMALL[name] for name in ("window", "width", "blocks", "dropout")}
    states, losses = [], []
    for clip in (0.0, 1.0):
        torch.manual_seed(0)
        base = SASRec(
            40,
            50,
            loss="ce",
            layout="prefix",
            encoder="bert",
            heads=2,
            **arguments,
        )
        ours = build(lambda_diff=0.0, lambda_cl=0.0, clip_norm=clip, signal_dropout=0.5)
        for model in (base, ours):
            torch.manual_seed(3)
            trainer = quiet_trainer(3, gradient_clip_val=clip if model is base else None)
            trainer.fit(model, cycles())
            states.append(model.encoder.state_dict())
            losses.append(model.loss(first_batch())["total"].item())
        assert len(ours.members.codes) == 0, "an E-step that nothing needs"
        assert not any(p.requires_grad for p in ours.diffusion.parameters())
    assert losses[0] == losses[1]
    assert losses[2] == losses[3]
    assert same_state(states[0], states[1])
    assert same_state(states[2], states[3])
    assert not same_state(states[0], states[2]), "clipping does nothing"


@pytest.mark.parametrize("preset", ["code", "paper", "repaired"])
def test_presets_train_and_resume_exactly(preset: str, tmp_path: Path) -> None:
    def built() -> InDiRec:
        torch.manual_seed(0)
        return InDiRec(40, 50, **SMALL | PRESETS["presets"][preset])

    straight, half, resumed = built(), built(), built()
    torch.manual_seed(4)
    quiet_trainer(3).fit(straight, cycles())
    torch.manual_seed(4)
    trainer = quiet_trainer(2)
    trainer.fit(half, cycles())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    quiet_trainer(3).fit(resumed, cycles(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert same_state(straight.state_dict(), resumed.state_dict())


def test_presets_are_good_arguments_and_the_defaults_are_repaired_on_beauty() -> None:
    filled = {"n_items": 40, "n_users": 50, "window": 50}
    defaults = resolve_arguments(InDiRec, {}, "defaults", filled)
    assert PRESETS.keys() == {"presets", "datasets"}
    for preset in PRESETS["presets"].values():
        for name, dataset in PRESETS["datasets"].items():
            assert name in catalog()
            resolved = resolve_arguments(InDiRec, preset | dataset, name, filled)
            assert resolved.keys() == signature(InDiRec).parameters.keys()
    given = PRESETS["presets"]["repaired"] | PRESETS["datasets"]["beauty"]
    assert {name: defaults[name] for name in given} == given


@pytest.mark.parametrize("preset", ["code", "paper", "repaired"])
@pytest.mark.parametrize("users", [[[2, 3, 1, 2]], [[1, 1, 1, 1], [2, 3, 1, 2]]])
@pytest.mark.parametrize("clusters", [1, 40])
def test_no_nan_where_there_is_little(preset: str, users: list[list[int]], clusters: int) -> None:
    """One or two users, one item a sequence, more clusters than prefixes, empty clusters."""
    few = SequenceDataModule(build_dataset("few", users, 3), layout="prefix", window=8)
    model = build(few, **PRESETS["presets"][preset] | {"clusters": clusters})
    assert len(model.members.prefixes) == len(first_batch(few).users) == len(users)
    for _ in range(2):
        _assert_finite(model, first_batch(few))
        e_step(model)


@pytest.mark.parametrize("preset", ["code", "paper", "repaired"])
def test_a_batch_of_one_row_has_no_negatives(preset: str) -> None:
    model, alone = build(**PRESETS["presets"][preset]), first_batch(cycles(batch_size=1))
    assert len(alone.users) == 1
    terms = _assert_finite(model, alone)
    assert terms["contrast"] == 0
    assert terms["diffusion"] > 0


def _assert_finite(model: InDiRec, batch: SequenceBatch) -> dict[str, Tensor]:
    """Terms and gradients are finite, at least one gradient is not 0; the terms."""
    model.zero_grad()
    terms = terms_of(model, batch)
    terms["total"].backward()  # type: ignore[no-untyped-call]
    assert all(term.isfinite() for term in terms.values())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    return {name: term.detach() for name, term in terms.items()}


@pytest.mark.parametrize(
    ("own", "given", "used"),
    [(1.0, None, 1.0), (1.0, 0.5, 0.5), (1.0, 0.0, 0.0), (0.0, None, 0.0), (0.0, 0.5, 0.5)],
)
def test_own_clipping_gives_way_to_the_trainers(
    own: float, given: float | None, used: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = quiet_trainer(1, limit_train_batches=2, gradient_clip_val=given)
    seen: list[float] = []
    monkeypatch.setattr(Precision, "clip_gradients", lambda _, __, value, ___: seen.append(value))
    trainer.fit(build(clip_norm=own), cycles())
    assert seen == [used] * 2


@torch.no_grad()
def _use_of_the_condition(model: InDiRec) -> tuple[float, float]:
    """What the own signal is worth, against another row's.

    Returns:
        The share of the squared error that it saves, and how much closer by cosine a generated
        vector is to its own x_0 than to another's.
    """
    model.eval()
    prefixes, generator = model.members.prefixes, torch.Generator().manual_seed(0)
    own = torch.arange(len(prefixes))
    states = prefixes.encode(own, model.encoder.last_state)
    noise = torch.rand(len(own), generator=generator, dtype=torch.float64)
    drawn = model.members.draw(model.members.kmeans.assign(states), own, noise)
    signal, clean = states[drawn], model.item_table()[prefixes.target]
    shuffle = torch.randperm(len(own), generator=generator)
    diffusion, errors = model.diffusion, torch.zeros(2)
    for step in range(1, diffusion.process.steps + 1):
        steps = torch.full_like(own, step)
        noisy = diffusion.process.diffuse(clean, steps, torch.randn_like(clean))
        for kind, given in enumerate((signal, signal[shuffle])):
            errors[kind] += mse_loss(diffusion.denoiser(noisy, given, steps), clean)
    views = diffusion.generate(signal)
    closer = cosine_similarity(views, clean) - cosine_similarity(views, clean[shuffle])
    return float(1 - errors[0] / errors[1]), float(closer.mean())


def _trained(preset: str) -> InDiRec:
    settings = {"clusters": 20, "width": 32, "dropout": 0.1, "learning_rate": 5e-3}
    model = build(None, **PRESETS["presets"][preset], **settings)
    quiet_trainer(40).fit(model, cycles())
    return model


def test_the_condition_matters() -> None:
    saved, closer = _use_of_the_condition(_trained("repaired"))
    assert saved > 0.4
    assert closer > 0.4


def test_the_condition_does_not_matter_as_the_code_retrieves() -> None:
    """The defect that `retrieval='row'` mends: the signals of a batch say nothing of its rows."""
    saved, closer = _use_of_the_condition(_trained("code"))
    assert saved < 0.1
    assert closer < 0.15
