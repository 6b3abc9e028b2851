"""Intents of nodes and the mask of edges, against dense and slow references."""

import pytest
import torch
from torch import Tensor

from datamodules.types import TrainingData
from intentbench.nn.graph import BipartiteGraph
from intentbench.nn.graph_intents import Prototypes, adaptive_mask, assign, likeness, shares

ITEMS_OF_USERS = ((1, 2, 5), (2,), (1, 2, 3, 4), (), (4, 5))
"""User 3 and item 6 have no edge."""

N_USERS, N_ITEMS = len(ITEMS_OF_USERS), 6
N_NODES = N_USERS + N_ITEMS
ISOLATED = (3, N_USERS + 5)


def _graph() -> BipartiteGraph:
    offsets = torch.tensor([0, *(len(items) for items in ITEMS_OF_USERS)]).cumsum(0)
    items = torch.tensor([item for items in ITEMS_OF_USERS for item in items])
    return BipartiteGraph(TrainingData(items, offsets, N_ITEMS))


def _adjacency() -> Tensor:
    matrix = torch.zeros(N_NODES, N_NODES, dtype=torch.float64)
    for user, items in enumerate(ITEMS_OF_USERS):
        for item in items:
            matrix[user, N_USERS + item - 1] = matrix[N_USERS + item - 1, user] = 1
    return matrix


def _dense(graph: BipartiteGraph, weight: Tensor) -> Tensor:
    matrix = torch.zeros(N_NODES, N_NODES, dtype=weight.dtype)
    return matrix.index_put((graph.receiver, graph.sender), weight)


def _dense_mask(vectors: Tensor) -> Tensor:
    """G by its equations, with n x n matrices."""
    lengths = (vectors.square().sum(1) + 1e-8).sqrt()
    cosines = vectors @ vectors.T / lengths[:, None] / lengths
    alike = _adjacency().to(vectors.dtype) * (cosines + 1) / 2
    sums = alike.sum(1, keepdim=True)
    return torch.where(sums > 0, alike / torch.where(sums > 0, sums, 1), 0)


def _vectors(seed: int = 0, width: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N_NODES, width, dtype=torch.float64, generator=generator)


# prototypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 128])
def test_shares_are_distributions_over_the_prototypes(count: int) -> None:
    vectors = 5 * _vectors()
    found = shares(vectors, torch.randn(4, count, dtype=torch.float64))
    assert found.shape == (N_NODES, count)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(N_NODES, dtype=torch.float64))


def test_assignment_is_the_mixture_by_the_equation() -> None:
    vectors, prototypes = _vectors(), torch.randn(4, 3, dtype=torch.float64)
    for node, found in enumerate(assign(vectors, prototypes)):
        masses = [float((vectors[node] @ prototypes[:, k]).exp()) for k in range(3)]
        mixture = [prototypes[:, k] * (masses[k] / sum(masses)) for k in range(3)]
        torch.testing.assert_close(found, torch.stack(mixture).sum(0))


def test_order_of_prototypes_is_free() -> None:
    graph, vectors = _graph(), _vectors()
    prototypes = Prototypes(4, 7).double()
    before = prototypes(vectors, N_USERS)
    mask = adaptive_mask(graph, before)
    with torch.no_grad():
        prototypes.users.copy_(prototypes.users[:, torch.randperm(7)])
        prototypes.items.copy_(prototypes.items[:, torch.randperm(7)])
    after = prototypes(vectors, N_USERS)
    torch.testing.assert_close(after, before)
    received = graph.product(adaptive_mask(graph, after), vectors)
    torch.testing.assert_close(received, graph.product(mask, vectors))


def test_one_prototype_is_every_nodes_intent() -> None:
    prototypes = Prototypes(4, 1).double()
    found = prototypes(_vectors(), N_USERS)
    for node, intent in enumerate(found):
        side = prototypes.users if node < N_USERS else prototypes.items
        torch.testing.assert_close(intent, side[:, 0])


def test_each_side_has_prototypes_of_its_own() -> None:
    prototypes, vectors = Prototypes(4, 3).double(), _vectors()
    before = prototypes(vectors, N_USERS)
    with torch.no_grad():
        prototypes.items.add_(1)
    after = prototypes(vectors, N_USERS)
    assert after[:N_USERS].equal(before[:N_USERS])
    assert not after[N_USERS:].isclose(before[N_USERS:]).any()


def test_prototypes_start_xavier_uniform() -> None:
    prototypes = Prototypes(32, 128)
    bound = (6 / (32 + 128)) ** 0.5
    for side in (prototypes.users, prototypes.items):
        assert side.shape == (32, 128)
        assert 0.99 * bound < side.abs().max() <= bound
        assert side.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


# the mask --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_likeness_lies_between_0_and_1_and_is_symmetric(dtype: torch.dtype) -> None:
    graph = _graph()
    for seed in range(20):
        vectors = (_vectors(seed, width=2) * 10.0 ** (seed % 5 - 2)).to(dtype)
        vectors[seed % N_NODES] = vectors[0]  # cosines of 1, up to rounding
        alike = likeness(graph, vectors)
        assert alike.shape == graph.receiver.shape
        assert (alike >= 0).all()
        assert (alike <= 1).all()
        assert alike.equal(alike[graph.reverse])
        assert _dense(graph, alike).equal(_dense(graph, alike).T)


def test_mask_equals_the_dense_reference_and_is_on_training_edges_alone() -> None:
    graph, vectors = _graph(), _vectors()
    found = _dense(graph, adaptive_mask(graph, vectors))
    torch.testing.assert_close(found, _dense_mask(vectors), rtol=1e-12, atol=1e-12)
    assert not found[_adjacency() == 0].any()
    assert not found.allclose(found.T)  # unlike likeness


def test_rows_of_the_mask_sum_to_1_or_to_0() -> None:
    graph = _graph()
    expected = torch.ones(N_NODES)
    expected[list(ISOLATED)] = 0
    mask = adaptive_mask(graph, _vectors().float())
    torch.testing.assert_close(graph.receive(mask), expected)


def test_equal_intents_weigh_all_neighbours_alike() -> None:
    """G = D^-1 A."""
    adjacency = _adjacency()
    expected = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    vectors = _vectors()[:1].expand(N_NODES, -1)
    found = _dense(_graph(), adaptive_mask(_graph(), vectors))
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=1e-15)


def test_opposite_intents_weigh_nothing_and_have_finite_gradients() -> None:
    graph = _graph()
    vectors = torch.zeros(N_NODES, 4)
    vectors[:N_USERS, 1], vectors[N_USERS:, 1] = 1, -1  # of length 1 in float32, to the bit
    vectors.requires_grad_()
    mask = adaptive_mask(graph, vectors)
    assert not mask.any()
    (graph.product(mask, vectors).sum() + mask.square().sum()).backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_nearly_opposite_intents_and_vectors_of_zeros_stay_finite() -> None:
    graph = _graph()
    vectors = torch.randn(1, 4).expand(N_NODES, -1).clone()
    vectors[N_USERS:] *= -1
    vectors[1], vectors[N_USERS] = 0, 0
    vectors.requires_grad_()
    mask = adaptive_mask(graph, vectors)
    sums = graph.receive(mask)
    assert ((sums - 1).abs().lt(1e-5) | (sums == 0)).all()
    mask.sum().backward()  # type: ignore[no-untyped-call]  # in torch
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_lengths_do_not_matter() -> None:
    graph, vectors = _graph(), _vectors()
    stretched = vectors * torch.rand(N_NODES, 1, dtype=torch.float64).add(0.5)
    torch.testing.assert_close(
        adaptive_mask(graph, stretched), adaptive_mask(graph, vectors), rtol=1e-5, atol=1e-7
    )


# gradients -------------------------------------------------------------------------------------


def test_gradients_of_mask_and_product_agree_with_finite_differences() -> None:
    graph, vectors = _graph(), _vectors().requires_grad_()
    inputs = (torch.rand(len(graph.receiver), dtype=torch.float64).requires_grad_(), vectors)
    assert torch.autograd.gradcheck(lambda vectors: adaptive_mask(graph, vectors), vectors)
    assert torch.autograd.gradcheck(graph.inner, vectors)
    assert torch.autograd.gradcheck(graph.product, inputs)


def test_gradients_reach_embeddings_and_prototypes_as_in_the_dense_reference() -> None:
    graph, vectors = _graph(), _vectors().requires_grad_()
    prototypes = Prototypes(4, 3).double()
    wanted = (vectors, prototypes.users, prototypes.items)
    aim = torch.randn(N_NODES, 4, dtype=torch.float64)
    intents = prototypes(vectors, N_USERS)
    found = graph.product(adaptive_mask(graph, intents), vectors)
    expected = _dense_mask(intents) @ vectors
    torch.testing.assert_close(found, expected)
    pairs = zip(
        torch.autograd.grad((found * aim).sum(), wanted, retain_graph=True),
        torch.autograd.grad((expected * aim).sum(), wanted),
        strict=True,
    )
    for ours, theirs in pairs:
        assert theirs.any()
        torch.testing.assert_close(ours, theirs)


def test_no_matrix_of_nodes_by_nodes_is_made() -> None:
    """100,000 nodes: it would take 40 GB."""
    users, each = 50_000, 2
    items = torch.arange(users * each) % users + 1
    training = TrainingData(items, torch.arange(0, users * each + 1, each), users)
    graph, vectors = BipartiteGraph(training), torch.randn(2 * users, 2, requires_grad=True)
    graph.product(adaptive_mask(graph, vectors), vectors).square().sum().backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
