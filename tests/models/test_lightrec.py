"""LightRec: what its specification says must hold."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.models import lightrec
from intentbench.models.lightrec import LightRec


def _data(batch_size: int = 64) -> SequenceDataModule:
    return SequenceDataModule(planted_cycles(), layout="pair", batch_size=batch_size)


def _model(data: SequenceDataModule, **arguments: Any) -> LightRec:
    torch.manual_seed(0)
    settings = {"width": 8, "books": 3, "words": 5, "negatives": 4, "top": 6} | arguments
    model = LightRec(data.n_items, data.n_users, **settings)
    model.prepare(data.training())
    with torch.no_grad():
        model.on_epoch()
    return model


def _batch(data: SequenceDataModule) -> SequenceBatch:
    return next(iter(data.train_dataloader()))


def _slow_words(model: LightRec, vector: Tensor) -> list[int]:
    """The words of one item, by the equations."""
    words: list[int] = []
    for book in range(model.books):
        if words:
            vector = (vector - model.codebooks[book - 1, words[-1]]) @ model.onward
        logits = [vector @ model.match[book] @ word for word in model.codebooks[book]]
        words.append(max(range(model.words), key=lambda w: float(logits[w])))
    return words


# items as words --------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("books", [1, 3])
def test_words_are_selected_by_the_equations(books: int) -> None:
    model = _model(_data(), books=books)
    codes = model.codes()
    assert codes.shape == (model.n_items + 1, books)
    for item in range(1, model.n_items + 1):
        assert codes[item].tolist() == _slow_words(model, model.items.weight[item])
    assert len({tuple(row) for row in codes.tolist()}) > 3


def test_an_item_is_exactly_one_word_of_each_codebook() -> None:
    """Hard, to the bit, also in training: no trace of the softmax is left in the values."""
    model = _model(_data(), words=3)
    model.train()
    table = model.item_table()
    assert table.requires_grad
    words = model.codes().tolist()
    for item, (first, second, third) in enumerate(words):
        books = model.codebooks.detach()
        assert table[item].equal(books[0, first] + books[1, second] + books[2, third])
    assert table.equal(model.rebuild(model.codes()))
    assert len({tuple(row) for row in words}) > 3


def test_without_gradients_the_softmax_is_not_made_and_the_values_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _model(_data())
    table = model.item_table()
    monkeypatch.setattr(lightrec, "softmax", None)
    with pytest.raises(TypeError):
        model.item_table()
    codes = model.codes()  # it asks for no gradient
    with torch.no_grad():
        assert model.item_table().equal(table)
        assert model.rebuild(codes).equal(table)


def test_a_few_items_are_quantised_as_the_whole_catalogue_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Values and gradients, and only as many rows as are asked for."""
    model = _model(_data())
    rows, select = [], model._select

    def counted(vectors: Tensor) -> tuple[Tensor, Tensor]:
        rows.append(len(vectors))
        return select(vectors)

    monkeypatch.setattr(model, "_select", counted)
    catalogue = model.n_items + 1
    few = torch.tensor([[3, 1], [4, 1], [5, 9]])
    many = few.repeat(1, catalogue)
    for items in (few, many):
        weights = torch.randn(*items.shape, 8)
        found = model._quantised(items)
        expected = model.item_table()[items]
        torch.testing.assert_close(found, expected)
        pairs = zip(
            _gradients(model, (found * weights).sum()),
            _gradients(model, (expected * weights).sum()),
            strict=True,
        )
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert rows == [5, catalogue, 5, catalogue]  # 1 stands there twice


@torch.no_grad()
@pytest.mark.parametrize("words", [2, 5, 8])
def test_codebooks_and_the_stated_bits_rebuild_the_catalogue(words: int) -> None:
    model = _model(_data(), words=words)
    bits = model.bits_per_item
    assert bits == 3 * math.ceil(math.log2(words))
    each = bits // 3
    packed = [sum(word << each * b for b, word in enumerate(row)) for row in model.codes().tolist()]
    assert all(number < 2**bits for number in packed)
    unpacked = [[number >> each * b & (1 << each) - 1 for b in range(3)] for number in packed]
    table = model.item_table()
    torch.nn.init.normal_(model.items.weight)  # the full vectors are not needed any more
    assert not model.item_table().equal(table)
    assert model.rebuild(torch.tensor(unpacked)).equal(table)


def test_published_setting_takes_32_bits_an_item() -> None:
    assert LightRec(10, 4).bits_per_item == 32


# gradients -------------------------------------------------------------------------------------


def test_gradients_reach_all_codebooks_and_the_full_vectors() -> None:
    """Through the sums alone: words that no item has are reached by the softmax."""
    model = _model(_data())
    table = model.item_table()[1:]
    (table * torch.randn(table.shape)).sum().backward()  # type: ignore[no-untyped-call]
    assert model.codebooks.grad is not None
    assert (model.codebooks.grad.abs().sum(2) > 0).all()  # every word of every book
    for parameter in (model.items.weight, model.match, model.onward):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
    assert model.items.weight.grad is not None
    assert (model.items.weight.grad[1:].abs().sum(1) > 0).all()
    assert not model.items.weight.grad[0].any()


def test_straight_through_gradient_is_that_of_hard_values_and_soft_weights() -> None:
    """For one codebook: y = onehot - sg(softmax) + softmax, as the reference code writes it."""
    model = _model(_data(), books=1, temperature=0.7)
    weights = torch.randn(model.n_items + 1, 8)
    found = _gradients(model, (model.item_table() * weights).sum())
    logits = model.items.weight @ model.match[0] @ model.codebooks[0].T
    soft = (logits / 0.7).softmax(1)
    hard = torch.nn.functional.one_hot(logits.argmax(1), model.words).float()
    sums = (hard - soft.detach() + soft) @ model.codebooks[0]
    expected = _gradients(model, (sums * weights).sum())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def _gradients(model: LightRec, value: Tensor) -> tuple[Tensor, ...]:
    parameters = (model.codebooks, model.match, model.items.weight)
    return torch.autograd.grad(value, parameters, retain_graph=True)


def test_every_parameter_takes_a_gradient() -> None:
    data = _data()
    model = _model(data)
    model.loss(_batch(data))["total"].backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


# the loss --------------------------------------------------------------------------------------


@torch.no_grad()
def test_loss_equals_its_equation() -> None:
    data = _data()
    model = _model(data, l2=0.1, distillation=0.3, distillation_temperature=0.5)
    torch.nn.init.normal_(model.users.weight)
    batch = _batch(data)
    assert model.sampler is not None
    torch.manual_seed(3)
    terms = {name: float(value) for name, value in model.loss(batch).items()}
    torch.manual_seed(3)
    negatives = model.sampler.sample(batch.users, 4)
    sums, full = model.item_table().double(), model.items.weight.double()
    bpr, plain, distilled, squares = [], [], [], []
    for row, user in enumerate(batch.users.tolist()):
        p, i = model.users.weight[user].double(), int(batch.labels[row])
        for j in negatives[row].tolist():
            bpr.append(-(p @ sums[i] - p @ sums[j]).sigmoid().log())
            plain.append(-(p @ full[i] - p @ full[j]).sigmoid().log())
        top = model.top[user]
        wanted = (full[top] @ p / 0.5).softmax(0)
        distilled.append(-(wanted * (sums[top] @ p / 0.5).softmax(0).log()).sum())
        items = [i, *negatives[row].tolist()]
        squares.append(p @ p + sums[items].square().sum() + full[items].square().sum())
    expected = {
        "bpr": float(torch.stack(bpr).mean()),
        "full": float(torch.stack(plain).mean()),
        "distillation": float(torch.stack(distilled).mean()),
        "l2": 0.05 * float(torch.stack(squares).mean()),
    }
    expected["total"] = (
        expected["bpr"] + expected["full"] + expected["l2"] + 0.3 * expected["distillation"]
    )
    assert terms == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_lists_are_the_items_that_full_vectors_rank_first() -> None:
    model = _model(_data())
    scores = model.users.weight @ model.items.weight[1:].T
    for user in range(model.n_users):
        best = 1 + scores[user].argsort(descending=True)[:6]
        assert {*model.top[user].tolist()} == {*best.tolist()}
    assert "top" not in model.state_dict()


def test_distillation_leaves_the_teacher_alone() -> None:
    """Its gradient reaches the full vectors by way of the words they select, and no other."""
    model = _model(_data())
    users, top = model.users(torch.arange(10)), model.top[:10]
    table = model.item_table()
    value = model._distil(users, model.items(top), table[top])
    weight = model.items.weight
    by_words, all_ways = torch.autograd.grad(value, [table, weight], retain_graph=True)
    assert all_ways.any()
    assert all_ways.equal(torch.autograd.grad(table, weight, by_words)[0])
    fixed = model._distil(users, model.items(top), table.detach()[top])
    assert torch.autograd.grad(fixed, [users, weight], allow_unused=True)[1] is None


def test_without_its_weight_nothing_is_distilled() -> None:
    data = _data()
    model = _model(data, distillation=0.0)
    assert not model.top.any()
    assert "distillation" not in model.loss(_batch(data))


# ranking and training --------------------------------------------------------------------------


@torch.no_grad()
def test_scores_are_products_with_the_sums() -> None:
    data = _data()
    model = _model(data)
    batch = next(iter(data.test_dataloader()))
    expected = model.users.weight[batch.users] @ model.rebuild(model.codes()).T
    scores = model.score(batch)
    # the same vectors, but a product's order of summation is the library's
    torch.testing.assert_close(scores[:, 1:], expected[:, 1:], rtol=0, atol=1e-6)
    assert (scores[:, 0] == -torch.inf).all()


def test_training_orders_what_was_had_before_what_was_not() -> None:
    data = _data(batch_size=256)
    model = _model(data, words=8, l2=1e-5, learning_rate=2e-2)
    optimizer = model.configure_optimizers()
    areas = [_area_under_curve(model, data)]
    for _ in range(60):
        with torch.no_grad():
            model.on_epoch()
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    areas.append(_area_under_curve(model, data))
    assert areas[0] == pytest.approx(0.5, abs=0.05)
    assert areas[1] > 0.9


@torch.no_grad()
def _area_under_curve(model: LightRec, data: SequenceDataModule) -> float:
    """Share of (user, had, not had) triples that are scored in that order; ties count half."""
    scores = model.users.weight @ model.item_table().T
    training = data.training()
    shares = []
    for user in range(data.n_users):
        begin, end = training.offsets[user : user + 2].tolist()
        had = torch.zeros(data.n_items + 1, dtype=torch.bool)
        had[training.items[begin:end]] = True
        not_had = ~had
        not_had[0] = False
        difference = scores[user, had][:, None] - scores[user, not_had]
        shares.append(float((difference.sign() / 2 + 0.5).mean()))
    return sum(shares) / len(shares)


def test_loss_without_the_training_events_says_what_is_missing() -> None:
    data = _data()
    with pytest.raises(RuntimeError, match="prepare"):
        LightRec(data.n_items, data.n_users).loss(_batch(data))
