"""C8 to C12: what training does, and that it can be repeated and resumed."""

from copy import deepcopy
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from numpy.typing import NDArray
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import Subject, quiet_trainer, same_ranks, same_state
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.models.base import GradientRecommender

LEARNING_EPOCHS = 12
OVERFITTING_EPOCHS = 300

NEAR = 0.25
"""How far, relatively, the first loss may lie from its closed form: drawn weights give logits some
variance, of which half adds to a log-sum-exp over few items."""


@pytest.mark.contract("C8")
def test_every_trained_parameter_gets_a_finite_gradient(subject: Subject) -> None:
    model = subject.prepared()
    if not isinstance(model, GradientRecommender):
        pytest.skip("no loss: trained without gradients")
    parameters = dict(model.named_parameters())
    assert {*subject.card.frozen} <= parameters.keys()
    for batch in subject.batches(model).train_dataloader():
        model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]  # in torch
    for name, parameter in parameters.items():
        if name in subject.card.frozen:
            assert parameter.grad is None, f"{name} is declared frozen"
        else:
            assert parameter.grad is not None, f"{name} has no part in the loss"
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), f"the gradient of {name} is zero everywhere"
    equal = replace(subject.data, items=torch.ones_like(subject.data.items))
    alone = next(iter(subject.batches(model, equal, batch_size=1).train_dataloader()))
    assert all(term.isfinite() for term in model.loss(alone).values()), "one row of equal items"


@pytest.mark.contract("C9a")
def test_first_loss_is_near_its_closed_form(subject: Subject) -> None:
    if subject.card.first_loss is None:
        pytest.skip("the Card gives no closed form")
    model = subject.prepared()
    assert isinstance(model, GradientRecommender)
    terms = 1 + subject.card.tiny.get("negatives", 1)
    forms = {"log_items": log(subject.data.n_items), "log_2": log(2), "bce": terms * log(2)}
    first = model.loss(subject.training_batch(model))["total"].item()
    assert first == pytest.approx(forms[subject.card.first_loss], rel=NEAR)


@pytest.mark.contract("C9b")
def test_training_beats_popularity(subject: Subject) -> None:
    if not subject.card.gradient:
        pytest.skip("trained without gradients")
    data = planted_cycles()
    model = subject.fit(LEARNING_EPOCHS, data)
    learnt = compute_metric("ndcg@10", subject.test(model, data).rank).mean()
    counts = torch.bincount(data.training().items, minlength=data.n_items + 1).float()
    popular = compute_metric("ndcg@10", _ranks_of_one_order(subject.batches(model, data), counts))
    assert learnt > 1.5 * popular.mean()


def _ranks_of_one_order(module: SequenceDataModule, scores: Tensor) -> NDArray[np.int64]:
    """Ranks of the test targets where every user gets the same scores (V + 1,)."""
    ranks = [
        ranks_from_scores(scores.repeat(len(batch.users), 1), batch.target, batch.masked)
        for batch in module.test_dataloader()
    ]
    return torch.cat(ranks).numpy()


@pytest.mark.slow
@pytest.mark.contract("C9c")
def test_deterministic_sequences_are_learnt_by_heart(subject: Subject) -> None:
    if not subject.card.gradient:
        pytest.skip("trained without gradients")
    if subject.card.personal:
        pytest.skip("scores depend on the row of the user: order may not matter")
    data = planted_cycles()
    ranks = subject.test(subject.fit(OVERFITTING_EPOCHS, data), data).rank
    assert compute_metric("hit_rate@1", ranks).mean() > 0.95


@pytest.mark.contract("C10")
def test_seed_determines_ranks(subject: Subject) -> None:
    first, second, other = (subject.fit(seed=seed) for seed in (3, 3, 4))
    assert same_state(first.state_dict(), second.state_dict()), "one seed, two results"
    ranks = subject.test(first)
    assert same_ranks(ranks, subject.test(second))
    assert same_ranks(ranks, subject.test(other)) == subject.card.deterministic


@pytest.mark.contract("C11")
def test_second_fit_equals_the_first(subject: Subject) -> None:
    """Put back to its first weights, a fitted object forgets that it was ever fitted."""
    model = subject.build()
    weights = deepcopy(model.state_dict())
    states = []
    for _ in range(2):
        model.load_state_dict(weights)
        seed_everything(1, workers=True, verbose=False)
        quiet_trainer(2).fit(model, subject.batches(model))
        states.append(deepcopy(model.state_dict()))
    assert same_state(*states), "the first fit has left something outside the state"


@pytest.mark.contract("C12a")
def test_resumed_training_equals_uninterrupted(subject: Subject, tmp_path: Path) -> None:
    straight = subject.fit(epochs=4)
    half = subject.build()
    trainer = quiet_trainer(2)
    trainer.fit(half, subject.batches(half))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = subject.build(seed=5)
    quiet_trainer(4).fit(
        resumed, subject.batches(resumed), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    same = same_state(straight.state_dict(), resumed.state_dict())
    assert same, "something that training needs is not in the checkpoint"
    assert same_ranks(subject.test(straight), subject.test(resumed))


@pytest.mark.contract("C12b")
def test_checkpoint_holds_all_that_scores_need(subject: Subject, tmp_path: Path) -> None:
    trainer = quiet_trainer(2)
    model = subject.build()
    trainer.fit(model, subject.batches(model))
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    loaded = subject.cls.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert subject.score(loaded).equal(subject.score(model))
