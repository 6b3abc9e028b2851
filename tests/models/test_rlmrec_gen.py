"""RLMRec-Gen: what is masked, and what is told of it."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from datamodules.errors import RequestError
from intentbench.models.graph import Views
from intentbench.models.rlmrec_gen import RLMRecGen
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
    scores_of,
    slow_nce,
)

WHOLE = {**NARROW, "keep": 1.0}


@pytest.mark.parametrize("base", BASES)
def test_without_weight_it_is_its_base_method(base: str) -> None:
    assert_is_its_base(RLMRecGen, base, weight=0.0)


def test_without_weight_nothing_is_built() -> None:
    model = build(RLMRecGen, weight=0.0, **TEXTS)
    assert {name.split(".")[0] for name in model.state_dict()} == {"base"}


@pytest.mark.parametrize(
    ("masked", "count"), [(0.004, 1), (0.1, 9), (0.15, 13), (0.6, 54), (1.0, 90)]
)
def test_a_share_of_the_nodes_is_hidden_each_once(masked: float, count: int) -> None:
    model = build(RLMRecGen, masked=masked, **TEXTS)
    assert model.n_users + model.n_items == 90
    hidden = model.hidden()
    assert len(hidden) == count
    assert len(torch.unique(hidden)) == count
    assert 0 <= int(hidden.min()) <= int(hidden.max()) < 90


def test_steps_hide_other_nodes_users_and_items_alike() -> None:
    model = build(RLMRecGen, masked=0.1, **TEXTS)
    draws = torch.stack([model.hidden() for _ in range(500)])
    assert not draws[0].sort().values.equal(draws[1].sort().values)
    counts = np.bincount(draws.flatten().numpy(), minlength=90)
    spread = (500 * 0.1 * 0.9) ** 0.5
    assert np.abs(counts - 50).max() < 5 * spread


@pytest.mark.parametrize("masked", [0.0, -0.1, 1.5])
def test_no_such_share_is_refused(masked: float) -> None:
    with pytest.raises(RequestError, match="masked is a share"):
        build(RLMRecGen, masked=masked, **TEXTS)


def test_other_rows_enter_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ready(RLMRecGen, base_arguments=NARROW, masked=0.3, **TEXTS)
    torch.nn.init.constant_(model.mask, 0.7)
    entered: list[Tensor] = []
    views = model.base.views

    def watched(nodes: Tensor) -> Views:
        entered.append(nodes.detach())
        seen: Views = views(nodes)
        return seen

    monkeypatch.setattr(model.base, "views", watched)
    model.loss(first_batch(pairs()))
    (nodes,) = entered  # one pass, which is that of the base method's terms too
    ids = model.base.nodes()
    changed = (nodes != ids).any(1)
    assert int(changed.sum()) == 27
    assert (nodes[changed] == 0.7).all()
    assert nodes[~changed].equal(ids[~changed])


def test_loss_is_that_of_the_masked_pass() -> None:
    model = ready(RLMRecGen, base_arguments=WHOLE, masked=0.2, weight=0.3, temperature=0.4, **TEXTS)
    torch.nn.init.normal_(model.mask)
    batch, state = first_batch(pairs()), model.draws.get_extra_state()
    torch.manual_seed(5)
    terms = {name: float(value.detach()) for name, value in model.loss(batch).items()}
    torch.manual_seed(5)
    triples = model.base.triples(batch)
    model.draws.set_extra_state(state)
    hidden = model.hidden()
    nodes = model.base.nodes().detach().clone()
    nodes[hidden] = model.mask.detach()
    e = propagated(pairs(), nodes, layers=2)
    margins = (e[triples.users] * (e[triples.negatives] - e[triples.positives])).sum(1)
    assert terms["bpr"] == pytest.approx(float(margins.exp().log1p().mean()), rel=1e-5)
    first, _, second = (layer.double() for layer in model.decoder.layers)
    with torch.no_grad():
        guesses = second(leaky_relu(first(e[hidden]), 0.01))
    profiles = model.profile_text[hidden].double()
    told = np.mean([slow_nce(guess, profiles, n, 0.4) for n, guess in enumerate(guesses)])
    assert terms["reconstruction"] == pytest.approx(0.3 * told, rel=1e-5)
    parts = terms["bpr"] + terms["reconstruction"] + terms["l2"]
    assert terms["total"] == pytest.approx(parts, rel=1e-6)
    assert terms.keys() == {"total", "bpr", "reconstruction", "l2"}


def test_mask_begins_at_zero_and_gets_a_gradient() -> None:
    model = ready(RLMRecGen, base_arguments=NARROW, **TEXTS)
    assert not model.mask.any()
    model.loss(first_batch(pairs()))["reconstruction"].backward()  # type: ignore[no-untyped-call]
    assert model.mask.grad is not None
    assert model.mask.grad.any()
    assert model.profile_text.grad is None


def test_scores_are_of_the_unmasked_pass() -> None:
    model = ready(RLMRecGen, base_arguments=NARROW, masked=1.0, **TEXTS)
    model.loss(first_batch(pairs()))
    model.eval()
    e = propagated(pairs(), model.base.nodes(), layers=2)
    expected = e[: model.n_users] @ e[model.n_users :].T
    torch.testing.assert_close(scores_of(model)[:, 1:].double(), expected, atol=1e-6, rtol=1e-5)


def test_masks_shift_no_negative_of_the_base_method() -> None:
    after = []
    for weight in (0.0, 0.5):
        model = ready(RLMRecGen, base_arguments=NARROW, weight=weight, **TEXTS)
        model.loss(first_batch(pairs()))
        after.append(torch.get_rng_state())
    assert after[0].equal(after[1])
