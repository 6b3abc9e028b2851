"""A method's Card: the facts that stand beside its code."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """A figure that somebody published.

    Attributes:
        dataset: catalogue key.
        metric: as in `intentbench.metrics.formulas`, for example "ndcg@10".
        value: the figure, a fraction (not per cent).
        source: paper and table, or repository.
        when: the arguments under which this figure is the one to compare with; a figure without
            conditions fits every variant.
    """

    dataset: str
    metric: str
    value: float
    source: str
    when: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """What a reader, the leaderboard and the contract suite must know of a method.

    Attributes:
        title: name as printed, for example "SASRec".
        paper: citation, with arXiv number or DOI.
        code: reference code (repository and commit), or "" where there is none.
        tiny: arguments with which the contract suite builds the method (fast on 64 users).
        published: figures of others.
        deviations: where this implementation departs from paper or reference code, and why.
        gradient: whether it is trained by gradient descent; otherwise `prepare` is the training.
        deterministic: whether the seed changes nothing.
        causal: whether its states may depend on nothing later than their position (checked).
        fixed_window: whether it reads padding by definition and gets batches of full width.
        personal: whether scores depend on the user's identity (row), not only on the history.
        needs: features that the dataset must have ("timestamps", "actions", "item.category", …).
        frozen: names of parameters that take no gradient.
        first_loss: closed form of the very first loss: "log_items" (log V) or "log_2" (a
            logistic loss, log 2 a term, per (1 + negatives) terms "bce"), or None.
        effects: argument to what it changes, where that is no score, loss or state size
            ("speed", …): the contract suite then does not look for one.
        expected_failures: check, a key of `intentbench.contracts.checks.CHECKS` ("C5b"), to the
            reason why it cannot hold; strict.
    """

    title: str
    paper: str
    code: str
    tiny: Mapping[str, Any]
    published: tuple[Published, ...] = ()
    deviations: tuple[str, ...] = ()
    gradient: bool = True
    deterministic: bool = False
    causal: bool = True
    fixed_window: bool = False
    personal: bool = False
    needs: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    first_loss: str | None = None
    effects: Mapping[str, str] = field(default_factory=dict)
    expected_failures: Mapping[str, str] = field(default_factory=dict)

    def snapshot(self) -> dict[str, Any]:
        """The Card as plain JSON types: stored with each trial, so that pages need no torch."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain
