"""C1 to C3: what a method says about itself."""

import json
import re
import sys
from dataclasses import asdict
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datamodules.catalog import catalog
from datamodules.errors import RequestError
from datamodules.prepare import HISTORY
from intentbench.contracts.arguments import other_values
from intentbench.contracts.checks import CHECKS
from intentbench.contracts.subject import FILLED, Subject
from intentbench.metrics.users import mean_metric
from intentbench.models.base import Recommender
from intentbench.models.card import Published
from intentbench.runner.arguments import construct, resolve_arguments

FIRST_LOSSES = (None, "log_items", "log_2", "bce")


@pytest.mark.contract("C1a")
def test_card_is_complete_and_agrees_with_the_class(subject: Subject) -> None:
    card, arguments = subject.card, set(signature(subject.cls).parameters)
    assert card.title
    assert card.paper, "cite the paper, or say what the method is"
    assert json.loads(json.dumps(card.snapshot())) == json.loads(json.dumps(asdict(card)))
    assert {*card.tiny, *card.effects} <= arguments
    assert not {*card.tiny} & {"n_items", "n_users"}, "these follow from the data"
    assert card.first_loss in FIRST_LOSSES
    assert {*card.expected_failures} <= CHECKS.keys()
    assert all(card.expected_failures.values()), "an expected failure needs its reason"
    for figure in card.published:
        _check_figure(figure, arguments)


def _check_figure(figure: Published, arguments: set[str]) -> None:
    assert figure.dataset in catalog()
    first, history = np.ones(1, dtype=np.int64), HISTORY[catalog()[figure.dataset].recipe.split]
    assert 0 < mean_metric(figure.metric, first, first, history) <= 1, "a metric of that dataset"
    assert 0 < figure.value < 1, "a fraction, not per cent"
    assert figure.source
    assert {*figure.when} <= arguments


@pytest.mark.contract("C1b")
def test_file_key_and_class_have_one_spelling(subject: Subject) -> None:
    module = sys.modules[subject.cls.__module__]
    if subject.key not in getattr(module, "METHODS", {}):  # a plugin of several methods
        file = module.__name__.rpartition(".")[2]
        assert file == subject.key, f"rename the file {file}.py to {subject.key}.py, as its key"
    name = subject.cls.__name__
    assert name.lower() == subject.key.replace("_", ""), (
        f"the class {name} is no other spelling of the key {subject.key!r}: rename the class to "
        f"{subject.key.title().replace('_', '')}, or the key to {_snake(name)!r} (of a file "
        "without METHODS the key is the file's name)"
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@pytest.mark.contract("C2a")
def test_arguments_survive_a_round_trip(subject: Subject) -> None:
    written = {name: value for name, value in subject.card.tiny.items() if name not in FILLED}
    resolved = resolve_arguments(subject.cls, written, subject.key, subject.filled())
    assert resolved.keys() == signature(subject.cls).parameters.keys()
    read = yaml.safe_load(yaml.safe_dump(resolved))
    given = {name: value for name, value in read.items() if name not in FILLED}
    assert resolve_arguments(subject.cls, given, subject.key, subject.filled()) == resolved
    assert dict(construct(subject.cls, read).hparams) == dict(subject.build().hparams)


@pytest.mark.contract("C2b")
def test_unknown_and_ill_typed_arguments_are_refused(subject: Subject) -> None:
    with pytest.raises(RequestError, match="no_such_argument"):
        resolve_arguments(subject.cls, {"no_such_argument": 1}, subject.key, subject.filled())
    for name in signature(subject.cls).parameters:
        if name not in FILLED:
            wrong = {name: {"neither": ["number", "nor", "name"]}}
            with pytest.raises(RequestError, match=name):
                resolve_arguments(subject.cls, wrong, subject.key, subject.filled())


@pytest.mark.contract("C3")
def test_every_argument_changes_something(subject: Subject) -> None:
    """Trained for an epoch from the same seed, other values give another state or other scores."""
    base = subject.fit(epochs=1)
    scores = subject.score(base)
    dead = []
    for name, parameter in signature(subject.cls).parameters.items():
        if name in ("n_items", "n_users") or name in subject.card.effects:
            continue
        value = {**subject.filled(), **subject.card.tiny}.get(name, parameter.default)
        changed = _fit_with_another(subject, name, value)
        if _shapes(changed) == _shapes(base) and subject.score(changed).equal(scores):
            dead.append(name)
    assert not dead, f"without effect: {dead}; if it lies elsewhere, say so in Card.effects"


def _fit_with_another(subject: Subject, name: str, value: Any) -> Recommender:
    for other in other_values(subject.cls, name, value):
        try:
            return subject.fit(epochs=1, changes={name: other})
        except (ValueError, RequestError):  # it does not go with the other arguments
            continue
    pytest.fail(f"{name}: no other value is accepted; if none can be derived, use Card.effects")


def _shapes(model: Recommender) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
