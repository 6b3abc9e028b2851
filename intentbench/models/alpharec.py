"""AlphaRec: items are their texts, users the items that they have had (Sheng et al., ICLR 2025).

    x_i = t_i,   x_u = mean of t_i over the user's training items
    E⁰  = W₂ LeakyReLU(W₁ x + b₁) + b₂,   E^(l) = Â E^(l-1),   e = mean of E⁰ … E^L
    L   = mean over training pairs of -log e^(s(u,i)/τ) / (e^(s(u,i)/τ) + Σ_j e^(s(u,j)/τ))
          + λ_Θ Σ_W ‖W‖²

s is the cosine of two e, also when scoring; the j are drawn uniformly from what u has not had.
There are no ID embeddings: the number of parameters depends on neither users nor items.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from datamodules.prepared import PreparedDataset
from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.models.takes_texts import TakesTexts
from intentbench.nn.graph import BipartiteGraph
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.node_contrast import unit
from intentbench.text.nodes import find_profiles

_IRLLREC = "IRLLRec, table 2 (SIGIR 2025), row AlphaRec; training items masked"

CARD = Card(
    title="AlphaRec",
    paper="Sheng et al., Language Representations Can be What Recommenders Need: Findings and "
    "Potentials, ICLR 2025, arXiv:2407.05441",
    code="https://github.com/LehengTHU/AlphaRec",
    tiny={
        "width": 16,
        "negatives": 16,
        "text": "gaussian",
        "profile_width": 24,
        "learning_rate": 2e-2,
    },
    published=(
        Published("amazon-book", "recall@20", 0.1412, _IRLLREC),
        Published("amazon-book", "ndcg@20", 0.0873, _IRLLREC),
        Published("yelp-cf", "recall@20", 0.1212, _IRLLREC),
        Published("yelp-cf", "ndcg@20", 0.0752, _IRLLREC),
        Published("amazon-movie", "recall@20", 0.1661, _IRLLREC),
        Published("amazon-movie", "ndcg@20", 0.0958, _IRLLREC),
    ),
    deviations=(
        "texts are the profiles that `text` names; the paper embeds titles by "
        "text-embedding-3-large, IRLLRec's port embeds profiles by text-embedding-ada-002",
        "32 dimensions and learning rate 1e-3 as in IRLLRec's comparison; the paper has 64, 5e-4",
        "256 negatives and cosine scores as in the paper; IRLLRec's port has one negative, and "
        "scores by inner products",
        "the penalty is on all weights, in the loss",
    ),
    personal=True,
    effects={"text": "which features are read"},
)


class AlphaRec(TakesTexts, GradientRecommender):
    """AlphaRec.

    Args:
        n_items: V.
        n_users: N.
        width: D.
        layers: L.
        negatives: drawn for each training pair.
        temperature: τ.
        l2: λ_Θ.
        text: source of the items' features.
        profile_width: their columns, d_t.
        learning_rate: of Adam.

    Attributes:
        inputs: (n, d_t) x of users, then items; empty until `prepare`.
        user_table: (N, D) e of users at length 1, as of the last evaluation: with it a checkpoint
            scores without texts and without the graph.
        item_vectors: (V + 1, D) of items, row 0 is `PAD`.
    """

    CARD = CARD
    layout = "pair"
    profile_text: Tensor
    inputs: Tensor
    user_table: Tensor
    item_vectors: Tensor

    def __init__(
        self,
        n_items: int,
        n_users: int,
        width: int = 32,
        layers: int = 2,
        negatives: int = 256,
        temperature: float = 0.15,
        l2: float = 1e-6,
        text: str = "tfidf-svd",
        profile_width: int = 128,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate)
        self.layers = layers
        self.negatives = negatives
        self.temperature = temperature
        self.l2 = l2
        self.text = text
        self.profile_width = profile_width
        hidden = profile_width // 2
        self.tower = nn.Sequential(
            nn.Linear(profile_width, hidden), nn.LeakyReLU(), nn.Linear(hidden, width)
        )
        for layer in self.tower:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        self.graph: BipartiteGraph | None = None
        self.sampler: UniformNegatives | None = None
        for name in ("profile_text", "inputs"):
            self.register_buffer(name, torch.zeros(0, 0), persistent=False)
        self.register_buffer("user_table", torch.zeros(n_users, width))
        self.register_buffer("item_vectors", torch.zeros(n_items + 1, width))

    # what it knows -------------------------------------------------------------------------

    @classmethod
    def check(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """Refuse a dataset without the texts, or with features of another width.

        Raises:
            RequestError: it is one.
        """
        find_profiles(arguments["text"], dataset, arguments["profile_width"])

    def take(self, dataset: PreparedDataset) -> None:
        """Look up the features.

        Raises:
            RequestError: there are none, or of another width.
        """
        found = find_profiles(self.text, dataset, self.profile_width)
        self.profile_text = found.to(self.device)

    def setup(self, stage: str) -> None:
        """Take the texts for training, which alone needs them; then as for every method."""
        if stage == "fit":
            self.take(self.trainer.datamodule.dataset)  # type: ignore[attr-defined]  # Lightning sets it
        super().setup(stage)

    def prepare(self, training: TrainingData) -> None:
        """Build the graph, keep what each user has had, and mean its texts."""
        self.graph = BipartiteGraph(training).to(self.device)
        self.sampler = UniformNegatives(training).to(self.device)
        degrees = self.graph.receive(torch.ones_like(self.graph.normalised))
        shares = (1 / degrees)[self.graph.receiver]
        means = self.graph.product(shares, self.profile_text)
        self.inputs = torch.cat([means[: self.n_users], self.profile_text[self.n_users :]])
        self.refresh()

    # training ------------------------------------------------------------------------------

    def directions(self) -> Tensor:
        """What is compared: e at length 1, (n, D).

        Raises:
            RuntimeError: the training events are not known yet.
        """
        if self.graph is None:
            raise RuntimeError("the graph needs the training events: call prepare first")
        # autocast may have halved it; sparse products are in float32
        layers = [self.tower(self.inputs).to(self.graph.normalised.dtype)]
        for _ in range(self.layers):
            layers.append(self.graph.product(self.graph.normalised, layers[-1]))
        return unit(torch.stack(layers).mean(0))

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The sampled "softmax" and the penalty, "l2"."""
        if self.sampler is None:
            raise RuntimeError("negatives need the training events: call prepare first")
        negatives = self.sampler.sample(batch.users, self.negatives)
        items = torch.cat([batch.labels[:, None], negatives], 1)  # (B, 1 + K), the positive first
        e = self.directions()
        users, items = e[batch.users], e[self.n_users - 1 + items]
        cosines = torch.bmm(items, users[:, :, None]).squeeze(2)
        first = torch.zeros_like(batch.users)
        softmax = cross_entropy(cosines / self.temperature, first)
        l2 = self.l2 * torch.stack([p.square().sum() for p in self.tower.parameters()]).sum()
        return {"total": softmax + l2, "softmax": softmax, "l2": l2}

    # scoring -------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """As ever; and on the way into evaluation, what is scored with is made anew, once."""
        super().train(mode)
        if not mode:
            self.refresh()
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the tables of e anew, where the graph is known."""
        if self.graph is None:
            return
        e = self.directions()
        self.user_table.copy_(e[: self.n_users])
        self.item_vectors[1:].copy_(e[self.n_users :])

    def on_train_epoch_end(self) -> None:
        """Log the terms; what a checkpoint saved from here on scores with is of this epoch."""
        super().on_train_epoch_end()
        self.refresh()

    def encode(self, batch: Batch) -> Tensor:
        """e_u at length 1, (B, D)."""
        return self.user_table[batch.users]

    def item_table(self) -> Tensor:
        """e_i at length 1, (V + 1, D)."""
        return self.item_vectors
