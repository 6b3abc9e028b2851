"""Caser: its image against plain loops, its targets, its loss, and users it does not know."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules.prepared import TRAIN
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset, planted_cycles
from intentbench.models.caser import Caser, NextItems

from .reference import queries_of, training_of

N_ITEMS, WIDTH, LENGTH, TARGETS, NEGATIVES = 90, 4, 3, 3, 2
LENGTHS = (14, 9, 6, 5, 4, 3)


def _data(**arguments: Any) -> SequenceDataModule:
    """Users of several lengths, whose items tell who they are: no two are the same."""
    random = torch.Generator().manual_seed(0)
    sequences = [
        (torch.randperm(N_ITEMS, generator=random)[:length] + 1).tolist() for length in LENGTHS
    ]
    dataset = build_dataset("random", sequences, N_ITEMS)
    return SequenceDataModule(dataset, layout="prefix", **({"window": 6} | arguments))


def _model(n_users: int = len(LENGTHS), n_items: int = N_ITEMS, **arguments: Any) -> Caser:
    torch.manual_seed(0)
    settings = {
        "width": WIDTH,
        "length": LENGTH,
        "targets": TARGETS,
        "negatives": NEGATIVES,
        "horizontal": 5,
        "vertical": 2,
        "dropout": 0.0,
    }
    return Caser(n_items, n_users, **(settings | arguments))


def _prepared(data: SequenceDataModule, **arguments: Any) -> Caser:
    model = _model(data.n_users, data.n_items, **arguments)
    model.prepare(data.training())
    return model


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _training(data: SequenceDataModule) -> list[list[int]]:
    events, offsets = data.training().items.tolist(), data.training().offsets.tolist()
    return [events[begin:end] for begin, end in pairwise(offsets)]


def _reference(model: Caser, user: int, row: list[int]) -> Tensor:
    """The scores (V + 1,) after a history, filter by filter and place by place."""
    image = model.items.weight[torch.tensor(([0] * LENGTH + row)[-LENGTH:])]
    outputs = []
    for feature in range(WIDTH):
        for weights, bias in zip(model.vertical.weight, model.vertical.bias, strict=True):
            outputs.append(sum(weights[t] * image[t, feature] for t in range(LENGTH)) + bias)
    for height, conv in enumerate(model.horizontal, start=1):
        assert isinstance(conv, nn.Conv1d)
        assert conv.bias is not None
        for weight, bias in zip(conv.weight, conv.bias, strict=True):  # (D, height) each
            places = [
                (weight.T * image[t : t + height]).sum() + bias for t in range(LENGTH - height + 1)
            ]
            outputs.append(max(torch.stack(places).max(), torch.zeros(())))
    flat = torch.stack([torch.as_tensor(output) for output in outputs])
    sequence = (model.joint.weight @ flat + model.joint.bias).clamp(min=0)
    query = torch.cat([sequence, model.users.weight[user]])
    return model.output @ query + model.bias


@torch.no_grad()
def test_scores_are_those_of_plain_loops() -> None:
    model = _prepared(_data()).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    nn.init.zeros_(model.items.weight[:1])
    rows = [[3, 1, 4, 1, 5, 9], [2, 7, 1], [5, 3], [7], []]
    scores = model.score(queries_of(rows))
    for user, row in enumerate(rows):
        expected = _reference(model, user, row)
        torch.testing.assert_close(scores[user, 1:], expected[1:], atol=1e-4, rtol=1e-4)
    assert (scores[:, 0] == -torch.inf).all()


@torch.no_grad()
def test_only_the_last_items_count_and_their_order_does() -> None:
    model = _prepared(_data()).eval()
    model.known[:] = False  # the rows stand for one and the same user
    scores = model.score(
        queries_of([[9, 8, 6, 1, 2, 3], [8, 6, 9, 1, 2, 3], [1, 2, 3], [1, 3, 2], [4, 2, 3]])
    )
    for same in (1, 2):
        torch.testing.assert_close(scores[0], scores[same])
    for other in (3, 4):
        assert not scores[0].allclose(scores[other])


def test_row_predicts_the_next_training_items() -> None:
    data = _data(window=20)
    model, batch, sequences = _prepared(data), _batch(data), _training(data)
    assert model.following is not None
    targets = model.following(batch.users, batch.key, TARGETS)
    assert targets[:, 0].equal(batch.labels)
    for row, user in enumerate(batch.users.tolist()):
        seen = int(batch.lengths[row])
        expected = sequences[user][seen : seen + TARGETS]
        assert targets[row].tolist() == expected + [0] * (TARGETS - len(expected))
    assert (targets == 0).any()


def test_held_out_items_are_no_targets() -> None:
    data = _data()
    dataset = data.dataset
    changed = replace(dataset, items=torch.where(dataset.split == TRAIN, dataset.items, 1))
    batch = _batch(data)
    assert torch.equal(
        NextItems(dataset.training())(batch.users, batch.key, 9),
        NextItems(changed.training())(batch.users, batch.key, 9),
    )


@torch.no_grad()
def test_loss_averages_targets_and_their_negatives() -> None:
    data = _data()
    model, batch, sequences = _prepared(data).eval(), _batch(data), _training(data)
    nn.init.normal_(model.bias)
    assert model.sampler is not None
    torch.manual_seed(3)
    negatives = model.sampler.sample(batch.users, TARGETS * NEGATIVES)
    torch.manual_seed(3)
    loss = float(model.loss(batch)["total"])
    scores = (model.encode(batch) @ model.item_table().T).tolist()
    positive, negative = [], []
    for row, user in enumerate(batch.users.tolist()):
        key = int(batch.key[row])
        for number, target in enumerate(sequences[user][key : key + TARGETS]):
            positive.append(math.log1p(math.exp(-scores[row][target])))
            for k in range(NEGATIVES):
                drawn = int(negatives[row, number * NEGATIVES + k])
                assert drawn not in sequences[user]
                negative.append(math.log1p(math.exp(scores[row][drawn])))
    assert len(negative) == NEGATIVES * len(positive)
    expected = sum(positive) / len(positive) + sum(negative) / len(negative)
    assert loss == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_first_loss_is_that_of_two_coins() -> None:
    data = _data()
    loss = float(_prepared(data).loss(_batch(data))["total"])
    assert loss == pytest.approx(2 * math.log(2), rel=0.1)


@torch.no_grad()
def test_users_without_a_training_row_are_scored_by_their_items_alone() -> None:
    model = _model(n_users=3)
    model.prepare(training_of([[1, 2, 3], [4], []]))
    assert model.known.tolist() == [True, False, False]
    model.eval()
    scores = model.score(queries_of([[1, 2], [1, 2], [1, 2]]))
    torch.testing.assert_close(scores[1], scores[2])
    assert not scores[0].allclose(scores[1])
    model.users.weight[1:] += 1
    assert model.score(queries_of([[1, 2], [1, 2], [1, 2]])).equal(scores)


def test_cycles_are_learnt() -> None:
    data = SequenceDataModule(planted_cycles(), layout="prefix", window=8)
    model = _prepared(data, width=16, targets=1, horizontal=8, learning_rate=1e-2)
    optimizer = model.configure_optimizers()
    batch = _batch(data)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        total = model.loss(batch)["total"]
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(total.detach()))
    query = next(iter(data.test_dataloader()))
    with torch.no_grad():
        best, _ = model.eval().recommend(query, 1)
    right = (best[:, 0] == query.target).float().mean()
    assert losses[-1] < 0.2 * losses[0]
    assert right > 0.8


def test_loss_without_the_training_events_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        _model().loss(_batch(_data()))
