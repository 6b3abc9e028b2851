"""The graph of training pairs: who is joined to what, and the products that move vectors along it.

Nodes are the N users, then the V items: item v is node N + v - 1. An edge is stored in both
directions, sorted by the node that receives, so that one compressed table serves every product.
Its structure never changes: dropped edges get the weight 0.
"""

import warnings
from collections.abc import Callable  # noqa: TC003  # a block of its own for one name
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.types import TrainingData

with warnings.catch_warnings():  # PyTorch warns once a process that this layout is in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), [], (1, 1))


class BipartiteGraph(nn.Module):
    """Users and items joined by training pairs; a pair that repeats counts once.

    Args:
        training: the training events.

    Attributes:
        start: (n + 1,) first edge of each receiving node, n = N + V.
        receiver: (2E,) node that an edge leads to, ascending.
        sender: (2E,) node that it comes from.
        reverse: (2E,) the same pair in the other direction.
        normalised: (2E,) 1 / √(deg_a deg_b): the entries of Â = D^-1/2 A D^-1/2, no self-loops.
    """

    start: Tensor
    receiver: Tensor
    sender: Tensor
    reverse: Tensor
    normalised: Tensor

    def __init__(self, training: TrainingData) -> None:
        super().__init__()
        self.n_users, self.n_items = training.n_users, training.n_items
        pairs = torch.unique(training.users * self.n_items + training.items - 1)
        users = pairs // self.n_items
        items = self.n_users + pairs % self.n_items
        receiver, sender = torch.cat([users, items]), torch.cat([items, users])
        order = torch.argsort(receiver * self.n_nodes + sender)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        receiver, sender = receiver[order], sender[order]
        degree = torch.bincount(receiver, minlength=self.n_nodes)
        start = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        root = degree.float().rsqrt()
        tables = {
            "start": start,
            "receiver": receiver,
            "sender": sender,
            "reverse": place[(order + len(pairs)) % len(order)],
            "normalised": root[receiver] * root[sender],
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    @property
    def n_nodes(self) -> int:
        """Users and items together: n = N + V."""
        return self.n_users + self.n_items

    def product(self, weight: Tensor, vectors: Tensor) -> Tensor:
        """W x: each node receives the weighted sum of its neighbours.

        Gradients reach the weights too, in O(E · D) memory: `torch.sparse.mm` would make a dense
        n x n matrix for them.

        Args:
            weight: (2E,) of each directed edge.
            vectors: (n, D).

        Returns:
            (n, D); 0 at nodes without edges.
        """
        apply: Callable[..., Tensor] = _GraphProduct.apply
        with torch.autocast(vectors.device.type, enabled=False):
            return apply(
                weight.to(vectors.dtype),
                vectors,
                self.start,
                self.sender,
                self.reverse,
            )

    def inner(self, vectors: Tensor) -> Tensor:
        """(2E,) inner product of the vectors (n, D) at the two ends of each edge."""
        apply: Callable[..., Tensor] = _EdgeInner.apply
        with torch.autocast(vectors.device.type, enabled=False):
            return apply(vectors, self.start, self.sender, self.reverse)

    def dropped(self, keep: float) -> Tensor:
        """Â of a random part of the graph, (2E,).

        Each directed edge stays with probability `keep`, its weight as it was; the directions of
        a pair are dropped apart, the degrees are those of the whole graph (SSLRec's edge drop).
        """
        if keep >= 1:
            return self.normalised
        return self.normalised * (torch.rand_like(self.normalised) < keep)

    def receive(self, weight: Tensor) -> Tensor:
        """(n,) sum of the weights (2E,) of the edges that lead to each node."""
        sums = weight.new_zeros(self.n_nodes)
        return sums.index_add(0, self.receiver, weight)


class _GraphProduct(torch.autograd.Function):
    """The structure is symmetric: the transpose has the same table and each edge's reverse."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        vectors: Tensor,
        start: Tensor,
        sender: Tensor,
        reverse: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight, vectors, start, sender, reverse)
        return _multiply(start, sender, weight, vectors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, vectors, start, sender, reverse = ctx.saved_tensors
        d_weight = d_vectors = None
        if ctx.needs_input_grad[0]:
            d_weight = _inner(start, sender, gradient, vectors)
        if ctx.needs_input_grad[1]:
            d_vectors = _multiply(start, sender, weight.index_select(0, reverse), gradient)
        return d_weight, d_vectors, None, None, None


class _EdgeInner(torch.autograd.Function):
    """Either end of an edge moves its product, in both directions alike."""

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, start: Tensor, sender: Tensor, reverse: Tensor
    ) -> Tensor:
        ctx.save_for_backward(vectors, start, sender, reverse)
        return _inner(start, sender, vectors, vectors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        vectors, start, sender, reverse = ctx.saved_tensors
        both = gradient + gradient.index_select(0, reverse)
        return _multiply(start, sender, both, vectors), None, None, None


def _multiply(start: Tensor, sender: Tensor, weight: Tensor, vectors: Tensor) -> Tensor:
    size = (len(start) - 1, len(start) - 1)
    matrix = torch.sparse_csr_tensor(start, sender, weight, size)
    return matrix @ vectors


def _inner(start: Tensor, sender: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left_a · right_b of each edge a <- b, without gathering rows: a tenth of the time."""
    size = (len(start) - 1, len(start) - 1)
    pattern = torch.sparse_csr_tensor(start, sender, left.new_zeros(len(sender)), size)
    products: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T)
    return products.values()
