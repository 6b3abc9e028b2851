"""C4 to C7: what scores are, and what they may depend on."""

import random
from dataclasses import fields, replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.rows import flat_starts
from datamodules.types import PAD, Batch, SequenceBatch
from intentbench.contracts.data import change_held_out, events_of_users, take_events
from intentbench.contracts.subject import Subject, quiet_trainer, same_state, score_all
from intentbench.models.base import GradientRecommender

ATOL = 1e-5


@pytest.mark.contract("C4a")
def test_scores_are_finite_and_leave_padding_out(subject: Subject) -> None:
    model, data = subject.trained, subject.data
    histories = [events[: user % 4] for user, events in enumerate(events_of_users(data))]
    for dataset in (data, take_events(data, histories)):  # the second from 0 to 3 known events
        scores = subject.score(model, dataset)
        assert scores.shape == (data.n_users, data.n_items + 1)
        assert scores.dtype == torch.float32
        assert (scores[:, PAD] == -torch.inf).all()
        assert scores[:, 1:].isfinite().all()
        assert not scores.requires_grad


@pytest.mark.contract("C4b")
def test_predictions_are_items_that_the_user_has_not_had(subject: Subject) -> None:
    model = subject.trained
    module = subject.batches(model)
    pages = quiet_trainer(1).predict(model, module)
    assert pages is not None
    for page, batch in zip(pages, module.predict_dataloader(), strict=True):
        assert page["items"].shape == page["scores"].shape == (len(batch.users), 20)
        assert (page["items"] != PAD).all()
        had = (page["items"][:, :, None] == batch.history[:, None, :]).any(-1)
        assert not had.any()


@pytest.mark.contract("C5a")
def test_user_alone_scores_as_in_a_batch(subject: Subject) -> None:
    whole = subject.score(subject.trained)
    for size in (1, 7):
        part = subject.score(subject.trained, evaluation_batch_size=size)
        torch.testing.assert_close(part, whole, atol=ATOL, rtol=0)


@pytest.mark.contract("C5b")
def test_trimmed_batch_scores_as_padded(subject: Subject) -> None:
    if subject.card.fixed_window:
        pytest.skip("the Card declares a fixed window")
    narrow = subject.score(subject.trained, evaluation_batch_size=4)
    wide = subject.score(subject.trained, evaluation_batch_size=4, pad_to_window=True)
    torch.testing.assert_close(narrow, wide, atol=ATOL, rtol=0)
    if isinstance(model := subject.prepared(), GradientRecommender):
        loaders = [
            subject.batches(model, batch_size=4, pad_to_window=pad).train_dataloader()
            for pad in (False, True)
        ]
        for trimmed, padded in islice(zip(*loaders, strict=True), 16):
            torch.testing.assert_close(
                _seeded_loss(model, trimmed), _seeded_loss(model, padded), atol=ATOL, rtol=0
            )


@pytest.mark.contract("C5c")
def test_order_of_users_is_free(subject: Subject) -> None:
    if subject.card.personal:
        pytest.skip("scores depend on the row of the user")
    backwards = take_events(subject.data, events_of_users(subject.data)[::-1])
    scores = subject.score(subject.trained, backwards).flip(0)
    torch.testing.assert_close(scores, subject.score(subject.trained), atol=ATOL, rtol=0)


@pytest.mark.contract("C6a")
def test_scores_do_not_see_the_target_or_what_follows(subject: Subject) -> None:
    """Trained and asked on data whose held-out items are others, a method scores the same."""
    changed = change_held_out(subject.data)
    ignorant = subject.fit(data=changed)
    known = list(subject.batches(subject.trained).val_dataloader())
    other = list(subject.batches(ignorant, changed).val_dataloader())
    assert all((a.target != b.target).all() for a, b in zip(known, other, strict=True))
    same = score_all(subject.trained, known).equal(score_all(ignorant, other))
    assert same, "scores change when nothing but the held-out items does"


@pytest.mark.contract("C6b")
def test_states_do_not_see_later_inputs(subject: Subject) -> None:
    """The loss at the earlier half of each row's targets ignores the later half of the inputs."""
    model = subject.prepared()
    if not isinstance(model, GradientRecommender) or model.layout != "all":
        pytest.skip("only a loss on layout 'all' has targets before later inputs")
    if not subject.card.causal:
        pytest.skip("the Card says that it is not causal")
    batch = subject.training_batch(model)
    half = batch.lengths // 2
    early = _targets_before(batch, half)
    later = torch.arange(batch.items.shape[1]) >= half[:, None]
    other = torch.where(batch.items != PAD, batch.items % subject.data.n_items + 1, PAD)
    changed = replace(early, items=torch.where(later, other, batch.items))
    assert len(early.labels) > 0
    assert not changed.items.equal(early.items)
    torch.testing.assert_close(
        _seeded_loss(model, changed), _seeded_loss(model, early), atol=ATOL, rtol=0
    )


@pytest.mark.contract("C7a")
def test_scoring_is_pure(subject: Subject) -> None:
    model = subject.trained
    batch = next(iter(subject.batches(model).test_dataloader()))
    copy = _copied(batch)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generators = _generator_states()
    first, second = score_all(model, [batch]), score_all(model, [batch])
    assert generators == _generator_states(), "scoring draws from a global generator"
    assert first.equal(second), "the same batch scores differently the second time"
    assert _equal(batch, copy), "scoring changes the batch"
    assert same_state(state, model.state_dict()), "scoring changes the method's state"


@pytest.mark.contract("C7b")
def test_loss_leaves_the_batch_alone(subject: Subject) -> None:
    if not isinstance(model := subject.prepared(), GradientRecommender):
        pytest.skip("no loss: trained without gradients")
    batch = subject.training_batch(model)
    copy = _copied(batch)
    model.loss(batch)
    assert _equal(batch, copy)


def _seeded_loss(model: GradientRecommender, batch: SequenceBatch) -> Tensor:
    """The loss without dropout, and with the same negatives at every call."""
    model.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        return model.loss(batch)["total"]


def _targets_before(batch: SequenceBatch, limit: Tensor) -> SequenceBatch:
    """The batch with the targets at positions below `limit` (B,) of each row only."""
    starts = torch.from_numpy(flat_starts(batch.groups))
    keep = batch.select - starts[batch.rows] < limit[batch.rows]
    inside = torch.arange(batch.targets.shape[1]) < limit[:, None]
    return replace(
        batch,
        targets=torch.where(inside, batch.targets, PAD),
        select=batch.select[keep],
        rows=batch.rows[keep],
        labels=batch.labels[keep],
    )


def _generator_states() -> tuple[bytes, str, str]:
    legacy = repr(np.random.get_state())  # noqa: NPY002 (what is watched, not used)
    return torch.get_rng_state().numpy().tobytes(), legacy, repr(random.getstate())


def _copied(batch: Batch) -> Batch:
    clones: dict[str, Any] = {name: tensor.clone() for name, tensor in _tensors(batch).items()}
    return replace(batch, **clones)


def _equal(first: Batch, second: Batch) -> bool:
    return all(tensor.equal(_tensors(second)[name]) for name, tensor in _tensors(first).items())


def _tensors(batch: Batch) -> dict[str, Tensor]:
    named = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}
