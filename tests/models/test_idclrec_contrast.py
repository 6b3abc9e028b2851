"""IDCLRec: its loss against loops over rows, its contrasts, and how failures show."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from intentbench.models.idclrec import IDCLRec
from tests.models.idclrec_reference import (
    SWITCHES,
    USERS,
    WIDTH,
    backward,
    build_model,
    data_module,
    first_batch,
    slow_loss,
    spied_partners,
    train,
)


def test_loss_and_gradients_equal_loops_over_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_module()
    model, batch = build_model(data, delta=0.5), first_batch(data)
    partners = spied_partners(monkeypatch)
    found = model.loss(batch)
    slow = slow_loss(model, batch, partners[0])
    for name, term in slow.items():
        torch.testing.assert_close(found[name], term, atol=1e-10, rtol=0)
    total = (
        slow["recommendation"]
        + 0.1 * slow["adjustment"]
        + 0.5 * slow["intent_intent"]
        + 0.1 * slow["intent_item"]
    )
    names = dict(model.named_parameters())
    fast = torch.autograd.grad(found["total"], [*names.values()])
    expected = torch.autograd.grad(total, [*names.values()])
    for name, one, other in zip(names, fast, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0, msg=name)


def test_partners_have_the_same_next_item_and_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_module()
    model, batch = build_model(data), first_batch(data)
    assert model.prefixes is not None
    partners = spied_partners(monkeypatch)
    shares = [model.loss(batch)["same_user"] for _ in range(10)]
    own = model.prefixes.numbers(batch.users, batch.key)
    targets = model.prefixes.target
    for drawn, share in zip(partners, shares, strict=True):
        assert targets[drawn].equal(batch.labels)
        for one, other in zip(own.tolist(), drawn.tolist(), strict=True):
            assert one != other or int((targets == targets[one]).sum()) == 1
        same = sum(
            int(model.prefixes.users[o]) == int(u) for o, u in zip(drawn, batch.users, strict=True)
        )
        assert float(share) == pytest.approx(same / len(own))


def test_rows_with_one_next_item_are_no_negatives() -> None:
    data = data_module([[a, b, 5, 8, 9] for a, b in ((1, 2), (3, 4), (6, 7), (2, 1))])
    model = build_model(data)
    batch = first_batch(data)
    alike = batch.labels == 5
    part = replace(
        batch,
        users=batch.users[alike],
        items=batch.items[alike],
        lengths=batch.lengths[alike],
        targets=batch.targets[alike],
        labels=batch.labels[alike],
        key=batch.key[alike],
        groups=((0, int(alike.sum()), 2),),
    )
    terms = model.loss(part)
    assert terms["intent_intent"] == terms["intent_item"] == 0


def test_order_of_rows_is_free() -> None:
    data = data_module(
        [[1, 2, 3, 4, 5, 9, 9], [6, 4, 2, 7, 5, 9, 9], [3, 8, 1, 9, 7, 9, 9]], layout="all"
    )
    model, batch = build_model(data, augmentation="dropout_only"), first_batch(data)
    assert batch.lengths.tolist() == [4, 4, 4]
    order = torch.tensor([2, 0, 1])
    names = ("users", "items", "lengths", "targets", "key")
    moved: dict[str, Any] = {name: getattr(batch, name)[order] for name in names}
    moved["labels"] = moved["targets"].flatten()
    terms, other = model.loss(batch), model.loss(replace(batch, **moved))
    for name, value in terms.items():
        torch.testing.assert_close(other[name], value, msg=name)


def _centroids(model: IDCLRec, items: list[int]) -> tuple[Tensor, float]:
    rows, lengths = torch.tensor([items]), torch.tensor([sum(item != 0 for item in items)])
    vectors = model.encoder.items(rows)
    view = model._view(rows, vectors, model._read(vectors, lengths))[0].detach()
    return view[WIDTH:-1], float(view[-1])


def test_centroid_is_of_the_items_of_the_category() -> None:
    alone = build_model(data_module(), delta=1.5)
    table = alone.item_table().detach()
    centroid, missing = _centroids(alone, [4, 7, 2])
    torch.testing.assert_close(centroid, table[2])
    assert missing == pytest.approx(0)
    torch.testing.assert_close(_centroids(alone, [4, 7, 2, 0, 0])[0], table[2])
    whole = build_model(data_module(), threshold="none")
    torch.testing.assert_close(_centroids(whole, [4, 7, 2, 0])[0], table[[4, 7, 2]].mean(0))
    following = build_model(data_module(), threshold="none", centroid_items="next")
    centroid, missing = _centroids(following, [4, 7, 2, 0])
    torch.testing.assert_close(centroid, table[[7, 2]].sum(0) / 3)
    assert missing == pytest.approx(1 / 3)
    weighted = build_model(data_module(), threshold="none", centroid="importance")
    reading = weighted._read(table[None, [4, 7, 2]], torch.tensor([3]))
    expected = (reading.weights[0, 0, :, None] * table[[4, 7, 2]]).sum(0).detach()
    torch.testing.assert_close(_centroids(weighted, [4, 7, 2])[0], expected)


def test_target_enters_the_contrast_with_next_items_only() -> None:
    """In rows of different targets, only the centroids could tell which targets they are."""
    data = data_module([[1, 2, 3, 9, 9], [4, 5, 6, 9, 9]], batch_size=4)
    batch = first_batch(data)
    last = batch.lengths[:, None] - 1
    changed = torch.tensor([{2: 7, 3: 8, 5: 9, 6: 10}[int(label)] for label in batch.labels])
    other = replace(batch, labels=changed, targets=batch.targets.scatter(1, last, changed[:, None]))
    for items, same in (("consumed", True), ("next", False)):
        model = build_model(data, centroid_items=items, augmentation="dropout_only")
        first, second = model.loss(batch)["intent_item"], model.loss(other)["intent_item"]
        assert torch.allclose(first, second, atol=1e-12) == same


def test_gradients_of_each_contrast() -> None:
    data = data_module([[1, 2, 3, 9, 9], [4, 5, 6, 9, 9]])
    items: list[Tensor] = []
    for detach in (False, True):
        model = build_model(data, delta=1.5, detach_items=detach, augmentation="dropout_only")
        for parameter in model.encoder.blocks.parameters():
            parameter.requires_grad_(False)
        backward(model.loss(first_batch(data))["intent_item"])
        gradient = model.item_table().grad
        assert gradient is not None
        items.append(gradient)
        assert model.encoder.positions.weight.grad is not None
    direct = (items[0] - items[1]).abs().sum(1)
    assert {*direct.nonzero().flatten().tolist()} == {1, 2, 4, 5}, "the last items of the inputs"
    model = build_model(data)
    backward(model.loss(first_batch(data))["adjustment"])
    assert not model.item_table().grad[[3, 6, 7, 8, 10]].any()  # type: ignore[index]
    for parameter in model.disentangle.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


def test_collapse_of_the_intents_shows() -> None:
    data = data_module()
    model = build_model(data, lambda_d=100.0, learning_rate=1e-2)
    first = float(model.loss(first_batch(data))["intent_cosine"])
    train(model, data, 60)
    assert first < 0.8
    assert float(model.loss(first_batch(data))["intent_cosine"]) > 0.95


def test_intent_that_vanishes_shows() -> None:
    data = data_module()
    model = build_model(data)
    attention = model.disentangle.attention
    with torch.no_grad():
        attention.get_parameter("value.weight").copy_(torch.eye(WIDTH))
        for projection in (attention.query, attention.key):
            projection.weight.copy_(100 * torch.eye(WIDTH))
        model.encoder.positions.weight.mul_(10)
    terms = model.loss(first_batch(data))
    assert float(terms["intent_norm"]) < 0.1
    assert float(terms["interest_norm"]) == pytest.approx(1, abs=0.1)
    assert terms["total"].isfinite()
    backward(terms["total"])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, None])
def test_nothing_is_no_number(switch: dict[str, Any], kind: torch.dtype | None) -> None:
    """Rows of one item, batches of one, one target for all, and half precision."""
    layout = switch.get("layout", "prefix")
    for users, size in ((USERS, 32), ([[1, 5, 9, 9]] * 3, 32), ([[1, 5, 9, 9]], 1), (USERS, 1)):
        data = data_module(users, batch_size=size, layout=layout)
        model = build_model(data, dropout=0.5, **switch).float()
        batch = first_batch(data)
        with torch.autocast("cpu", kind or torch.bfloat16, enabled=kind is not None):
            terms = model.loss(batch)
        assert all(term.isfinite() for term in terms.values())
        backward(terms["total"])
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
