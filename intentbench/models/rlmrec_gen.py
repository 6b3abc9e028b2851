"""RLMRec-Gen: profiles are told from masked nodes (Ren et al., WWW 2024).

A step hides max(1, ⌊ρ n⌋) of the n nodes: the ID embedding of each is replaced by one learned mask,
the base method runs on that, and its output at the hidden nodes must tell whose profile is whose:

    x̂     = W₂ LeakyReLU(W₁ e + b₁) + b₂
    L_rec = NCE_τ(x̂_m, x_m; hidden nodes)          x a node's frozen profile features
    L     = L_base + λ_r L_rec + λ_Θ Σ_W ‖W‖²

L_base is of the masked pass too. Scores are those of the unmasked one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datamodules.errors import RequestError
from datamodules.types import SequenceBatch
from intentbench.models.card import Card
from intentbench.models.graph_text import (
    BaseArgument,
    OwnDraws,
    TextGraphRecommender,
    TextTower,
    published,
)
from intentbench.nn.node_contrast import nce_against_all

CARD = Card(
    title="RLMRec-Gen",
    paper="Ren et al., Representation Learning with Large Language Models for Recommendation, "
    "WWW 2024, arXiv:2310.15950",
    code="https://github.com/HKUDS/RLMRec",
    tiny={
        "base_arguments": {"width": 16, "layers": 2, "keep": 0.9},
        "text": "gaussian",
        "profile_width": 8,
        "learning_rate": 2e-2,
    },
    published=published(
        "RLMRec-Gen",
        {
            "lightgcn": (0.1446, 0.0887, 0.1209, 0.0761, 0.1705, 0.0921),
            "sgl": (0.1537, 0.0947, 0.1263, 0.0798, 0.1760, 0.0972),
            "simgcl": (0.1525, 0.0925, 0.1267, 0.0803, 0.1781, 0.1034),
            "dccf": (0.1559, 0.0969, 0.1281, 0.0815, 0.1778, 0.1041),
            "bigcf": (0.1555, 0.0965, 0.1259, 0.0802, 0.1814, 0.1031),
        },
    ),
    deviations=(
        "profiles are what `text` names; the authors' are written by GPT-3.5-turbo and embedded by "
        "text-embedding-ada-002",
        "on every base the masked nodes are what it runs on; IRLLRec's code draws them for BIGCF "
        "without feeding them to it",
    ),
    personal=True,
    effects={
        "base": "which method it is added to",
        "base_arguments": "arguments of that method",
        "text": "which features are read",
    },
)


class RLMRecGen(TextGraphRecommender):
    """RLMRec by reconstruction.

    Args:
        n_items: V.
        n_users: N.
        base: key of the method on the graph.
        base_arguments: its constructor arguments; its `l2` is λ_Θ.
        masked: ρ in (0, 1], the share of the nodes that a step hides.
        weight: λ_r; 0 is the base method, without masks.
        temperature: τ.
        text: source of the features.
        profile_width: columns of the profiles' features.
        learning_rate: of Adam.

    Raises:
        RequestError: ρ is no such share.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        base: str = "lightgcn",
        base_arguments: Mapping[str, BaseArgument] | None = None,
        masked: float = 0.15,
        weight: float = 0.1,
        temperature: float = 0.5,
        text: str = "tfidf-svd",
        profile_width: int = 128,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(
            n_items, n_users, base, base_arguments, text, None, profile_width, learning_rate
        )
        if not 0 < masked <= 1:
            raise RequestError(f"rlmrec_gen: masked is a share above 0 and up to 1, not {masked}")
        self.masked = masked
        self.weight = weight
        self.temperature = temperature
        if weight:
            with torch.random.fork_rng(devices=()):
                self.mask = nn.Parameter(torch.zeros(self.base.width))
                self.decoder = TextTower(self.base.width, profile_width)
                self.draws = OwnDraws()

    def hidden(self) -> Tensor:
        """Nodes (max(1, ⌊ρ n⌋),) that a step hides, each once."""
        n = self.n_users + self.n_items
        order = torch.randperm(n, generator=self.draws.generator())
        return order[: max(1, int(self.masked * n))].to(self.device)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The base method's terms of the masked pass, "reconstruction", then "l2"."""
        if not self.weight:
            return super().loss(batch)
        hidden = self.hidden()
        nodes = self.nodes()
        views = self.base.views(nodes.index_put((hidden,), self.mask.expand(len(hidden), -1)))
        terms = self.base.base_terms(views, self.base.triples(batch))
        guesses = self.decoder(views.final[hidden])
        own = torch.arange(len(hidden), device=self.device)
        told = nce_against_all(guesses, self.profile_text[hidden], own, self.temperature)
        return self.summed({**terms, "reconstruction": self.weight * told})
