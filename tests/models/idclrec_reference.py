"""What the tests of IDCLRec share: small data, and its loss row by row."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset
from intentbench.models.idclrec import IDCLRec
from intentbench.models.sasrec import SASRec
from intentbench.nn.prefixes import Prefixes

WIDTH = 16
WINDOW = 6
USERS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [2, 4, 6, 8, 10, 1, 3], [5, 3, 8, 1, 9], [7, 4, 2, 6]]
SHAPE: dict[str, Any] = {"window": WINDOW, "width": WIDTH, "dropout": 0.0}
NOTHING: dict[str, Any] = {"lambda_d": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}

SWITCHES: list[dict[str, Any]] = [
    {},
    {"layout": "all"},
    {"layout": "all", "augmentation": "dropout_only", "importance": "self_attention"},
    {"augmentation": "dropout_only", "cca_values": "identity"},
    {"augmentation": "crop_mask_reorder", "centroid_items": "next"},
    {"cca_heads": 2, "cca_self": False},
    {"threshold": "none", "importance": "mean_cos"},
    {"threshold": "learned", "importance": "to_current", "delta": 0.2},
    {"threshold": "per_user", "importance": "self_attention", "delta": 0.2},
    {"threshold": "top_m", "top_m": 2, "importance": "uniform"},
    {"ld_form": "ranked", "fusion": "scalar"},
    {"ld_form": "relative", "fusion": "vector"},
    {"ld_form": "orthogonal", "fusion": "gate"},
    {"fusion": "linear", "contrast_on": "raw"},
    {"fusion": "interest", "centroid": "importance"},
    {"fusion": "intent", "detach_items": True},
    {"temperature": 0.2, "cosine": True},
]


def data_module(users: list[list[int]] = USERS, **options: Any) -> SequenceDataModule:
    settings: dict[str, Any] = {"layout": "prefix", "window": WINDOW, "batch_size": 32} | options
    return SequenceDataModule(build_dataset("x", users, 10), **settings)


def build_model(data: SequenceDataModule, **arguments: Any) -> IDCLRec:
    """A method in float64, with weights large enough to tell positions apart."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {**SHAPE, "layout": data.layout, **arguments}
    model = IDCLRec(10, data.n_users, **settings).double()
    for parameter in [*model.encoder.parameters(), *model.disentangle.attention.parameters()]:
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        model.item_table()[0] = 0
    model.prepare(data.training())
    return model


def first_batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def backward(total: Tensor) -> None:
    total.backward()  # type: ignore[no-untyped-call]


def train(model: IDCLRec | SASRec, data: SequenceDataModule, steps: int) -> list[float]:
    optimizer = model.configure_optimizers()
    values = []
    for _ in range(steps):
        total = model.loss(first_batch(data))["total"]
        optimizer.zero_grad()
        backward(total)
        optimizer.step()
        values.append(float(total.detach()))
    return values


def spied_partners(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The prefixes that get encoded as partners from now on."""
    seen: list[Tensor] = []
    encode = Prefixes.encode

    def spy(
        self: Prefixes, prefixes: Tensor, function: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        seen.append(prefixes)
        return encode(self, prefixes, function)

    monkeypatch.setattr(Prefixes, "encode", spy)
    return seen


def _slow_row(model: IDCLRec, items: list[int], following: int) -> dict[str, Any]:
    """What the defaults read of one prefix, position by position."""
    table = model.item_table()
    states = model.encoder(torch.tensor([items]))[0]
    attention = model.disentangle.attention
    query, key = states @ attention.query.weight.T, states @ attention.key.weight.T
    value = states @ attention.value.weight.T
    interests = torch.stack(
        [
            (query[t] @ key[: t + 1].T / math.sqrt(WIDTH)).softmax(0) @ value[: t + 1]
            for t in range(len(items))
        ]
    )
    intents = states - interests
    last = len(items) - 1
    delta = model.disentangle.category.delta
    inside = [
        j for j in range(last) if cosine_similarity(intents[j], intents[last], dim=0) >= delta
    ] + [last]
    chosen = intents[inside]
    scores = (chosen @ chosen.T / math.sqrt(WIDTH)).mean(1)
    intent = scores.softmax(0) @ chosen
    return {
        "intent": intent,
        "query": interests[last] + intent,
        "centroid": table[[items[j] for j in inside]].mean(0),
        "changes": [
            1 - cosine_similarity(intents[t], intents[t - 1], dim=0) for t in range(1, len(items))
        ],
        "members": len(inside),
        "following": following,
    }


def _slow_contrast(first: list[Tensor], second: list[Tensor], targets: list[int]) -> Tensor:
    rows, count = first + second, len(first)
    terms = []
    for a, row in enumerate(rows):
        positive = row @ rows[(a + count) % (2 * count)]
        rivals = [
            row @ rows[b] for b in range(len(rows)) if targets[a % count] != targets[b % count]
        ]
        terms.append(torch.stack([positive, *rivals]).logsumexp(0) - positive)
    return torch.stack(terms).mean()


def slow_loss(model: IDCLRec, batch: SequenceBatch, partners: Tensor) -> dict[str, Tensor]:
    assert model.prefixes is not None
    items, lengths = model.prefixes.windows(partners)
    own = [
        _slow_row(model, row[:n].tolist(), target)
        for row, n, target in zip(batch.items, batch.lengths, batch.labels.tolist(), strict=True)
    ]
    other = [_slow_row(model, row[:n].tolist(), -1) for row, n in zip(items, lengths, strict=True)]
    targets = [row["following"] for row in own]
    scores = torch.stack([row["query"] for row in own]) @ model.item_table()[1:].T
    changes = torch.stack([change for row in own for change in row["changes"]])
    views = [
        _slow_contrast([r["intent"] for r in rows], [r["centroid"] for r in rows], targets)
        for rows in (own, other)
    ]
    assert 1 < sum(row["members"] for row in own) / len(own) < float(lengths.double().mean())
    return {
        "recommendation": cross_entropy(scores, torch.tensor(targets) - 1),
        "adjustment": changes.mean(),
        "intent_intent": _slow_contrast(
            [row["intent"] for row in own], [row["intent"] for row in other], targets
        ),
        "intent_item": (views[0] + views[1]) / 2,
    }
