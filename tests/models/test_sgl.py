"""SGL: its loss against NumPy on recorded graphs, and what it is without its parts."""

from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor

from intentbench.contracts.subject import score_all
from intentbench.models.lightgcn import LightGCN
from intentbench.models.sgl import SGL, TwoViews
from intentbench.nn.graph import BipartiteGraph
from tests.models.graphs import (
    bpr_reference,
    built,
    first_batch,
    gradients,
    matrix_of,
    nce_reference,
    normalised_adjacency,
    pairs_of,
    penalty_reference,
)

LAYERS = 2
TEMPERATURE = 0.2


def _model(keep: float = 0.7, contrast_weight: float = 0.1, width: int = 8) -> SGL:
    model = built(
        lambda v, n: SGL(v, n, width, LAYERS, keep, contrast_weight, TEMPERATURE, l2=1e-2),
        pairs_of(),
    )
    assert isinstance(model, SGL)
    return model


def _record_graphs(model: SGL, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights that `dropped` hands out from here on."""
    graph = model.known_graph()
    drawn: list[Tensor] = []

    def recorded(keep: float) -> Tensor:
        assert keep == model.keep
        drawn.append(BipartiteGraph.dropped(graph, keep))
        return drawn[-1]

    monkeypatch.setattr(graph, "dropped", recorded)
    return drawn


def test_loss_is_that_of_dense_views_on_two_dropped_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, model = pairs_of(), _model()
    drawn = _record_graphs(model, monkeypatch)
    terms = model.views(model.nodes()), model.triples(first_batch(data))
    views, triples = terms
    values = {name: float(value.detach()) for name, value in model.base_terms(*terms).items()}
    assert len(drawn) == 2
    nodes = model.nodes().detach().numpy().astype(np.float64)
    clean, first, second = (
        np.asarray(sum(np.linalg.matrix_power(m, power) @ nodes for power in range(LAYERS + 1)))
        for m in (normalised_adjacency(data), *(matrix_of(model, weight) for weight in drawn))  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(views.final.detach(), clean, atol=1e-6)
    np.testing.assert_allclose(views.first.detach(), first, atol=1e-6)
    np.testing.assert_allclose(views.second.detach(), second, atol=1e-6)
    n_users, n_nodes = data.n_users, len(nodes)
    contrast = nce_reference(first, second, triples.users, 0, n_users, TEMPERATURE)
    for items in (triples.positives, triples.negatives):
        contrast += nce_reference(first, second, items, n_users, n_nodes, TEMPERATURE)
    assert values["bpr"] == pytest.approx(bpr_reference(clean, triples), rel=1e-5)
    assert values["contrast"] == pytest.approx(0.1 * contrast, rel=1e-5)
    assert values.keys() == {"bpr", "contrast"}


def test_total_is_the_sum_of_its_terms() -> None:
    model = _model()
    terms = {k: float(v.detach()) for k, v in model.loss(first_batch(pairs_of())).items()}
    assert terms["l2"] == pytest.approx(penalty_reference(model, 1e-2), rel=1e-5)
    assert terms["total"] == pytest.approx(terms["bpr"] + terms["contrast"] + terms["l2"], rel=1e-6)


def test_keeping_all_edges_makes_all_three_passes_one() -> None:
    model = _model(keep=1.0)
    views = model.views(model.nodes())
    assert views.first.equal(views.final)
    assert views.second.equal(views.final)
    dropped = _model(keep=0.7)
    views = dropped.views(dropped.nodes())
    assert not views.first.equal(views.second)
    assert not views.first.equal(views.final)


@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_without_the_contrast_gradients_are_those_of_lightgcn_with_all_edges(keep: float) -> None:
    ours = gradients(lambda v, n: SGL(v, n, 8, LAYERS, keep, contrast_weight=0.0, l2=1e-3))
    theirs = gradients(lambda v, n: LightGCN(v, n, 8, LAYERS, keep=1.0, l2=1e-3))
    assert all(mine.equal(other) for mine, other in zip(ours, theirs, strict=True))
    with_contrast = gradients(lambda v, n: SGL(v, n, 8, LAYERS, keep, l2=1e-3))
    assert not with_contrast[0].equal(theirs[0])


def test_three_passes_in_training_one_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = _model(), list[Tensor]()
    graph = model.known_graph()

    def counted(weight: Tensor, vectors: Tensor) -> Tensor:
        weights.append(weight)
        return BipartiteGraph.product(graph, weight, vectors)

    monkeypatch.setattr(graph, "product", counted)
    model.views(model.nodes())
    assert len(weights) == 3 * LAYERS
    weights.clear()
    model.eval()
    assert len(weights) == LAYERS
    assert all(weight is graph.normalised for weight in weights)


def test_scoring_drops_no_edge_and_draws_nothing() -> None:
    batches = list(pairs_of().test_dataloader())
    model, state = _model(keep=0.3), torch.get_rng_state()
    scores = score_all(model, batches)
    assert torch.get_rng_state().equal(state)
    assert scores.equal(score_all(_model(keep=1.0), batches))


def test_layers_are_those_of_the_clean_pass() -> None:
    model = _model()
    views = model.views(model.nodes())
    assert len(views.layers) == LAYERS + 1
    assert torch.stack(views.layers).sum(0).equal(views.final)


def test_orthonormal_views_have_the_closed_form() -> None:
    model = _model(contrast_weight=0.5)
    triples = model.triples(first_batch(pairs_of()))
    rows = torch.eye(model.n_users + model.n_items)
    terms = model.own_terms(TwoViews(rows, (rows,), rows, rows), triples)
    users, items = (
        log(1 + (count - 1) * exp(-1 / TEMPERATURE)) for count in (model.n_users, model.n_items)
    )
    assert float(terms["contrast"]) == pytest.approx(0.5 * (users + 2 * items), rel=1e-5)


def test_contrast_reaches_both_views_and_nothing_of_the_clean_pass() -> None:
    model = _model()
    tables = [torch.randn(model.n_users + model.n_items, 8, requires_grad=True) for _ in range(3)]
    views = TwoViews(tables[0], (tables[0],), tables[1], tables[2])
    triples = model.triples(first_batch(pairs_of()))
    model.own_terms(views, triples)["contrast"].backward()  # type: ignore[no-untyped-call]
    assert tables[0].grad is None
    first, second = (table.grad for table in tables[1:])
    assert first is not None
    assert second is not None
    touched = set(first.any(1).nonzero()[:, 0].tolist())
    assert touched == {*torch.cat([triples.users, triples.positives, triples.negatives]).tolist()}
    assert second.any(1).all()  # every node is a candidate
