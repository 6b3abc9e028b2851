"""KAR: experts and gates, and that what texts know enters training and scores alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.errors import RequestError
from intentbench.contracts.subject import quiet_trainer
from intentbench.models import graph_text
from intentbench.models.kar import KAR, ExpertAdaptor
from intentbench.models.lightgcn import LightGCN
from tests.models.add_ons import (
    BASES,
    NARROW,
    TEXTS,
    build,
    first_batch,
    pairs,
    propagated,
    ready,
    scores_of,
    trained,
)


def _experts(adaptor: ExpertAdaptor) -> list[nn.Module]:
    return [*adaptor.shared, *adaptor.users, *adaptor.items]


def _silence(model: KAR, bias: float = 0.0) -> None:
    """Experts that say the same of any text."""
    for expert in _experts(model.adaptor):
        assert isinstance(expert, nn.Sequential)
        last = expert[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, bias)


@pytest.mark.parametrize("base", BASES)
def test_experts_that_say_nothing_leave_the_base_method(base: str) -> None:
    plain = ready(KAR, base=base, base_arguments=NARROW, **TEXTS)
    _silence(plain)
    alone = plain.base
    batch, terms, tables = first_batch(pairs()), [], []
    for enter in (plain.informed, None):
        alone.enter = enter
        torch.manual_seed(3)
        triples_and_views = alone.views(alone.nodes()), alone.triples(batch)
        terms.append(alone.base_terms(*triples_and_views))
        alone.refresh()
        tables.append((alone.user_table.clone(), alone.item_vectors.clone()))
    assert all(terms[0][name].equal(terms[1][name]) for name in terms[1])
    assert all(a.equal(b) for a, b in zip(*tables, strict=True))
    assert tables[0][0].any()


def test_gates_sum_to_one() -> None:
    model = ready(KAR, base_arguments=NARROW, **TEXTS)
    _silence(model, bias=0.25)
    ids = torch.zeros(model.n_users + model.n_items, 8)
    torch.testing.assert_close(model.informed(ids), torch.full_like(ids, 0.25))


def test_experts_of_a_side_and_shared_ones_are_mixed_by_its_gate() -> None:
    torch.manual_seed(0)
    adaptor = ExpertAdaptor(text_width=5, hidden=7, width=3, shared=2, own=1)
    users, items = torch.randn(4, 5), torch.randn(6, 5)
    found = adaptor(users, items).detach().numpy()
    assert found.shape == (10, 3)
    assert (found < 0).any(), "no ReLU at the end"
    sides = (
        (users, adaptor.user_gate, [*adaptor.shared, *adaptor.users]),
        (items, adaptor.item_gate, [*adaptor.shared, *adaptor.items]),
    )
    expected = [
        _mixed_slowly(text, gate, experts) for texts, gate, experts in sides for text in texts
    ]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)


def _mixed_slowly(text: Tensor, gate: nn.Linear, experts: list[nn.Module]) -> Tensor:
    logits = np.exp(gate(text).detach().numpy())
    total = np.zeros(3)
    for share, expert in zip(logits / logits.sum(), experts, strict=True):
        assert isinstance(expert, nn.Sequential)
        first, second = (
            (layer.weight.detach().numpy(), layer.bias.detach().numpy())
            for layer in expert
            if isinstance(layer, nn.Linear)
        )
        inside = np.maximum(first[0] @ text.numpy() + first[1], 0)
        total = total + share * (second[0] @ inside + second[1])
    return torch.from_numpy(total)


@pytest.mark.parametrize(("shared", "own", "parts"), [(2, 4, 10), (0, 1, 2), (3, 0, 3)])
def test_experts_are_as_many_as_asked_for(shared: int, own: int, parts: int) -> None:
    adaptor = ExpertAdaptor(5, 7, 3, shared, own)
    assert len(_experts(adaptor)) == parts
    assert adaptor(torch.randn(2, 5), torch.randn(3, 5)).isfinite().all()


@pytest.mark.parametrize(("shared", "own"), [(0, 0), (-1, 3), (3, -1)])
def test_a_side_without_experts_is_refused(shared: int, own: int) -> None:
    with pytest.raises(RequestError, match="a side needs an expert"):
        build(KAR, shared_experts=shared, own_experts=own, **TEXTS)


def test_users_are_told_by_their_texts_and_items_by_theirs() -> None:
    model = ready(KAR, base_arguments=NARROW, **TEXTS)
    ids = torch.zeros(model.n_users + model.n_items, 8)
    before = model.informed(ids)
    model.profile_text[3] += 1
    changed = (model.informed(ids) != before).any(1)
    assert changed.nonzero().flatten().tolist() == [3]


def _expected_scores(model: KAR) -> Tensor:
    e = propagated(pairs(), model.informed(torch.cat([model.base.users, model.base.items])), 2)
    return e[: model.n_users] @ e[model.n_users :].T


def _assert_scores_are_informed(model: KAR) -> None:
    found = scores_of(model)[:, 1:].double()
    torch.testing.assert_close(found, _expected_scores(model), atol=1e-6, rtol=1e-4)


def test_tables_hold_what_texts_know_whoever_makes_them() -> None:
    model = ready(KAR, base_arguments=NARROW, **TEXTS)
    _assert_scores_are_informed(model)  # made by `prepare`
    for change in (model.eval, model.base.refresh, model.base.eval):
        nn.init.normal_(model.base.users)
        change()
        _assert_scores_are_informed(model)
        model.train()


def test_training_is_on_what_texts_know() -> None:
    model = ready(KAR, base_arguments={**NARROW, "keep": 1.0}, **TEXTS)
    batch = first_batch(pairs())
    torch.manual_seed(5)
    terms = model.loss(batch)
    torch.manual_seed(5)
    triples = model.base.triples(batch)
    e = propagated(pairs(), model.informed(torch.cat([model.base.users, model.base.items])), 2)
    margins = (e[triples.users] * (e[triples.negatives] - e[triples.positives])).sum(1)
    expected = float(margins.exp().log1p().mean())
    assert float(terms["bpr"].detach()) == pytest.approx(expected, rel=1e-5)
    assert terms.keys() == {"total", "bpr", "l2"}
    terms["bpr"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert model.profile_text.grad is None


def test_a_checkpoint_scores_without_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pairs()
    model = build(KAR, base_arguments=NARROW, **TEXTS)
    trainer = quiet_trainer(2, enable_checkpointing=True, default_root_dir=tmp_path)
    trainer.fit(model, data)
    (saved,) = tmp_path.rglob("*.ckpt")
    monkeypatch.setattr(graph_text, "find_texts", None)
    loaded = KAR.load_from_checkpoint(saved, weights_only=True).eval()
    batch = next(iter(data.test_dataloader()))
    users = _expected_scores(model.eval())[batch.users]
    torch.testing.assert_close(loaded.score(batch)[:, 1:].double(), users, atol=1e-6, rtol=1e-4)


def test_experts_draw_nothing_from_the_global_generator() -> None:
    build(LightGCN, **NARROW)
    alone = torch.get_rng_state()
    build(KAR, base_arguments=NARROW, **TEXTS)
    assert torch.get_rng_state().equal(alone)
    model, _, _ = trained(lambda: build(KAR, base_arguments=NARROW, **TEXTS), epochs=1)
    assert model.base.enter is not None
