"""RLMRec-Con: embeddings that agree with profiles (Ren et al., WWW 2024).

    p     = W₂ LeakyReLU(W₁ x + b₁) + b₂          x a node's frozen profile features
    L_prf = NCE_τ(e_u, p_u; all users) + NCE_τ(e_i, p_i; batch) + NCE_τ(e_j, p_j; batch)
    L     = L_base + λ_p L_prf + λ_Θ Σ_W ‖W‖²

(u, i, j) are the training pairs with their negatives, e the embeddings that the base method
scores with.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from intentbench.models.card import Card
from intentbench.models.graph import Triples, Views
from intentbench.models.graph_text import (
    BaseArgument,
    TextGraphRecommender,
    TextTower,
    align,
    published,
)
from intentbench.nn.processes import gather_fields
from intentbench.nn.text_alignment import project

CARD = Card(
    title="RLMRec-Con",
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
        "RLMRec-Con",
        {
            "lightgcn": (0.1483, 0.0903, 0.1230, 0.0776, 0.1697, 0.0918),
            "sgl": (0.1528, 0.0945, 0.1248, 0.0790, 0.1747, 0.0978),
            "simgcl": (0.1552, 0.0942, 0.1292, 0.0814, 0.1763, 0.1020),
            "dccf": (0.1563, 0.0968, 0.1321, 0.0836, 0.1790, 0.1048),
            "bigcf": (0.1574, 0.0977, 0.1284, 0.0815, 0.1845, 0.1046),
        },
    ),
    deviations=(
        "profiles are what `text` names; the authors' are written by GPT-3.5-turbo and embedded by "
        "text-embedding-ada-002",
        "another row of the same item is no negative of it in a batch; in the code it is one "
        "(mask_same=false)",
    ),
    personal=True,
    effects={
        "base": "which method it is added to",
        "base_arguments": "arguments of that method",
        "text": "which features are read",
    },
)


class RLMRecCon(TextGraphRecommender):
    """RLMRec by contrast.

    Args:
        n_items: V.
        n_users: N.
        base: key of the method on the graph.
        base_arguments: its constructor arguments; its `l2` is λ_Θ.
        weight: λ_p; 0 is the base method.
        temperature: τ.
        mask_same: whether other rows of an item are no negatives of it in a batch.
        text: source of the features.
        profile_width: columns of the profiles' features.
        learning_rate: of Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        base: str = "lightgcn",
        base_arguments: Mapping[str, BaseArgument] | None = None,
        weight: float = 1e-2,
        temperature: float = 0.2,
        mask_same: bool = True,
        text: str = "tfidf-svd",
        profile_width: int = 128,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(
            n_items, n_users, base, base_arguments, text, None, profile_width, learning_rate
        )
        self.weight = weight
        self.temperature = temperature
        self.mask_same = mask_same
        if weight:
            with torch.random.fork_rng(devices=()):
                self.tower = TextTower(profile_width, self.base.width)

    def own_terms(self, views: Views, triples: Triples) -> dict[str, Tensor]:
        """λ_p L_prf, "profile"."""
        if not self.weight:
            return {}
        triples = gather_fields(triples)
        everyone = torch.arange(self.n_users, device=self.device)
        nodes = torch.cat([everyone, triples.positives, triples.negatives])
        profiles = project(self.tower, self.profile_text, nodes)
        term = align(views.final, profiles, triples, self.n_users, self.temperature, self.mask_same)
        return {"profile": self.weight * term}
