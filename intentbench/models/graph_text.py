"""What methods share that add texts to a method on the graph (RLMRec, KAR, IRLLRec).

    L = L_base + the method's own terms + λ_Θ Σ_W ‖W‖²        over all trained parameters

`base` is any method on the graph, with its own arguments; it makes the embeddings, and its inner
products are the scores: texts are read in training only. They are frozen features (see
`intentbench.text`): of a profile, and of intents. Modules of an add-on are built after its base
method and draw random numbers of their own, so that with its weights at 0 it is that method, bit
for bit.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from datamodules.types import Batch, EvaluationBatch, SequenceBatch, TrainingData
from intentbench.models import load_method
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Published
from intentbench.models.graph import GraphRecommender, Triples, Views
from intentbench.models.takes_texts import TakesTexts
from intentbench.nn.node_contrast import nce_of_nodes
from intentbench.nn.text_alignment import nce_of_batch
from intentbench.text.nodes import find_texts

BaseArgument = bool | int | float | str
"""What an argument of a method on the graph may be."""

FROM_ADD_ON = ("n_items", "n_users", "learning_rate")
"""Arguments of a base method that the add-on gives it, or has in its place."""

TABLE_2 = ("amazon-book", "yelp-cf", "amazon-movie")
"""Datasets of IRLLRec's table 2."""


class TextGraphRecommender(TakesTexts, GradientRecommender):
    """A method around one on the graph, with texts.

    Args:
        n_items: V.
        n_users: N.
        base: key of the method on the graph.
        base_arguments: its constructor arguments, all but the learning rate; None or {} for its
            defaults. Its `l2` is λ_Θ.
        text: source of the features: "tfidf-svd", a folder made by `intentbench text embed`, or a
            control; see `intentbench.text.nodes.find_texts`.
        intent_width: columns of the intents' features; None: they are not read.
        profile_width: columns of the profiles' features.
        learning_rate: of Adam.

    Attributes:
        base: the method on the graph.
        intent_text: (n, intent_width) features of nodes, users first; empty until `take`, and where
            they are not read.
        profile_text: (n, profile_width).
    """

    layout = "pair"
    intent_text: Tensor
    profile_text: Tensor

    def __init__(
        self,
        n_items: int,
        n_users: int,
        base: str = "lightgcn",
        base_arguments: Mapping[str, BaseArgument] | None = None,
        text: str = "tfidf-svd",
        intent_width: int | None = 256,
        profile_width: int = 128,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate)
        self.base = build_base(base, base_arguments or {}, n_items, n_users)
        self.text = text
        self.intent_width = intent_width
        self.profile_width = profile_width
        for name in ("intent_text", "profile_text"):
            self.register_buffer(name, torch.zeros(0, 0), persistent=False)

    def own_terms(self, views: Views, triples: Triples) -> dict[str, Tensor]:
        """The method's own terms of the loss, weighted; none unless it has some."""
        return {}

    def nodes(self) -> Tensor:
        """What enters the base method, (n, D)."""
        return self.base.nodes()

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The base method's terms, then the own ones, then "l2"."""
        views = self.base.views(self.nodes())
        triples = self.base.triples(batch)  # after the pass: the base method draws in this order
        return self.summed(
            {**self.base.base_terms(views, triples), **self.own_terms(views, triples)}
        )

    def summed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms, "l2", and the "total" of all."""
        terms = {**terms, "l2": self.penalty()}
        return {"total": torch.stack([*terms.values()]).sum(), **terms}

    def penalty(self) -> Tensor:
        """The base method's, and λ_Θ Σ_W ‖W‖² over what the add-on trains."""
        own = [
            parameter.square().sum()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not name.startswith("base.")
        ]
        base = self.base.penalty()
        return base + self.base.l2 * torch.stack(own).sum() if own else base

    @classmethod
    def check(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """Refuse a base method that cannot be, or a dataset without texts of these widths.

        Raises:
            RequestError: it is one.
        """
        find_base(arguments["base"], arguments["base_arguments"] or {})
        intent_width = arguments.get("intent_width")  # no argument of those that read profiles
        find_texts(arguments["text"], dataset, intent_width, arguments["profile_width"])

    def take(self, dataset: PreparedDataset) -> None:
        """Look up the features.

        Raises:
            RequestError: there are none, or of another width.
        """
        found = find_texts(self.text, dataset, self.intent_width, self.profile_width)
        if self.intent_width is not None:
            self.intent_text = found.intent.to(self.device)
        self.profile_text = found.profile.to(self.device)

    def setup(self, stage: str) -> None:
        """Take the texts for training, which alone needs them; then as for every method."""
        if stage == "fit":
            self.take(self.trainer.datamodule.dataset)  # type: ignore[attr-defined]  # Lightning sets it
        super().setup(stage)

    def prepare(self, training: TrainingData) -> None:
        """As the base method."""
        self.base.prepare(training)

    def on_train_epoch_end(self) -> None:
        """As the base method."""
        super().on_train_epoch_end()
        self.base.refresh()

    def encode(self, batch: Batch) -> Tensor:
        """As the base method."""
        return self.base.encode(batch)

    def item_table(self) -> Tensor:
        """As the base method."""
        return self.base.item_table()

    def score(self, batch: EvaluationBatch) -> Tensor:
        """As the base method."""
        return self.base.score(batch)


class TextTower(nn.Module):
    """W₂ LeakyReLU(W₁ x + b₁) + b₂, hidden width ⌊(d_t + d) / 2⌋ (IRLLRec Eq. 7, RLMRec).

    Args:
        text_width: d_t, of the input.
        width: d, of the output.
    """

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        hidden = (text_width + width) // 2
        self.layers = nn.Sequential(
            nn.Linear(text_width, hidden), nn.LeakyReLU(0.01), nn.Linear(hidden, width)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, texts: Tensor) -> Tensor:
        """Texts (…, d_t) in the space of embeddings (…, d)."""
        with torch.autocast(texts.device.type, enabled=False):  # as all that it is compared with
            projected: Tensor = self.layers(texts)
        return projected


class OwnDraws(nn.Module):
    """Random numbers apart from the global generator, so that they shift none of a base method's.

    Where the draws have got to is part of the state, so that training resumes exactly.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running = torch.Generator()
        with torch.random.fork_rng(devices=()):
            self._running.manual_seed(int(torch.randint(2**62, ())))

    def generator(self) -> torch.Generator:
        """What to draw with, on the CPU.

        In evaluation it starts anew each time: there a loss depends on weights and batch alone.
        """
        return self._running if self.training else torch.Generator().manual_seed(0)

    def get_extra_state(self) -> Tensor:
        """The generator's state, (bytes,) uint8."""
        return self._running.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on where another generator had got to."""
        self._running.set_state(state.cpu())


def align(
    anchors: Tensor,
    texts: Tensor,
    triples: Triples,
    n_users: int,
    temperature: float,
    mask_same: bool = True,
) -> Tensor:
    """InfoNCE of nodes with their own texts, for users, positives and negatives of a batch.

    Candidates are the texts of all users, and of the batch's positives or negatives.

    Args:
        anchors: (n, D) of nodes.
        texts: (n, D) projected, of all users and of the batch's items at least.
        triples: of the batch.
        n_users: N.
        temperature: τ.
        mask_same: whether another row of the same item is no candidate.

    Returns:
        A scalar, the sum of the three.
    """
    users = nce_of_nodes(anchors[:n_users], texts[:n_users], triples.users, temperature)
    positives, negatives = (
        nce_of_batch(anchors, texts, items, temperature, mask_same)
        for items in (triples.positives, triples.negatives)
    )
    return users + positives + negatives


def published(row: str, figures: Mapping[str, tuple[float, ...]]) -> tuple[Published, ...]:
    """Figures of IRLLRec's table 2 (SIGIR 2025), whose texts are by language models.

    Args:
        row: as printed.
        figures: base to Recall@20 and NDCG@20 on each dataset of `TABLE_2`, one after the other.
    """
    source = (
        "IRLLRec, table 2 (SIGIR 2025), row {} on {}, texts by language models; training items "
        "masked"
    )
    cells = [(dataset, metric) for dataset in TABLE_2 for metric in ("recall@20", "ndcg@20")]
    return tuple(
        Published(dataset, metric, value, source.format(row, base), {"base": base})
        for base, values in figures.items()
        for (dataset, metric), value in zip(cells, values, strict=True)
    )


def find_base(key: str, arguments: Mapping[str, BaseArgument]) -> type[GraphRecommender[Any]]:
    """The class of a method on the graph that takes these arguments.

    Raises:
        RequestError: no such method, or not one on the graph, or it takes no such argument.
    """
    cls = load_method(key)
    if not issubclass(cls, GraphRecommender):
        raise RequestError(f"base: {key!r} is no method on the graph; one is 'lightgcn'")
    allowed = [name for name in signature(cls).parameters if name not in FROM_ADD_ON]
    for name in arguments:
        if name not in allowed:
            raise RequestError(
                f"base_arguments: {key!r} takes no {name!r}; allowed: {', '.join(sorted(allowed))}"
            )
    return cls


def build_base(
    key: str, arguments: Mapping[str, BaseArgument], n_items: int, n_users: int
) -> GraphRecommender[Any]:
    """A method on the graph.

    Raises:
        RequestError: see `find_base`.
    """
    given: dict[str, Any] = {**arguments, "n_items": n_items, "n_users": n_users}
    return find_base(key, arguments)(**given)
