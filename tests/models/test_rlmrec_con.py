"""RLMRec-Con: its loss against a slow dense one, and that without its weight it is its base."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import leaky_relu, softplus

from intentbench.contracts.subject import same_ranks, same_state
from intentbench.models.graph import GraphRecommender, Triples
from intentbench.models.irllrec import IRLLRec
from intentbench.models.rlmrec_con import RLMRecCon
from tests.models.add_ons import (
    BASES,
    NARROW,
    TEXTS,
    assert_is_its_base,
    build,
    first_batch,
    pairs,
    propagated,
    ready,
    slow_nce,
    trained,
)

WHOLE = {**NARROW, "keep": 1.0}


@pytest.mark.parametrize("base", BASES)
def test_without_weight_it_is_its_base_method(base: str) -> None:
    assert_is_its_base(RLMRecCon, base, weight=0.0)


def test_without_weight_nothing_is_built() -> None:
    model = build(RLMRecCon, weight=0.0, **TEXTS)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"base"}


@pytest.mark.parametrize("mask_same", [True, False])
def test_loss_is_that_of_the_paper(mask_same: bool) -> None:
    model = ready(
        RLMRecCon,
        base_arguments=WHOLE,
        weight=0.3,
        temperature=0.4,
        mask_same=mask_same,
        **TEXTS,
    )
    batch = first_batch(pairs(batch_size=16))
    torch.manual_seed(5)
    terms = {name: float(value.detach()) for name, value in model.loss(batch).items()}
    torch.manual_seed(5)
    triples = model.base.triples(batch)
    e = propagated(pairs(), model.base.nodes(), layers=2)
    bpr, profile = _slow_terms(model, e, triples, mask_same)
    assert terms["bpr"] == pytest.approx(bpr, rel=1e-5)
    assert terms["profile"] == pytest.approx(0.3 * profile, rel=1e-5)
    parts = terms["bpr"] + terms["profile"] + terms["l2"]
    assert terms["total"] == pytest.approx(parts, rel=1e-6)
    assert terms.keys() == {"total", "bpr", "profile", "l2"}


def _slow_terms(
    model: RLMRecCon, e: torch.Tensor, triples: Triples, mask_same: bool
) -> tuple[float, float]:
    first, _, second = (layer.double() for layer in model.tower.layers)
    with torch.no_grad():
        p = second(leaky_relu(first(model.profile_text.double()), 0.01))
    users, positives, negatives = triples.users, triples.positives, triples.negatives
    assert len(torch.unique(positives)) < len(positives), "some item stands there twice"
    margins = [e[u] @ (e[j] - e[i]) for u, i, j in zip(users, positives, negatives, strict=True)]
    everyone = p[: model.n_users]
    profile = np.mean([slow_nce(e[u], everyone, int(u), 0.4) for u in users])
    for items in (positives, negatives):
        losses = []
        for row, item in enumerate(items):
            others = torch.arange(len(items)) != row
            if mask_same:
                others &= items != item
            candidates = torch.cat([p[item][None], p[items[others]]])
            losses.append(slow_nce(e[item], candidates, 0, 0.4))
        profile += np.mean(losses)
    return float(softplus(torch.stack(margins)).mean()), float(profile)


def test_gradients_reach_embeddings_and_tower_and_no_feature() -> None:
    model = ready(RLMRecCon, base_arguments=NARROW, **TEXTS)
    terms = model.loss(first_batch(pairs()))
    terms["profile"].backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert model.profile_text.grad is None


def test_its_weight_shifts_no_negative_and_no_dropped_edge() -> None:
    bpr = []
    for weight in (0.0, 0.5):
        model = ready(RLMRecCon, base_arguments=NARROW, weight=weight, **TEXTS)
        bpr.append(float(model.loss(first_batch(pairs()))["bpr"].detach()))
    assert bpr[0] == bpr[1]


def test_aligning_brings_nodes_nearer_to_their_profiles() -> None:
    model = ready(RLMRecCon, base_arguments=WHOLE, weight=1.0, learning_rate=1e-2, **TEXTS)
    optimizer = model.configure_optimizers()
    batch = first_batch(pairs(batch_size=256))
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        terms = model.loss(batch)
        terms["total"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(terms["profile"].detach()))
    assert values[-1] < 0.9 * values[0]


def test_it_is_irllrec_with_no_other_term() -> None:
    """Their comparison is of IRLLRec's terms alone."""
    given: dict[str, Any] = {"base_arguments": NARROW, **TEXTS}
    others: dict[str, Any] = {"pair_weight": 0.0, "translation_weight": 0.0, "itm_weight": 0.0}
    alone, one, one_terms = trained(lambda: build(RLMRecCon, weight=0.1, **given))
    around, two, two_terms = trained(lambda: build(IRLLRec, profile_weight=0.1, **others, **given))
    assert one_terms == two_terms
    assert "train/profile" in one_terms
    assert same_state(alone.base.state_dict(), around.base.state_dict())
    assert same_ranks(one, two)


def test_it_goes_around_any_method_on_the_graph() -> None:
    given: dict[str, Any] = {"base_arguments": NARROW, **TEXTS}
    for base in BASES:
        model = ready(RLMRecCon, base=base, **given)
        assert isinstance(model.base, GraphRecommender)
        terms = model.loss(first_batch(pairs()))
        assert {"bpr", "profile", "l2"} <= terms.keys()
        assert all(term.isfinite() for term in terms.values())
