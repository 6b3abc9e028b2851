"""What add-ons share: without terms of their own they are their base method, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.errors import RequestError
from intentbench.contracts.data import planted_cycles
from intentbench.contracts.subject import quiet_trainer
from intentbench.models import graph_text
from intentbench.models.graph import Triples, Views
from intentbench.models.graph_text import (
    OwnDraws,
    TextGraphRecommender,
    TextTower,
    align,
    build_base,
    published,
)
from intentbench.models.lightgcn import LightGCN
from intentbench.models.rlmrec_con import RLMRecCon
from tests.models.add_ons import (
    BASES,
    NARROW,
    TEXTS,
    assert_is_its_base,
    build,
    first_batch,
    pairs,
    ready,
    slow_nce,
    trained,
)


class Bare(TextGraphRecommender):
    """An add-on that adds nothing."""

    CARD = LightGCN.CARD


class Noisy(TextGraphRecommender):
    """An add-on that draws, but whose term has no gradient."""

    CARD = LightGCN.CARD

    def __init__(self, n_items: int, n_users: int) -> None:
        super().__init__(n_items, n_users, text="gaussian")
        self.draws = OwnDraws()

    def own_terms(self, views: Views, triples: Triples) -> dict[str, Tensor]:
        return {"noise": torch.randn(3, generator=self.draws.generator()).sum()}


@pytest.mark.parametrize("base", BASES)
def test_an_add_on_without_terms_is_its_base_method(base: str) -> None:
    assert_is_its_base(Bare, base)


def test_modules_of_an_add_on_draw_nothing_from_the_global_generator() -> None:
    build(LightGCN, **NARROW)
    alone = torch.get_rng_state()
    build(RLMRecCon, base_arguments=NARROW, **TEXTS)
    assert torch.equal(torch.get_rng_state(), alone)


def test_draws_of_an_add_on_shift_none_of_its_base_method() -> None:
    _, _, alone = trained(lambda: build(LightGCN))
    _, _, around = trained(lambda: build(Noisy))
    assert around["train/noise"] != 0
    assert around["train/bpr"] == alone["train/bpr"]
    assert around["train/l2"] == alone["train/l2"]


def test_own_draws_go_on_from_a_state_and_hang_on_the_seed() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws, again = OwnDraws(), OwnDraws()
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(1)
    other = OwnDraws()
    first = torch.randn(4, generator=draws.generator())
    assert first.equal(torch.randn(4, generator=again.generator()))
    assert not first.equal(torch.randn(4, generator=other.generator()))
    other.load_state_dict(draws.state_dict())
    second = torch.randn(4, generator=draws.generator())
    assert not second.equal(first)
    assert second.equal(torch.randn(4, generator=other.generator()))


def test_own_draws_are_the_same_at_each_evaluation() -> None:
    draws = OwnDraws().eval()
    state = draws.state_dict()["_extra_state"]
    values = [torch.randn(4, generator=draws.generator()) for _ in range(2)]
    assert values[0].equal(values[1])
    assert draws.state_dict()["_extra_state"].equal(state)


def test_scores_need_no_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pairs()
    model = build(RLMRecCon, base_arguments=NARROW, **TEXTS)
    trainer = quiet_trainer(1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    monkeypatch.setattr(graph_text, "find_texts", _none_there)
    quiet_trainer(1).test(model, data, verbose=False)
    quiet_trainer(1).validate(model, data, verbose=False)
    loaded = RLMRecCon.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    assert not loaded.profile_text.numel()
    batch = next(iter(data.test_dataloader()))
    assert loaded.score(batch).equal(model.score(batch))
    with pytest.raises(RequestError, match="no texts"):
        quiet_trainer(1).fit(model, data)


def _none_there(*_: Any) -> None:
    raise RequestError("no texts")


def test_penalty_is_on_all_that_is_trained() -> None:
    model = ready(RLMRecCon, base_arguments=NARROW, **TEXTS)
    squares = [np.square(p.detach().double().numpy()).sum() for p in model.parameters()]
    assert len(squares) == 6
    assert float(model.penalty().detach()) == pytest.approx(NARROW["l2"] * sum(squares), rel=1e-6)


def test_features_are_no_part_of_state_or_gradient() -> None:
    model = ready(RLMRecCon, base_arguments=NARROW, **TEXTS)
    assert len(model.profile_text) == model.n_users + model.n_items
    assert not model.intent_text.numel()
    assert not {"profile_text", "intent_text"} & model.state_dict().keys()
    model.loss(first_batch(pairs()))["total"].backward()  # type: ignore[no-untyped-call]
    assert model.profile_text.grad is None
    assert not model.profile_text.requires_grad


@pytest.mark.parametrize(
    ("widths", "parameters"), [((3072, 32), 4_818_992), ((1536, 32), 1_230_128)]
)
def test_tower_has_the_published_sizes(widths: tuple[int, int], parameters: int) -> None:
    tower = TextTower(*widths)
    assert sum(p.numel() for p in tower.parameters()) == parameters
    assert sum(p.numel() for p in TextTower(*widths[::-1]).parameters()) != parameters


def test_tower_is_two_layers_with_a_leaky_relu() -> None:
    tower, texts = TextTower(5, 3).double(), torch.randn(4, 5, dtype=torch.float64)
    first, second = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in (tower.layers[0], tower.layers[2])
        if isinstance(layer, torch.nn.Linear)
    )
    inside = texts.numpy() @ first[0].T + first[1]
    inside = np.where(inside > 0, inside, 0.01 * inside)
    np.testing.assert_allclose(tower(texts).detach().numpy(), inside @ second[0].T + second[1])
    assert inside.shape == (4, 4)


@pytest.mark.parametrize("mask_same", [True, False])
def test_alignment_is_the_sum_of_three_contrasts(mask_same: bool) -> None:
    torch.manual_seed(0)
    n_users, users = 4, torch.tensor([0, 2, 0])
    triples = Triples(users, torch.tensor([5, 6, 5]), torch.tensor([4, 4, 7]))
    anchors, texts = torch.randn(2, 8, 3, dtype=torch.float64)
    expected = np.mean([slow_nce(anchors[u], texts[:n_users], int(u), 0.3) for u in users])
    for items in (triples.positives, triples.negatives):
        losses = []
        for row, item in enumerate(items):
            candidates = [
                place
                for place, other in enumerate(items)
                if place == row or other != item or not mask_same
            ]
            own = candidates.index(row)
            losses.append(slow_nce(anchors[item], texts[items[candidates]], own, 0.3))
        expected += np.mean(losses)
    found = float(align(anchors, texts, triples, n_users, 0.3, mask_same))
    assert found == pytest.approx(expected, rel=1e-10)


def test_alignment_of_orthonormal_rows_has_a_closed_form() -> None:
    rows, tau = torch.eye(12, dtype=torch.float64), 0.5
    triples = Triples(torch.arange(4), torch.arange(4, 8), torch.arange(8, 12))
    expected = 3 * np.log(1 + 3 * np.exp(-1 / tau))
    assert float(align(rows, rows, triples, 4, tau)) == pytest.approx(expected, abs=1e-6)


def test_other_methods_and_arguments_are_refused_as_base() -> None:
    with pytest.raises(RequestError, match="'sasrec' is no method on the graph"):
        build_base("sasrec", {}, 5, 5)
    with pytest.raises(RequestError, match="unknown method 'lightgnc'"):
        build_base("lightgnc", {}, 5, 5)
    for name in ("wide", "learning_rate", "n_items"):
        with pytest.raises(RequestError, match=f"takes no '{name}'; allowed: keep, l2, layers"):
            build_base("lightgcn", {name: 1}, 5, 5)


def test_check_refuses_what_could_not_run() -> None:
    good: dict[str, Any] = {"base": "lightgcn", "base_arguments": None, **TEXTS}
    data = planted_cycles()
    Bare.check(data, good)
    Bare.check(data, {**good, "intent_width": 3})
    with pytest.raises(RequestError, match="takes no 'wide'"):
        Bare.check(data, {**good, "base_arguments": {"wide": 3}})
    with pytest.raises(RequestError, match="planted cycles"):
        Bare.check(data, {**good, "text": "tfidf-svd"})
    with pytest.raises(RequestError, match="no text features there"):
        Bare.check(data, {**good, "text": "no/such/folder"})


def test_figures_name_their_row_and_base() -> None:
    figures = published("KAR", {"sgl": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)})
    assert [(f.dataset, f.metric, f.value) for f in figures[:3]] == [
        ("amazon-book", "recall@20", 0.1),
        ("amazon-book", "ndcg@20", 0.2),
        ("yelp-cf", "recall@20", 0.3),
    ]
    assert {str(f.when) for f in figures} == {"{'base': 'sgl'}"}
    assert "row KAR on sgl" in figures[0].source
