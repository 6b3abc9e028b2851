"""SASRec on texts: items are a learned linear map of frozen features, without ID embeddings.

    e_v = W t_v,   h = Encoder(i_1 … i_n),   score(v) = h_n · e_v,   L = -log softmax(h Eᵀ)[next]

The plain form of UniSRec's adaptor (Hou et al., KDD 2022, arXiv:2206.05941), and what IGR-SR can
read its intents from (`igr_sr_text`).
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from datamodules.prepared import PreparedDataset
from datamodules.types import PAD
from intentbench.models.card import Card
from intentbench.models.sasrec import SASRec
from intentbench.models.takes_texts import TakesTexts
from intentbench.nn.transformer import EncoderName
from intentbench.text.nodes import find_profiles

CARD = Card(
    title="SASRec on texts",
    paper="the suite's: SASRec (Kang & McAuley, ICDM 2018, arXiv:1808.09781) on text features, as "
    "Hou et al., Towards Universal Sequence Representation Learning for Recommender Systems, KDD "
    "2022, arXiv:2206.05941, without experts, pre-training on other data and contrast",
    code="",
    tiny={
        "width": 32,
        "blocks": 1,
        "heads": 2,
        "dropout": 0.1,
        "text": "gaussian",
        "profile_width": 32,
        "learning_rate": 5e-3,
    },
    deviations=(
        "one linear map in place of UniSRec's mixture of whitening experts",
        "features are scaled to a mean square of 1, all by one number, and the map starts so that "
        "e has the spread that the encoder's ID embeddings would have had",
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one",
    ),
    first_loss="log_items",
    effects={"text": "which features are read"},
)


class TextItems(nn.Module):
    """Stands in for an embedding of items: W t_v.

    Features are part of the state, so that a checkpoint scores without texts. Until `read` they
    are noise, not zeros: what follows from the spread of `weight` has a spread to follow from.

    Args:
        n_items: V.
        text_width: d_t, columns of the features.
        width: D.
        spread: standard deviation of the entries of `weight` at first.

    Attributes:
        features: (V + 1, d_t), of mean square 1; row 0 (`PAD`) is zero.
    """

    features: Tensor

    def __init__(self, n_items: int, text_width: int, width: int, spread: float) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, width, bias=False)  # a bias would give PAD a vector
        nn.init.normal_(self.project.weight, std=spread / math.sqrt(text_width))
        noise = torch.randn(n_items, text_width, generator=torch.Generator().manual_seed(0))
        self.register_buffer("features", torch.cat([torch.zeros(1, text_width), noise]))

    def read(self, texts: Tensor) -> None:
        """Take over the features of V items, (V, d_t)."""
        size = texts.square().mean().sqrt().clamp(min=torch.finfo(texts.dtype).tiny)
        self.features[PAD + 1 :] = texts / size

    @property
    def weight(self) -> Tensor:
        """The item table (V + 1, D)."""
        table: Tensor = self.project(self.features)
        return table

    def forward(self, items: Tensor) -> Tensor:
        """Items (…) to vectors (…, D)."""
        vectors: Tensor = self.project(self.features[items])
        return vectors


class SASRecText(TakesTexts, SASRec):
    """SASRec with full softmax, its items made of texts.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        layout: "all" or "prefix", see `SASRec`.
        encoder: "sasrec" or "bert", see `SASRec`.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        text: source of the items' features: "tfidf-svd", a folder made by `intentbench text embed`,
            or a control; see `intentbench.text.nodes.find_texts`.
        profile_width: their columns, d_t.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        layout: Literal["all", "prefix"] = "prefix",
        encoder: EncoderName = "bert",
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        text: str = "tfidf-svd",
        profile_width: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            n_items, n_users, window, "ce", layout, encoder, width, blocks, heads, dropout,
            learning_rate=learning_rate, weight_decay=weight_decay,
        )  # fmt: skip
        self.text = text
        self.profile_width = profile_width
        spread = float(self.encoder.items.weight.detach()[PAD + 1 :].std())
        items = TextItems(n_items, profile_width, width, spread)
        self.encoder.items = items  # type: ignore[assignment]  # all that is asked of a table

    @property
    def texts(self) -> TextItems:
        """What stands in for the encoder's embedding of items."""
        return cast("TextItems", self.encoder.items)

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
        self.texts.read(found[self.n_users :].to(self.texts.features))

    def setup(self, stage: str) -> None:
        """Take the texts for training; a checkpoint holds them. Then as for every method."""
        if stage == "fit":
            self.take(self.trainer.datamodule.dataset)  # type: ignore[attr-defined]  # Lightning sets it
        super().setup(stage)
