"""The graph of training pairs against dense matrices; what is dropped; how much memory it takes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor
from torch.autograd import gradcheck
from torch.profiler import ProfilerActivity, profile

from datamodules.types import TrainingData
from intentbench.nn.graph import BipartiteGraph

SURE = 1 - 1e-9
"""Probability of the bounds below: they fail by chance only for a wrong law."""

# user 1 has had nothing, user 2 the same item twice, nobody has had item 3
HAD = ((1, 2, 4), (), (2, 2, 5), (4,))
N_ITEMS = 5


def _graph(had: tuple[tuple[int, ...], ...] = HAD, n_items: int = N_ITEMS) -> BipartiteGraph:
    return BipartiteGraph(_training(had, n_items))


def _training(had: tuple[tuple[int, ...], ...], n_items: int) -> TrainingData:
    lengths = torch.tensor([0, *(len(items) for items in had)])
    items = torch.tensor([item for row in had for item in row])
    return TrainingData(items, lengths.cumsum(0), n_items)


def _random_graph(n_users: int, n_items: int, events: int) -> BipartiteGraph:
    random = np.random.default_rng(0)
    offsets = np.linspace(0, events, n_users + 1).astype(np.int64)
    items = torch.from_numpy(random.integers(1, n_items + 1, events))
    return BipartiteGraph(TrainingData(items, torch.from_numpy(offsets), n_items))


def _dense(graph: BipartiteGraph, weight: Tensor) -> Tensor:
    matrix = weight.new_zeros(graph.n_nodes, graph.n_nodes)
    for edge, (a, b) in enumerate(zip(graph.receiver, graph.sender, strict=True)):
        matrix[a, b] = weight[edge]
    return matrix


def _adjacency() -> NDArray[np.float64]:
    """Of `HAD`, from the definition."""
    matrix = np.zeros((len(HAD) + N_ITEMS,) * 2)
    for user, items in enumerate(HAD):
        for item in items:
            node = len(HAD) + item - 1
            matrix[user, node] = matrix[node, user] = 1
    return matrix


def test_edges_are_the_training_pairs_in_both_directions() -> None:
    graph = _graph()
    ones = torch.ones(len(graph.receiver), dtype=torch.float64)
    np.testing.assert_array_equal(_dense(graph, ones).numpy(), _adjacency())
    assert graph.receiver.equal(graph.receiver.sort().values)
    assert graph.start.tolist() == [0, 3, 3, 5, 6, 7, 9, 9, 11, 12]
    assert graph.receiver[graph.reverse].equal(graph.sender)
    assert graph.sender[graph.reverse].equal(graph.receiver)


def test_a_pair_that_repeats_counts_once() -> None:
    once = _graph(((1, 2, 4), (), (2, 5), (4,)))
    for name, table in _graph().named_buffers():
        assert table.equal(once.get_buffer(name)), name


def test_weights_are_those_of_the_symmetric_normalisation() -> None:
    adjacency = _adjacency()
    degree = adjacency.sum(1)
    inverse = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    graph = _graph()
    np.testing.assert_allclose(
        _dense(graph, graph.normalised).numpy(),
        inverse[:, None] * adjacency * inverse,
        rtol=1e-6,
    )


@pytest.mark.parametrize("wanted", [("weight",), ("vectors",), ("weight", "vectors")])
def test_product_and_its_gradients_equal_those_of_the_dense_matrix(wanted: tuple[str, ...]) -> None:
    graph = _graph()
    weight = torch.randn(len(graph.receiver), dtype=torch.float64)
    vectors = torch.randn(graph.n_nodes, 3, dtype=torch.float64)
    inputs = {"weight": weight, "vectors": vectors}
    given = [inputs[name].requires_grad_() for name in wanted]
    ours, dense = graph.product(weight, vectors), _dense(graph, weight) @ vectors
    torch.testing.assert_close(ours, dense)
    direction = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, given, direction),
        torch.autograd.grad(dense, given, direction),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
    assert gradcheck(graph.product, (weight, vectors))


def test_inner_products_of_ends_equal_the_slow_ones_and_so_do_gradients() -> None:
    graph = _graph()
    vectors = torch.randn(graph.n_nodes, 3, dtype=torch.float64, requires_grad=True)
    expected = (vectors[graph.receiver] * vectors[graph.sender]).sum(1)
    torch.testing.assert_close(graph.inner(vectors), expected)
    assert gradcheck(graph.inner, (vectors,))


def test_layers_of_products_equal_powers_of_the_matrix() -> None:
    graph = _graph()
    vectors = torch.randn(graph.n_nodes, 3)
    dense, moved = _dense(graph, graph.normalised), vectors
    for power in (1, 2, 3):
        moved = graph.product(graph.normalised, moved)
        torch.testing.assert_close(moved, torch.linalg.matrix_power(dense, power) @ vectors)


def test_nodes_without_edges_receive_nothing_and_pass_no_gradient() -> None:
    graph = _graph()
    alone = [1, len(HAD) + 2]
    vectors = torch.randn(graph.n_nodes, 3, requires_grad=True)
    moved = graph.product(graph.normalised, vectors)
    assert not moved[alone].any()
    assert moved.isfinite().all()
    (gradient,) = torch.autograd.grad(moved.square().sum(), vectors)
    assert not gradient[alone].any()
    assert gradient.isfinite().all()
    assert graph.normalised.isfinite().all()
    assert not graph.receive(graph.normalised)[alone].any()


def test_receive_sums_rows() -> None:
    graph = _graph()
    weight = torch.randn(len(graph.receiver), dtype=torch.float64)
    torch.testing.assert_close(graph.receive(weight), _dense(graph, weight).sum(1))


def test_product_under_mixed_precision_is_in_the_type_of_the_vectors() -> None:
    graph = _graph()
    vectors = torch.randn(graph.n_nodes, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = graph.product(graph.normalised, vectors)
    assert moved.equal(graph.product(graph.normalised, vectors))


def test_all_edges_are_kept_and_nothing_is_drawn_at_one() -> None:
    graph = _graph()
    state = torch.get_rng_state()
    assert graph.dropped(1.0).equal(graph.normalised)
    assert torch.get_rng_state().equal(state)


def test_kept_edges_have_the_weight_they_had() -> None:
    graph = _random_graph(50, 40, 600)
    for _ in range(20):
        weight = graph.dropped(0.7)
        kept = weight != 0
        assert kept.any()
        assert not kept.all()
        assert weight[kept].equal(graph.normalised[kept])


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_each_directed_edge_is_kept_with_its_probability(keep: float) -> None:
    graph = _random_graph(30, 20, 200)
    draws = 400
    kept = torch.stack([graph.dropped(keep) != 0 for _ in range(draws)]).numpy()
    edges = kept.shape[1]
    _assert_binomial(kept.sum(), draws * edges, keep)  # over all
    for count in kept.sum(0):  # of each edge
        _assert_binomial(count, draws, keep, tests=edges)
    for count in kept.sum(1):  # in each draw
        _assert_binomial(count, edges, keep, tests=draws)


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_directions_of_a_pair_and_draws_are_independent(keep: float) -> None:
    graph = _random_graph(60, 50, 900)
    kept = [graph.dropped(keep) != 0 for _ in range(40)]
    to_user = graph.receiver < graph.n_users  # each pair once
    both = sum(int((draw & draw[graph.reverse])[to_user].sum()) for draw in kept)
    _assert_binomial(both, len(kept) * int(to_user.sum()), keep**2)
    pairs = list(zip(kept[::2], kept[1::2], strict=True))
    twice = sum(int((first & second).sum()) for first, second in pairs)
    _assert_binomial(twice, len(pairs) * len(to_user), keep**2)


def _assert_binomial(count: int, trials: int, probability: float, tests: int = 1) -> None:
    low, high = binom.interval(1 - (1 - SURE) / tests, trials, probability)
    assert low <= count <= high


def test_a_hundred_thousand_nodes_need_no_square_matrix() -> None:
    n_users, n_items, width = 60_000, 40_000, 4
    graph = _random_graph(n_users, n_items, 150_000)
    assert graph.n_nodes == 100_000
    weight = graph.normalised.clone().requires_grad_()
    vectors = torch.randn(graph.n_nodes, width, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        graph.product(weight, graph.product(weight, vectors)).square().sum().backward()  # type: ignore[no-untyped-call]
        graph.inner(vectors).square().sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert vectors.grad is not None
    largest = max(event.cpu_memory_usage for event in record.events())
    edges = len(graph.receiver)
    assert vectors.nbytes <= largest <= 16 * (edges + graph.n_nodes) * width * 4
    assert largest < graph.n_nodes**2 / 100  # bytes: a square matrix of booleans has 100 times it
