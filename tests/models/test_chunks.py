"""Catalogues too large for one piece are ranked a chunk at a time, with the same result."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.types import PAD, Batch, EvaluationBatch
from intentbench.metrics.ranks import masked_scores
from intentbench.models import base
from intentbench.models.base import Recommender

CHUNK = 65536
"""The default of `ranks_from_vectors`."""

N_ITEMS, ROWS, WIDTH = 2 * CHUNK + 500, 24, 4
EDGES = [1, 2, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, N_ITEMS]


class Toy(Recommender):
    """Scores by vectors of small whole numbers: sums are exact and ties are many."""

    def __init__(self, n_items: int, n_users: int) -> None:
        super().__init__(n_items, n_users)
        random = torch.Generator().manual_seed(0)
        self.table_of_items = torch.randint(-3, 4, (n_items + 1, WIDTH), generator=random).float()

    def encode(self, batch: Batch) -> Tensor:
        """The vector of the first item of a row."""
        return self.table_of_items[batch.items[:, 0]]

    def item_table(self) -> Tensor:
        """All vectors."""
        return self.table_of_items


class OwnScore(Toy):
    """One that scores in a way of its own, which chunks know nothing of."""

    def score(self, batch: EvaluationBatch) -> Tensor:
        """Higher numbers are better."""
        return torch.arange(self.n_items + 1.0).repeat(len(batch.users), 1)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is untyped
    """The most numbers that any one result had."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def batch_of(targets: list[int]) -> EvaluationBatch:
    """Targets and histories in every chunk and at their edges; one row hides its own target."""
    random = torch.Generator().manual_seed(1)
    rows = len(targets)
    target = torch.tensor(targets)
    history = torch.randint(1, N_ITEMS + 1, (rows, 40), generator=random)
    history[:, :7] = torch.tensor(EDGES)
    history[history == target[:, None]] = PAD
    history[0, 3] = target[0]
    items = torch.randint(1, N_ITEMS + 1, (rows, 1), generator=random)
    one, row = torch.ones(rows, dtype=torch.int64), torch.arange(rows)
    return EvaluationBatch(
        users=row,
        items=items,
        lengths=one,
        select=row,
        groups=((0, rows, 1),),
        history=history,
        masked=history,
        target=target,
        key=row,
    )


TARGETS = [*EDGES, PAD, *range(3, N_ITEMS, N_ITEMS // (ROWS - len(EDGES) - 1))][:ROWS]


def ranks(model: Recommender, batch: EvaluationBatch) -> list[int]:
    model.test_step(batch, 0)
    found: list[int] = model.test_ranks.compute().rank.tolist()
    model.test_ranks.reset()
    return found


def test_ranks_and_lists_in_chunks_are_those_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = Toy(N_ITEMS, ROWS), batch_of(TARGETS)
    monkeypatch.setattr(base, "ONE_PIECE", N_ITEMS)
    whole, (_, scores) = ranks(model, batch), model.recommend(batch, 50)
    assert whole[0] == whole[TARGETS.index(PAD)] == N_ITEMS
    assert len(set(whole)) > ROWS // 2
    monkeypatch.setattr(base, "ONE_PIECE", N_ITEMS - 1)
    assert ranks(model, batch) == whole
    chunked, values = model.recommend(batch, 50)
    assert values.equal(scores)
    everything = masked_scores(model.score(batch), batch.masked)
    assert everything.gather(1, chunked).equal(scores)  # which of equal ones is left open
    assert all(len(row.unique()) == 50 for row in chunked)


def test_nothing_of_the_size_of_users_times_items_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = Toy(N_ITEMS, ROWS), batch_of(TARGETS)
    monkeypatch.setattr(base, "ONE_PIECE", N_ITEMS - 1)
    with Largest() as made:
        ranks(model, batch)
        model.recommend(batch, 50)
    assert made.numbers <= max(ROWS * (CHUNK + 1), model.item_table().numel())
    monkeypatch.setattr(base, "ONE_PIECE", N_ITEMS)
    with Largest() as made:
        ranks(model, batch)
    assert made.numbers == ROWS * (N_ITEMS + 1)  # it would have been seen


def test_a_score_of_its_own_is_used_whatever_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = OwnScore(N_ITEMS, ROWS), batch_of([N_ITEMS, N_ITEMS - 1])
    monkeypatch.setattr(base, "ONE_PIECE", 1)
    hidden = batch.masked[0, 3]
    assert hidden == N_ITEMS
    assert ranks(model, batch) == [
        N_ITEMS,
        1,
    ]  # the first is hidden, and so is what beats the second
    best = model.recommend(batch, 1)[0][:, 0].tolist()
    assert best == [N_ITEMS - 1, N_ITEMS - 1]
