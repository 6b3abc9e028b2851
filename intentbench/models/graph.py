"""What methods on the graph of users and items share.

    e     = what the method makes of its ID embeddings E⁰ by moving them along the graph
    ŷ_ui  = e_u · e_i
    L     = L_BPR(e) + the method's own terms + λ_Θ Σ_W ‖W‖²     over all trained parameters
    L_BPR = mean over training pairs of softplus(ŷ_uj - ŷ_ui),   j uniform over what u has not had

A method gives `views`: everything that one pass over the graph yields, in training with its noise
and dropped edges, in evaluation without.
"""

from collections.abc import Callable  # noqa: TC003  # a block of its own for one name
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from datamodules.types import PAD, Batch, EvaluationBatch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.nn.graph import BipartiteGraph
from intentbench.nn.negatives import UniformNegatives


@dataclass(frozen=True, slots=True)
class Triples:
    """Training pairs with a negative each, as nodes of the graph.

    Attributes:
        users: (B,) nodes 0..N-1.
        positives: (B,) nodes N..N+V-1.
        negatives: (B,) likewise, drawn anew.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor


@dataclass(frozen=True)
class Views:
    """What one pass over the graph yields; methods add their own.

    Attributes:
        final: (n, D) e, what is scored with.
        layers: (n, D) each: E⁰, E¹, …, E^L of the pass that gave `final`.
    """

    final: Tensor
    layers: tuple[Tensor, ...]


V = TypeVar("V", bound=Views)


class GraphRecommender(GradientRecommender, Generic[V]):
    """A method that scores by inner products of what it has moved along the graph.

    Args:
        n_items: V.
        n_users: N.
        width: D of the embeddings.
        l2: λ_Θ.
        learning_rate: of Adam.

    Attributes:
        users: (N, D) ID embeddings.
        items: (V, D) ID embeddings.
        enter: what a method around this one makes of the ID embeddings before they enter the
            graph, (n, D) to (n, D), in training and for scoring; None: nothing.
        user_table: (N, D) e of users, as of the last evaluation: with it a checkpoint scores
            without the graph.
        item_vectors: (V + 1, D) e of items, row 0 is `PAD`.
    """

    layout = "pair"
    user_table: Tensor
    item_vectors: Tensor

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 32,
        l2: float = 1e-6,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate)
        self.width = width
        self.l2 = l2
        self.users = nn.Parameter(torch.empty(n_users, width))
        self.items = nn.Parameter(torch.empty(n_items, width))
        nn.init.xavier_uniform_(self.users)
        nn.init.xavier_uniform_(self.items)
        self.enter: Callable[[Tensor], Tensor] | None = None
        self.graph: BipartiteGraph | None = None
        self.sampler: UniformNegatives | None = None
        self.register_buffer("user_table", torch.zeros(n_users, width))
        self.register_buffer("item_vectors", torch.zeros(n_items + 1, width))

    def views(self, nodes: Tensor) -> V:
        """One pass over the graph.

        Args:
            nodes: (n, D) what enters it, E⁰.
        """
        raise NotImplementedError

    def own_terms(self, views: V, triples: Triples) -> dict[str, Tensor]:
        """Further terms of the loss, weighted; none unless the method has some."""
        return {}

    def nodes(self) -> Tensor:
        """E⁰ (n, D): users, then items."""
        ids = torch.cat([self.users, self.items])
        return ids if self.enter is None else self.enter(ids)

    def base_terms(self, views: V, triples: Triples) -> dict[str, Tensor]:
        """L_BPR and the method's own terms: everything but the penalty."""
        return {"bpr": bpr_loss(views.final, triples), **self.own_terms(views, triples)}

    def triples(self, batch: SequenceBatch) -> Triples:
        """The pairs of a batch, with a fresh negative each.

        Raises:
            RuntimeError: the training events are not known yet.
        """
        if self.sampler is None:
            raise RuntimeError("negatives need the training events: call prepare first")
        negatives = self.sampler.sample(batch.users, 1)[:, 0]
        first = self.n_users - 1  # item v is node N + v - 1
        return Triples(batch.users, first + batch.labels, first + negatives)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The terms named above; "l2" is the penalty."""
        terms = self.base_terms(self.views(self.nodes()), self.triples(batch))
        terms["l2"] = self.penalty()
        return {"total": torch.stack([*terms.values()]).sum(), **terms}

    def penalty(self) -> Tensor:
        """λ_Θ Σ_W ‖W‖² over everything that takes a gradient: the whole of it, not the batch's."""
        trained = [p.square().sum() for p in self.parameters() if p.requires_grad]
        return self.l2 * torch.stack(trained).sum()

    def prepare(self, training: TrainingData) -> None:
        """Build the graph, once, and keep what each user has had."""
        self.graph = BipartiteGraph(training).to(self.device)
        self.sampler = UniformNegatives(training).to(self.device)
        self.refresh()

    def known_graph(self) -> BipartiteGraph:
        """The graph.

        Raises:
            RuntimeError: the training events are not known yet.
        """
        if self.graph is None:
            raise RuntimeError("the graph needs the training events: call prepare first")
        return self.graph

    def train(self, mode: bool = True) -> Self:
        """As ever; and on the way into evaluation, what is scored with is made anew, once."""
        super().train(mode)
        if not mode:
            self.refresh()
        return self

    def refresh(self) -> None:
        """Make the tables of e anew, without noise and with all edges, where the graph is known."""
        if self.graph is None:
            return
        training = self.training
        self.training = False  # not `eval()`, which comes here; only `views` reads it
        with torch.no_grad():
            final = self.views(self.nodes()).final
            self.user_table.copy_(final[: self.n_users])
            self.item_vectors[1:].copy_(final[self.n_users :])
        self.training = training

    def on_train_epoch_end(self) -> None:
        """Log the terms; what a checkpoint saved from here on scores with is of this epoch."""
        super().on_train_epoch_end()
        self.refresh()

    def encode(self, batch: Batch) -> Tensor:
        """e_u (B, D)."""
        return self.user_table[batch.users]

    def item_table(self) -> Tensor:
        """e_i (V + 1, D)."""
        return self.item_vectors

    def score(self, batch: EvaluationBatch) -> Tensor:
        """Scores (B, V + 1) in float32, also under autocast: half of it would tie many items.

        The held-out items of a user stand side by side in a batch: one product serves all.
        """
        users, place = torch.unique_consecutive(batch.users, return_inverse=True)
        with torch.autocast(self.user_table.device.type, enabled=False):
            scores = self.user_table[users] @ self.item_vectors.T
        scores[:, PAD] = -torch.inf
        return scores.index_select(0, place)


def bpr_loss(final: Tensor, triples: Triples) -> Tensor:
    """L_BPR: the mean of softplus(ŷ_uj - ŷ_ui).

    Args:
        final: (n, D) e of all nodes.
        triples: of the batch.
    """
    # `index_select` for its backward, which adds rows up several times as fast as brackets do
    user = final.index_select(0, triples.users)
    positive = final.index_select(0, triples.positives)
    negative = final.index_select(0, triples.negatives)
    return softplus((user * (negative - positive)).sum(-1)).mean()
