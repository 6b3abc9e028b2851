"""What the tests of methods on the graph share: small data, and slow dense references in NumPy."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.prepared import TRAIN
from datamodules.sequence import SequenceDataModule
from datamodules.types import SequenceBatch
from intentbench.contracts.data import planted_cycles
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.models.base import GradientRecommender
from intentbench.models.graph import GraphRecommender, Triples, Views

Dense = NDArray[np.float64]

Make = Callable[[int, int], GradientRecommender]
"""A method, from V and N."""


def pairs_of(batch_size: int = 64) -> SequenceDataModule:
    """50 users, 40 items, 4 intents, as training pairs."""
    return SequenceDataModule(planted_cycles(), layout="pair", batch_size=batch_size)


def first_batch(data: SequenceDataModule) -> SequenceBatch:
    """The first training batch."""
    return next(iter(data.train_dataloader()))


def built(make: Make, data: SequenceDataModule) -> GradientRecommender:
    """A method of seed 0 that knows the training events, in training mode."""
    torch.manual_seed(0)
    model = make(data.n_items, data.n_users)
    model.prepare(data.training())
    return model.train()


def stepped(make: Make, epochs: int = 2) -> tuple[GradientRecommender, list[float], Tensor]:
    """A method trained from seed 0, the loss of each step, and the ranks of the test targets."""
    data = pairs_of()
    model = built(make, data)
    optimizer = model.configure_optimizers()
    losses = []
    for _ in range(epochs):
        for batch in data.train_dataloader():
            total = model.loss(batch)["total"]
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(total.item())
    model.eval()
    ranks = [
        ranks_from_scores(model.score(batch), batch.target, batch.masked)
        for batch in data.test_dataloader()
    ]
    return model, losses, torch.cat(ranks)


def gradients(make: Make, seed: int = 1) -> list[Tensor]:
    """Of a method's whole loss on one batch; its negatives come from a seed."""
    data = pairs_of()
    model, batch = built(make, data), first_batch(data)
    torch.manual_seed(seed)
    model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in model.parameters()]
    return [gradient for gradient in found if gradient is not None]


def normalised_adjacency(data: SequenceDataModule) -> Dense:
    """Â (n, n), from the training events of the dataset, one by one."""
    dataset, n_users = data.dataset, data.n_users
    adjacency = np.zeros((n_users + data.n_items,) * 2)
    for user in range(n_users):
        for event in range(int(dataset.offsets[user]), int(dataset.offsets[user + 1])):
            if dataset.split[event] == TRAIN:
                node = n_users + int(dataset.items[event]) - 1
                adjacency[user, node] = adjacency[node, user] = 1
    root = np.sqrt(np.maximum(adjacency.sum(1), 1))
    return np.asarray(adjacency / root / root[:, None])


def matrix_of(model: GraphRecommender[Views], weight: Tensor) -> Dense:
    """(n, n) weights of the directed edges."""
    graph = model.known_graph()
    matrix = np.zeros((graph.n_nodes, graph.n_nodes))
    matrix[graph.receiver.numpy(), graph.sender.numpy()] = weight.numpy()
    return matrix


def bpr_reference(final: Dense, triples: Triples) -> float:
    """L_BPR, a triple at a time."""
    rows = zip(triples.users, triples.positives, triples.negatives, strict=True)
    terms = [np.log1p(np.exp(final[u] @ final[j] - final[u] @ final[i])) for u, i, j in rows]
    return float(np.mean(terms))


def nce_reference(
    anchors: Dense, table: Dense, nodes: Tensor, first: int, last: int, temperature: float
) -> float:
    """NCE of the nodes' rows against rows first..last of the table, a node at a time."""
    terms = []
    for node in nodes.tolist():
        cosines = [
            _cosine(anchors[node], table[other]) / temperature for other in range(first, last)
        ]
        terms.append(np.log(np.exp(cosines).sum()) - cosines[node - first])
    return float(np.mean(terms))


def _cosine(a: Dense, b: Dense) -> float:
    return float(a @ b / np.sqrt((a @ a + 1e-8) * (b @ b + 1e-8)))


def penalty_reference(model: GradientRecommender, l2: float) -> float:
    """λ Σ_W ‖W‖²."""
    return l2 * sum(
        float(np.square(p.detach().numpy().astype(np.float64)).sum()) for p in model.parameters()
    )
