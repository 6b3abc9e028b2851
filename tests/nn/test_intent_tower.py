"""The graph's side of IRLLRec, against dense matrices and loops."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from datamodules.types import TrainingData
from intentbench.nn.graph import BipartiteGraph
from intentbench.nn.graph_intents import Prototypes
from intentbench.nn.intent_tower import Operand, interaction_intents

N_USERS, N_ITEMS = 3, 4
PAIRS = ((0, 1), (0, 2), (1, 2), (1, 4), (2, 1))  # item 3 has nobody


def _graph() -> BipartiteGraph:
    items = torch.tensor([item for _, item in PAIRS])
    counts = torch.bincount(torch.tensor([user for user, _ in PAIRS]), minlength=N_USERS)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return BipartiteGraph(TrainingData(items, offsets, N_ITEMS))


def _mask(intents: Tensor) -> Tensor:
    """The share of each node's neighbours (n, n), edge by edge."""
    n = N_USERS + N_ITEMS
    alike = torch.zeros(n, n, dtype=intents.dtype)
    for user, item in PAIRS:
        node = N_USERS + item - 1
        value = (cosine_similarity(intents[user], intents[node], dim=0) + 1) / 2
        alike[user, node] = alike[node, user] = value
    return alike / alike.sum(1, keepdim=True).where(alike.any(1, keepdim=True), 1)


def _assigned(vectors: Tensor, prototypes: Prototypes) -> Tensor:
    rows = []
    for node, vector in enumerate(vectors):
        columns = (prototypes.users if node < N_USERS else prototypes.items).detach()
        rows.append(columns @ (columns.T @ vector).softmax(0))
    return torch.stack(rows)


@pytest.mark.parametrize("operand", ["layers", "intents"])
def test_equals_the_dense_form(operand: Operand) -> None:
    prototypes = Prototypes(5, 6).double()
    layers = tuple(torch.randn(2, N_USERS + N_ITEMS, 5, dtype=torch.float64))
    expected = torch.zeros_like(layers[0])
    for layer in layers:
        intents = _assigned(layer, prototypes)
        expected += _mask(intents) @ (layer if operand == "layers" else intents) / len(layers)
    found = interaction_intents(_graph(), layers, prototypes, operand)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not found[N_USERS + 2].any(), "a node without edges"


def test_order_of_prototypes_is_free() -> None:
    prototypes, other = Prototypes(5, 6).double(), Prototypes(5, 6).double()
    order = torch.randperm(6)
    with torch.no_grad():
        other.users.copy_(prototypes.users[:, order])
        other.items.copy_(prototypes.items[:, order])
    layers = (torch.randn(N_USERS + N_ITEMS, 5, dtype=torch.float64),)
    found = [interaction_intents(_graph(), layers, p, "layers") for p in (prototypes, other)]
    torch.testing.assert_close(*found)


def test_one_prototype_a_side_weighs_all_edges_alike() -> None:
    """One user intent equal to the one item intent: the mean over neighbours."""
    prototypes = Prototypes(5, 1).double()
    with torch.no_grad():
        prototypes.items.copy_(prototypes.users)
    layers = (torch.randn(N_USERS + N_ITEMS, 5, dtype=torch.float64),)
    found = interaction_intents(_graph(), layers, prototypes, "layers")
    expected = (layers[0][N_USERS] + layers[0][N_USERS + 1]) / 2
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)


def test_gradients_reach_prototypes_and_layers() -> None:
    prototypes = Prototypes(5, 6).double()
    layer = torch.randn(N_USERS + N_ITEMS, 5, dtype=torch.float64, requires_grad=True)
    found = interaction_intents(_graph(), (layer,), prototypes, "layers")
    found.square().sum().backward()  # type: ignore[no-untyped-call]  # in torch
    for leaf in (prototypes.users, prototypes.items, layer):
        assert leaf.grad is not None
        assert leaf.grad.any()
