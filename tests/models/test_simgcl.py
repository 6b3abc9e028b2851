"""SimGCL: what its noise is, its loss against NumPy with recorded noise, and its limits."""

from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor

from intentbench.contracts.subject import score_all
from intentbench.models import simgcl as module
from intentbench.models.graph import Triples
from intentbench.models.lightgcn import LightGCN
from intentbench.models.sgl import TwoViews
from intentbench.models.simgcl import SimGCL, perturb
from tests.models.graphs import (
    Dense,
    bpr_reference,
    built,
    first_batch,
    gradients,
    nce_reference,
    normalised_adjacency,
    pairs_of,
    penalty_reference,
)

LAYERS = 2
TEMPERATURE = 0.2


def _model(epsilon: float = 0.1, contrast_weight: float = 0.1) -> SimGCL:
    model = built(
        lambda v, n: SimGCL(v, n, 8, LAYERS, epsilon, contrast_weight, TEMPERATURE, l2=1e-2),
        pairs_of(),
    )
    assert isinstance(model, SimGCL)
    return model


def _record_noise(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The noise Δ that is added from here on."""
    added: list[Tensor] = []

    def recorded(vectors: Tensor, epsilon: float) -> Tensor:
        perturbed = perturb(vectors, epsilon)
        added.append((perturbed - vectors).detach())
        return perturbed

    monkeypatch.setattr(module, "perturb", recorded)
    return added


@pytest.mark.parametrize("epsilon", [0.1, 0.9])
def test_noise_has_one_length_and_turns_no_coordinate_round(epsilon: float) -> None:
    vectors = torch.randn(500, 16, dtype=torch.float64)
    perturbed = perturb(vectors, epsilon)
    lengths = (perturbed - vectors).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, epsilon))
    assert perturbed.sign().equal(vectors.sign())
    assert (perturbed.abs() >= vectors.abs()).all()


def test_noise_leaves_zeros_and_passes_gradients_unchanged() -> None:
    vectors = torch.tensor([[0.0, -2.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    perturbed = perturb(vectors, 0.5)
    assert perturbed[0, 0] == 0
    assert not perturbed[1].any()
    direction = torch.randn(2, 3)
    assert torch.autograd.grad(perturbed, vectors, direction)[0].equal(direction)


def test_noise_is_uniform_before_its_length_is_set() -> None:
    added = perturb(torch.ones(20_000, 2), 1.0) - 1
    # of two uniform numbers the larger is either with equal chance, and their ratio is uniform
    ratio = (added.amin(1) / added.amax(1)).sort().values
    uniform = torch.linspace(0, 1, len(ratio))
    assert float((ratio - uniform).abs().max()) < 1.95 / len(ratio) ** 0.5  # Kolmogorov, 0.1 %


def test_loss_is_that_of_dense_views_with_the_noise_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = pairs_of(), _model()
    added = _record_noise(monkeypatch)
    views, triples = model.views(model.nodes()), model.triples(first_batch(data))
    values = {k: float(v.detach()) for k, v in model.base_terms(views, triples).items()}
    assert len(added) == 2 * LAYERS
    matrix, nodes = normalised_adjacency(data), model.nodes().detach().numpy().astype(np.float64)

    def view(noise: list[Tensor]) -> Dense:
        vectors = total = nodes
        for delta in noise:
            vectors = matrix @ vectors + delta.numpy()
            total = total + vectors
        return total

    zeros = torch.zeros_like(added[0])
    clean, first, second = view([zeros] * LAYERS), view(added[:LAYERS]), view(added[LAYERS:])
    np.testing.assert_allclose(views.final.detach(), clean, atol=1e-6)
    np.testing.assert_allclose(views.first.detach(), first, atol=1e-6)
    np.testing.assert_allclose(views.second.detach(), second, atol=1e-6)
    n_users = data.n_users
    contrast = nce_reference(first, second, triples.users, 0, n_users, TEMPERATURE)
    contrast += nce_reference(first, second, triples.positives, n_users, len(nodes), TEMPERATURE)
    assert values["bpr"] == pytest.approx(bpr_reference(clean, triples), rel=1e-5)
    assert values["contrast"] == pytest.approx(0.1 * contrast, rel=1e-5)
    assert values.keys() == {"bpr", "contrast"}


def test_noise_is_drawn_anew_for_each_layer_and_view(monkeypatch: pytest.MonkeyPatch) -> None:
    added = _record_noise(monkeypatch)
    model = _model()
    model.views(model.nodes())
    sizes = [delta.abs() for delta in added]
    for place, one in enumerate(sizes):
        torch.testing.assert_close(one.norm(dim=1), torch.full((len(one),), 0.1))
        for other in sizes[place + 1 :]:
            assert not torch.allclose(one, other, atol=1e-3)


def test_total_is_the_sum_of_its_terms() -> None:
    model = _model()
    terms = {k: float(v.detach()) for k, v in model.loss(first_batch(pairs_of())).items()}
    assert terms["l2"] == pytest.approx(penalty_reference(model, 1e-2), rel=1e-5)
    assert terms["total"] == pytest.approx(terms["bpr"] + terms["contrast"] + terms["l2"], rel=1e-6)


def test_without_noise_all_three_passes_are_one() -> None:
    model = _model(epsilon=0.0)
    views = model.views(model.nodes())
    assert views.first.equal(views.final)
    assert views.second.equal(views.final)
    noisy = _model()
    views = noisy.views(noisy.nodes())
    assert not views.first.equal(views.second)
    assert not views.first.equal(views.final)


def test_without_the_contrast_gradients_are_those_of_lightgcn_with_all_edges() -> None:
    ours = gradients(lambda v, n: SimGCL(v, n, 8, LAYERS, contrast_weight=0.0, l2=1e-3))
    theirs = gradients(lambda v, n: LightGCN(v, n, 8, LAYERS, keep=1.0, l2=1e-3))
    assert all(mine.equal(other) for mine, other in zip(ours, theirs, strict=True))
    with_contrast = gradients(lambda v, n: SimGCL(v, n, 8, LAYERS, l2=1e-3))
    assert not with_contrast[0].equal(theirs[0])


def test_scoring_adds_no_noise_makes_one_pass_and_draws_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = list(pairs_of().test_dataloader())
    model, added = _model(epsilon=0.9), _record_noise(monkeypatch)
    state = torch.get_rng_state()
    scores = score_all(model, batches)
    assert torch.get_rng_state().equal(state)
    assert added == []
    views = model.views(model.nodes())
    assert views.first is views.second is views.final
    assert scores.equal(score_all(_model(epsilon=0.0), batches))


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
    assert float(terms["contrast"]) == pytest.approx(0.5 * (users + items), rel=1e-5)


def test_negative_items_are_not_contrasted() -> None:
    model = _model()
    views = model.views(model.nodes())
    triples = model.triples(first_batch(pairs_of()))
    others = Triples(triples.users, triples.positives, triples.positives)
    assert model.own_terms(views, others)["contrast"].equal(
        model.own_terms(views, triples)["contrast"]
    )
