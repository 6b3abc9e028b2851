"""DreamRec: generate the next item's embedding by guided diffusion (Yang et al., NeurIPS 2023).

Layout "prefix". There are no negatives: the embedding of the target, x_0 = e_target, is noised and
rebuilt under the guidance g of the history,

    g = Trm(i_1 … i_n)_last, replaced by a learned vector ∅ with probability p
    x̂_0 = f(x_t, g, t),   L = mean((x̂_0 - x_0)²),   t uniform in 1..T

Ranking starts from noise x_T and, for t = T … 1, draws x_{t-1} from the posterior given

    x̂_0 = (1 + w) f(x_t, g, t) - w f(x_t, ∅, t)

score(v) = x_0 · e_v of the vector at the end. f and the guidance are those of `nn.denoiser`.
"""

import torch
from torch import Tensor, nn

from datamodules.errors import RequestError
from datamodules.rows import Layout
from datamodules.types import PAD, Batch, SequenceBatch
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card
from intentbench.nn.denoiser import DenoiserName, GuidedDiffusion
from intentbench.nn.diffusion import Schedule
from intentbench.nn.grouping import encode_last
from intentbench.nn.transformer import SASRecBlock

CARD = Card(
    title="DreamRec",
    paper="Yang et al., Generate What You Prefer: Reshaping Sequential Recommendation via Guided "
    "Diffusion, NeurIPS 2023, arXiv:2310.20453",
    code="github.com/YangZhengyi98/DreamRec @ 454133c",
    tiny={
        "steps": 30,
        "guidance_dropout": 0.05,
        "guidance_weight": 0.1,
        "learning_rate": 2e-3,
    },
    deviations=(
        "windows are padded on the right and positions counted from the first item, as everywhere "
        "in the suite",
        "all users are ranked from the same noise, drawn from sampling_seed at every call: a user "
        "alone scores as in a batch, and twice the same; the code draws new noise for each",
        "the attention block is SASRec's: one layer norm at its end, where the code has two in a "
        "row, and a dropout more inside the feed-forward layers",
        "steps are embedded as 1..T; the code counts them from 0",
        "an epoch is a permutation of the prefixes; the code draws batches with replacement",
        "leave-one-out splits; the published figures are on 8:1:1 splits of other datasets, with "
        "the history left in the ranking, and are not quoted",
    ),
)


class DreamRec(GradientRecommender):
    """Guided diffusion of the next item's embedding; the defaults are the code's.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        steps: T of the diffusion: 200, 500 or 2000 in the paper.
        schedule: of β_1 … β_T.
        denoiser: "mlp1" one linear layer, "mlp2" two with GELU and 2 D units between.
        guidance_dropout: p, how often a training row is unconditional.
        guidance_weight: w; 0 leaves ∅ without a part in the ranking.
        width: D.
        heads: attention heads; must divide `width`.
        dropout: of the history's transformer.
        sampling_seed: of the noise that ranking starts from.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD
    layout: Layout = "prefix"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        steps: int = 200,
        schedule: Schedule = "exp",
        denoiser: DenoiserName = "mlp1",
        guidance_dropout: float = 0.1,
        guidance_weight: float = 2.0,
        width: int = 64,
        heads: int = 1,
        dropout: float = 0.1,
        sampling_seed: int = 0,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.0,
    ) -> None:
        if width % 2:
            raise RequestError(
                f"DreamRec: width {width} is odd, give an even one: a step is embedded in pairs"
            )
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.sampling_seed = sampling_seed
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)  # N(0, 1), as published
        self.positions = nn.Embedding(window, width)
        self.dropout = nn.Dropout(dropout)
        self.block = SASRecBlock(width, heads, dropout)
        self.last_norm = nn.LayerNorm(width)
        self.diffusion = GuidedDiffusion(
            width, denoiser, schedule, steps, guidance_weight, guidance_dropout
        )

    def item_table(self) -> Tensor:
        """The item table (V + 1, D)."""
        return self.items.weight

    def guidance(self, items: Tensor, lengths: Tensor) -> Tensor:
        """The guidance g (b, D) of items (b, w) and lengths (b,)."""
        states = self.dropout(self.items(items) + self.positions.weight[: items.shape[1]])
        result: Tensor = self.last_norm(self.block(states, (lengths - 1).clamp(min=0))).squeeze(1)
        return result

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The squared error; beside it, what shows a collapse of the item table."""
        clean = self.items(batch.labels)
        guidance = encode_last(batch, self.guidance)
        rows = torch.arange(len(clean), device=self.device)
        total = self.diffusion.loss(clean, guidance, rows)
        return {"total": total, **spread_of(self.items.weight.detach()[1:])}

    def encode(self, batch: Batch) -> Tensor:
        """The generated embedding (B, D); it has no gradient."""
        guidance = encode_last(batch, self.guidance)
        generator = torch.Generator().manual_seed(self.sampling_seed)
        shape = (self.diffusion.process.steps, 1, guidance.shape[1])
        noise = torch.randn(shape, generator=generator).to(self.device)
        return self.diffusion.generate(guidance, noise)


def spread_of(vectors: Tensor) -> dict[str, Tensor]:
    """How long vectors (V, D) are, and how much they differ: both near 0 where they collapse.

    Returns:
        "item_norm", the root mean square of their lengths, and "item_spread", the share of their
        mean square that is not their common mean.
    """
    square = vectors.square().sum(1).mean()
    return {"item_norm": square.sqrt(), "item_spread": 1 - vectors.mean(0).square().sum() / square}
