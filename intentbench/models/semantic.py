"""Semantic only: how alike the profiles of user and item are, and nothing learned.

    ŷ_ui = cos(x_u, x_i)          x a node's profile features

A row of IRLLRec's table 2 (Wang et al., SIGIR 2025) that the paper does not explain; this is the
plain reading of its name.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datamodules.prepared import PreparedDataset
from datamodules.types import Batch
from intentbench.models.base import ClosedFormRecommender
from intentbench.models.card import Card, Published
from intentbench.models.takes_texts import TakesTexts
from intentbench.nn.node_contrast import unit
from intentbench.text.nodes import find_profiles

_IRLLREC = "IRLLRec, table 2 (SIGIR 2025), row Semantic Only; training items masked"

CARD = Card(
    title="Semantic only",
    paper="Wang et al., Intent Representation Learning with Large Language Model for "
    "Recommendation, SIGIR 2025, arXiv:2502.03307, table 2",
    code="",
    tiny={"text": "gaussian", "profile_width": 8},
    published=(
        Published("amazon-book", "recall@20", 0.0199, _IRLLREC),
        Published("amazon-book", "ndcg@20", 0.0112, _IRLLREC),
        Published("yelp-cf", "recall@20", 0.0047, _IRLLREC),
        Published("yelp-cf", "ndcg@20", 0.0026, _IRLLREC),
        Published("amazon-movie", "recall@20", 0.0117, _IRLLREC),
        Published("amazon-movie", "ndcg@20", 0.0098, _IRLLREC),
    ),
    deviations=(
        "the paper does not say which texts it compares, nor how; here cosines of the profiles "
        "that `text` names",
    ),
    gradient=False,
    deterministic=True,
    personal=True,
    effects={"text": "which features are read"},
)


class Semantic(TakesTexts, ClosedFormRecommender):
    """Ranks by cosines of profiles.

    Args:
        n_items: V.
        n_users: N.
        text: source of the features.
        profile_width: their columns, P.

    Attributes:
        user_table: (N, P) profiles of users at length 1: with them a checkpoint scores without
            texts.
        item_vectors: (V + 1, P) of items, row 0 is `PAD`.
    """

    CARD = CARD
    layout = "pair"
    user_table: Tensor
    item_vectors: Tensor

    def __init__(
        self, n_items: int, n_users: int, text: str = "tfidf-svd", profile_width: int = 128
    ) -> None:
        super().__init__(n_items, n_users)
        self.text = text
        self.profile_width = profile_width
        self.register_buffer("user_table", torch.zeros(n_users, profile_width))
        self.register_buffer("item_vectors", torch.zeros(n_items + 1, profile_width))

    @classmethod
    def check(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """Refuse a dataset without the texts, or with features of another width.

        Raises:
            RequestError: it is one.
        """
        find_profiles(arguments["text"], dataset, arguments["profile_width"])

    def take(self, dataset: PreparedDataset) -> None:
        """Look up the features: the whole of the method.

        Raises:
            RequestError: there are none, or of another width.
        """
        profiles = unit(find_profiles(self.text, dataset, self.profile_width))
        self.user_table.copy_(profiles[: self.n_users])
        self.item_vectors[1:].copy_(profiles[self.n_users :])

    def setup(self, stage: str) -> None:
        """Take the texts when fitting; then as for every method."""
        if stage == "fit":
            self.take(self.trainer.datamodule.dataset)  # type: ignore[attr-defined]  # Lightning sets it
        super().setup(stage)

    def encode(self, batch: Batch) -> Tensor:
        """Profiles of users at length 1, (B, P)."""
        return self.user_table[batch.users]

    def item_table(self) -> Tensor:
        """Profiles of items at length 1, (V + 1, P)."""
        return self.item_vectors
