"""Intents are collected at the right events, and signs of trouble are seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import build_dataset, planted_cycles
from intentbench.contracts.subject import quiet_trainer
from intentbench.models.card import Card
from intentbench.models.intent import IntentRecommender, Intents
from intentbench.models.intentrec import IntentRec
from intentbench.nn.grouping import encode_groups
from intentbench.runner.inspection import intent_frame, measure_intents
from intentbench.runner.intents import IntentTable, collect_intents
from intentbench.runner.signs import SignWatch, measure_signs, name_overfitting, name_signs

SEQUENCES = [[3, 1, 4, 1, 5, 9, 2, 6], [5], [2, 7, 1], [8, 2, 8, 1]]
WINDOW = 4


class Means(IntentRecommender):
    """The behaviour is the running mean of the window's items; the intent is the last item."""

    CARD = Card(title="Means", paper="", code="", tiny={})

    def __init__(self, n_items: int, n_users: int, collapse: bool = False) -> None:
        super().__init__(n_items, n_users)
        torch.manual_seed(0)
        self.items = nn.Embedding(n_items + 1, 5, padding_idx=0)
        self.collapse = collapse

    def encode(self, batch: SequenceBatch) -> Tensor:  # type: ignore[override]
        return encode_groups(batch, self.items)[batch.select]

    def item_table(self) -> Tensor:
        return self.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return {"total": self.encode(batch).square().mean()}

    def intents(self, batch: SequenceBatch) -> Intents:
        def means(items: Tensor) -> Tensor:
            count = torch.arange(1, items.shape[1] + 1)[:, None]
            states: Tensor = self.items(items)
            return states.cumsum(1) / count

        states = encode_groups(batch, means)[batch.select]
        vectors = self.encode(batch)
        if self.collapse:
            vectors = torch.ones_like(vectors)
        return Intents(vectors, states, interests=states - vectors)


def collected(users: list[int] | None = None) -> tuple[IntentTable, Means]:
    dataset = build_dataset("x", SEQUENCES, 9)
    model = Means(9, len(SEQUENCES)).eval()
    rows = np.arange(len(SEQUENCES)) if users is None else np.array(users)
    return collect_intents(model, dataset, WINDOW, rows), model


def test_every_event_is_there_once_with_its_item_and_state() -> None:
    table, model = collected()
    expected = [(u, p, item) for u, row in enumerate(SEQUENCES) for p, item in enumerate(row)]
    columns = (table.user.tolist(), table.position.tolist(), table.item.tolist())
    assert [*zip(*columns, strict=True)] == expected
    for row, (user, position, item) in enumerate(expected):
        window = SEQUENCES[user][max(0, position + 1 - WINDOW) : position + 1]
        mean = model.items(torch.tensor(window)).mean(0)
        torch.testing.assert_close(torch.from_numpy(table.states[row]), mean)
        assert torch.from_numpy(table.vectors[row]).equal(model.items.weight[item])


def test_some_users_alone() -> None:
    whole, _ = collected()
    part, _ = collected([3, 0])
    keep = np.isin(whole.user, [0, 3])
    assert (part.states == whole.states[keep]).all()
    assert part.user.tolist() == whole.user[keep].tolist()


def test_last_of_users_stands_before_the_test_item() -> None:
    table, _ = collected()
    last = table.last_of_users()
    assert [*zip(last.user.tolist(), last.position.tolist(), strict=True)] == [
        (0, 6),
        (1, 0),
        (2, 1),
        (3, 2),
    ]


def test_last_positions_alone_equal_those_of_all() -> None:
    whole, model = collected()
    users = np.array([3, 0, 1])
    alone = collect_intents(model, whole.dataset, WINDOW, users, last=True)
    expected = whole.last_of_users()
    expected = expected.take(np.flatnonzero(np.isin(expected.user, users)))
    for name in ("user", "position", "item", "vectors", "states", "interests", "view"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(expected, name), name)
    assert alone.user.tolist() == [0, 1, 3]


def test_frame_has_original_ids_and_vectors() -> None:
    table, _ = collected()
    frame = intent_frame(table)
    assert frame.columns == ["user", "position", "item", "intent", "vector", "interest"]
    assert frame["item"].to_list() == [str(item) for row in SEQUENCES for item in row]
    assert frame["vector"].to_numpy().shape == (len(table.user), 5)


def test_numbers_of_parts_that_sum_to_the_whole() -> None:
    data = planted_cycles()
    model = Means(data.n_items, data.n_users).eval()
    module = SequenceDataModule(data, window=WINDOW)
    table = collect_intents(model, data, WINDOW, np.arange(data.n_users))
    numbers = measure_intents(table, model, module)
    assert numbers["positions"] == len(data.items)
    assert numbers["categories_used"] == 8
    relation = numbers["interest_and_intent"]
    assert 0 <= relation["linear_cka"] <= 1
    assert numbers["ndcg@20"]["intent alone"] == pytest.approx(_ndcg(model, module), abs=1e-6)
    assert len(numbers["interest"]["lag_cosines"]) == 10


def _ndcg(model: Means, module: SequenceDataModule) -> float:
    """NDCG@20 of ranking by the last item's vector, by the method's own test."""

    class Last(Means):
        def encode(self, batch: SequenceBatch) -> Tensor:  # type: ignore[override]
            last: Tensor = self.items(batch.items.gather(1, batch.lengths[:, None] - 1).squeeze(1))
            return last

    last = Last(model.n_items, model.n_users)
    quiet_trainer(1).test(last, module, verbose=False)
    assert last.table is not None
    rank = last.table.rank
    return float(np.where(rank <= 20, 1 / np.log2(rank + 1), 0).mean())


HEALTHY = {
    "intent_cosine": 0.2,
    "largest_category": 0.3,
    "intent_length": 0.5,
    "interest_length": 0.5,
    "effective_rank": 20.0,
    "state_cosine": 0.3,
    "view_match": 4.0,
    "attention_entropy": 0.8,
}


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"intent_cosine": 0.97}, "intent collapse"),
        ({"largest_category": 0.95}, "intent collapse"),
        ({"intent_length": 0.01}, "zero residual"),
        ({"interest_length": 0.01}, "zero interest"),
        ({"effective_rank": 1.2}, "representation collapse"),
        ({"state_cosine": 0.99}, "representation collapse"),
        ({"view_match": 1.1}, "intent mismatch of generated views"),
        ({"attention_entropy": 0.995}, "attention collapse"),
    ],
)
def test_each_sign_is_named(change: dict[str, float], sign: str) -> None:
    assert name_signs(HEALTHY) == []
    seen = name_signs({**HEALTHY, **change})
    assert len(seen) == 1
    assert seen[0].startswith(sign)


def test_overfitting_needs_both_a_fall_and_a_falling_loss() -> None:
    assert name_overfitting([0.1, 0.2, 0.15], [3.0, 2.0, 1.0])
    assert not name_overfitting([0.1, 0.2, 0.19], [3.0, 2.0, 1.0])
    assert not name_overfitting([0.1, 0.2, 0.15], [3.0, 2.0, 2.5])
    assert not name_overfitting([0.2], [1.0])


@pytest.mark.parametrize("collapse", [False, True])
def test_signs_are_seen_while_training(collapse: bool) -> None:
    data = planted_cycles()
    watch = SignWatch("ndcg@10")
    model = Means(data.n_items, data.n_users, collapse)
    trainer = quiet_trainer(2, limit_val_batches=1.0, callbacks=[watch])
    trainer.fit(model, SequenceDataModule(data, window=WINDOW))
    found = [sign for sign in watch.signs if sign.startswith("intent collapse")]
    assert bool(found) == collapse
    assert model.training


@pytest.mark.parametrize("epochs", [1, 3])
def test_attention_that_tells_no_intent_apart_is_seen_while_training(epochs: int) -> None:
    class Uniform(Means):
        def on_train_epoch_end(self) -> None:
            self.log("train/attention_entropy", 0.999)

        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            self.log("val/rising", float(self.current_epoch))  # the last epoch is the best

    data = planted_cycles()
    watch = SignWatch("rising")
    trainer = quiet_trainer(epochs, limit_val_batches=1.0, callbacks=[watch])
    trainer.fit(Uniform(data.n_items, data.n_users), SequenceDataModule(data, window=WINDOW))
    seen = any(sign.startswith("attention collapse") for sign in watch.signs)
    assert seen == (epochs > 1), "what is known is that of the epoch before"


def test_the_only_category_is_no_sign() -> None:
    table, _ = collected()
    one = replace(table, intent=np.zeros_like(table.intent), own=True)
    assert measure_signs(one)["largest_category"] == 1
    assert measure_signs(one, several=False)["largest_category"] == 0


def test_a_variant_without_intents_is_left_alone() -> None:
    data = planted_cycles()
    watch = SignWatch("ndcg@10")
    model = IntentRec(
        data.n_items, data.n_users, WINDOW, intents=(), short_term_window=None, width=8, blocks=1
    )
    trainer = quiet_trainer(1, limit_val_batches=1.0, callbacks=[watch])
    trainer.fit(model, SequenceDataModule(data, window=WINDOW))
    assert trainer.current_epoch == 1
    assert watch.signs == []
    assert model.training


def test_watching_leaves_training_as_it_is() -> None:
    data, states = planted_cycles(), []
    for callbacks in ([], [SignWatch("ndcg@10")]):
        model = Means(data.n_items, data.n_users)
        torch.manual_seed(1)
        trainer = quiet_trainer(2, limit_val_batches=1.0, callbacks=callbacks)
        trainer.fit(model, SequenceDataModule(data, window=WINDOW))
        states.append((model.items.weight.detach().clone(), torch.get_rng_state()))
    assert states[0][0].equal(states[1][0])
    assert states[0][1].equal(states[1][1])


def test_measures_need_no_interests_or_views() -> None:
    table, _ = collected()
    bare = IntentTable(
        table.dataset,
        table.user,
        table.position,
        table.item,
        table.vectors,
        table.states,
        table.intent,
        own=True,
    )
    assert {"interest_length", "view_match"}.isdisjoint(measure_signs(bare))
