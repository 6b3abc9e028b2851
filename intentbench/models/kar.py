"""KAR on a graph: what texts know enters with the ID embeddings, and nothing aligns the two.

    v_t(x)  = Σ_k softmax(W_t x + b_t)_k Expert_k(x)      over shared experts and those of t
    E⁰_user = ID_user + v_user(x_user),   E⁰_item = ID_item + v_item(x_item)
    L       = L_base + λ_Θ Σ_W ‖W‖²

The hybrid-expert adaptor v is that of Xi et al., RecSys 2024, where its output joins the features
of a click model. To a method on the graph it is added here in a way of our own: how the KAR of
IRLLRec's table 2 was made is not published.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datamodules.errors import RequestError
from intentbench.models.card import Card
from intentbench.models.graph_text import BaseArgument, TextGraphRecommender, published

CARD = Card(
    title="KAR (adapted)",
    paper="Xi et al., Towards Open-World Recommendation with Knowledge Augmentation from Large "
    "Language Models, RecSys 2024, arXiv:2306.10933",
    code="https://github.com/YunjiaXi/Open-World-Knowledge-Augmented-Recommendation",
    tiny={
        "base_arguments": {"width": 16, "layers": 2, "keep": 0.9},
        "text": "gaussian",
        "profile_width": 8,
        "own_experts": 2,
        "hidden": 8,
        "learning_rate": 2e-2,
    },
    published=published(
        "KAR",
        {
            "lightgcn": (0.1416, 0.0860, 0.1194, 0.0756, 0.1653, 0.0905),
            "sgl": (0.1435, 0.0875, 0.1200, 0.0757, 0.1647, 0.0958),
            "simgcl": (0.1520, 0.0924, 0.1265, 0.0804, 0.1685, 0.1005),
            "dccf": (0.1521, 0.0949, 0.1257, 0.0808, 0.1750, 0.1029),
            "bigcf": (0.1559, 0.0961, 0.1245, 0.0799, 0.1808, 0.1030),
        },
    ),
    deviations=(
        "an adaptation of ours: the paper augments click models; the adapted knowledge is added to "
        "the ID embeddings of a method on the graph",
        "knowledge is the profile that `text` names; the paper asks a language model for reasons "
        "of users and facts of items, factor by factor",
        "experts end without their last ReLU: what is added to an embedding may be negative",
    ),
    personal=True,
    effects={
        "base": "which method it is added to",
        "base_arguments": "arguments of that method",
        "text": "which features are read",
    },
)


class KAR(TextGraphRecommender):
    """KAR on a graph.

    Args:
        n_items: V.
        n_users: N.
        base: key of the method on the graph.
        base_arguments: its constructor arguments; its `l2` is λ_Θ.
        shared_experts: experts of users and items both.
        own_experts: experts of users alone, and of items alone.
        hidden: width inside an expert.
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
        shared_experts: int = 2,
        own_experts: int = 4,
        hidden: int = 128,
        text: str = "tfidf-svd",
        profile_width: int = 128,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(
            n_items, n_users, base, base_arguments, text, None, profile_width, learning_rate
        )
        with torch.random.fork_rng(devices=()):
            self.adaptor = ExpertAdaptor(
                profile_width, hidden, self.base.width, shared_experts, own_experts
            )
        self.base.enter = self.informed

    def informed(self, ids: Tensor) -> Tensor:
        """ID embeddings (n, D) and what texts know, added."""
        users, items = self.profile_text[: self.n_users], self.profile_text[self.n_users :]
        known: Tensor = self.adaptor(users, items)
        return ids + known


class ExpertAdaptor(nn.Module):
    """Experts of users, of items and of both, mixed by what they read.

    Args:
        text_width: d_t.
        hidden: width inside an expert.
        width: D.
        shared: experts of both sides.
        own: experts of each side.

    Raises:
        RequestError: a side without experts.
    """

    def __init__(self, text_width: int, hidden: int, width: int, shared: int, own: int) -> None:
        super().__init__()
        if min(shared, own) < 0 or shared + own < 1:
            raise RequestError(f"kar: a side needs an expert, found {shared} shared and {own} own")

        def experts(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(nn.Linear(text_width, hidden), nn.ReLU(), nn.Linear(hidden, width))
                for _ in range(count)
            )

        self.shared = experts(shared)
        self.users, self.items = experts(own), experts(own)
        self.user_gate = nn.Linear(text_width, shared + own)
        self.item_gate = nn.Linear(text_width, shared + own)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """What users (N, d_t) and items (V, d_t) have in the space of embeddings, (N + V, D)."""
        return torch.cat(
            [
                self._mixed(users, self.user_gate, self.users),
                self._mixed(items, self.item_gate, self.items),
            ]
        )

    def _mixed(self, texts: Tensor, gate: nn.Linear, own: nn.ModuleList) -> Tensor:
        shares = gate(texts).softmax(1)
        experts = [*self.shared, *own]
        mixed = [shares[:, k, None] * expert(texts) for k, expert in enumerate(experts)]
        return torch.stack(mixed).sum(0)
