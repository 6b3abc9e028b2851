"""DiffuRec: the target as a distribution that the history denoises (Li et al., ACM TOIS 2023).

Layout "prefix". Training noises the embedding of the target, x_0 = e_target, and lets a transformer
without order and without a causal mask rebuild it from the history:

    x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε,   t uniform in 1..T
    z_j = LN(Drop(e_j)) + ω_j ⊙ (x_t + MLP(temb(t))),   ω_j ~ N(δ, δ²), each element apart
    x̂_0 = LN(Drop(Trm(z)))_last,   L = CE(x̂_0 E^T, target)

Ranking starts from noise x_T and, for t = T … 1, rebuilds x̂_0 and draws x_{t-1} from the posterior;
the last step gives x̂_0 itself, score(v) = x̂_0 · e_v.
"""

import torch
from torch import Tensor, nn

from datamodules.errors import RequestError
from datamodules.rows import Layout
from datamodules.types import PAD, Batch, SequenceBatch
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card
from intentbench.nn.bidirectional_diffusion import PreNormBlock
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.diffusion import GaussianDiffusion, Schedule, step_embedding

CARD = Card(
    title="DiffuRec",
    paper="Li, Sun & Li, DiffuRec: A Diffusion Model for Sequential Recommendation, ACM TOIS 2023, "
    "arXiv:2304.00686",
    code="github.com/WHUIR/DiffuRec @ f6f70c9",
    tiny={
        "steps": 6,
        "uncertainty": 0.05,
        "width": 32,
        "blocks": 2,
        "heads": 2,
        "embedding_dropout": 0.1,
        "learning_rate": 5e-3,
    },
    deviations=(
        "padding is hidden from attention; the code's mask blanks the scores of padded queries, so "
        "that real positions attend to padding: a user's scores then depend on the window's width",
        "all users are ranked from the same noise, drawn from sampling_seed at every call: a user "
        "alone scores as in a batch, and twice the same; the code draws new noise for each",
        "the reverse process draws with the posterior's variance; the code takes beta_t",
        "padding is no candidate of the loss; its embedding is zero and is not trained",
        "frequencies of the step embedding are those of the suite's other diffusion methods",
        "steps are drawn uniformly: the code's loss-aware sampler is never told a loss, and is so "
        "too",
        "validation every epoch with patience as in the suite; the code looks every 20 epochs and "
        "keeps a model when any of six metrics improves",
        "the ranking leaves the history out unless the protocol says otherwise; the code keeps it "
        "in",
    ),
    causal=False,
    effects={
        "decay": "the learning rate after decay_every epochs",
        "decay_every": "the learning rate after as many epochs",
    },
)


class DiffuRec(GradientRecommender):
    """A transformer that denoises the target's embedding; the defaults are the authors' settings.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most (N in the paper).
        steps: T of the diffusion.
        schedule: of β_1 … β_T.
        uncertainty: δ, mean and standard deviation of ω.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of attention and blocks.
        embedding_dropout: of the items' embeddings.
        sampling_seed: of the noise that ranking starts from.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
        decay: what the learning rate is multiplied by every `decay_every` epochs.
        decay_every: epochs.
    """

    CARD = CARD
    layout: Layout = "prefix"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        steps: int = 32,
        schedule: Schedule = "trunc_lin",
        uncertainty: float = 1e-3,
        width: int = 128,
        blocks: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        embedding_dropout: float = 0.3,
        sampling_seed: int = 0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        decay: float = 0.1,
        decay_every: int = 100,
    ) -> None:
        if width % 2:
            raise RequestError(
                f"DiffuRec: width {width} is odd, give an even one: a step is embedded in pairs"
            )
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.uncertainty = uncertainty
        self.sampling_seed = sampling_seed
        self.decay = decay
        self.decay_every = decay_every
        self.items = nn.Embedding(n_items + 1, width, padding_idx=PAD)  # N(0, 1), as published
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.first_norm = nn.LayerNorm(width, eps=1e-12)
        self.step_mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )
        self.blocks = nn.ModuleList(PreNormBlock(width, heads, dropout) for _ in range(blocks))
        self.dropout = nn.Dropout(dropout)
        self.last_norm = nn.LayerNorm(width, eps=1e-12)
        self.diffusion = GaussianDiffusion(schedule, steps)

    def on_train_epoch_start(self) -> None:
        """Set the learning rate of this epoch, a function of its number alone."""
        super().on_train_epoch_start()
        rate = self.learning_rate * self.decay ** (self.current_epoch // self.decay_every)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def item_table(self) -> Tensor:
        """The item table (V + 1, D), input and output."""
        return self.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Cross-entropy of the target under what is rebuilt from its noised embedding."""
        clean = self.items(batch.labels)
        steps = torch.randint(1, self.diffusion.steps + 1, batch.labels.shape, device=self.device)
        noisy = self.diffusion.diffuse(clean, steps, torch.randn_like(clean))
        shape = (len(clean), self.window, clean.shape[1])  # not the batch's width: see C5b
        spread = torch.randn(shape, device=self.device)
        rebuilt = self.approximate(batch, self._histories(batch), noisy, steps, spread)
        return {"total": chunked_cross_entropy(rebuilt, self.item_table(), batch.labels)}

    def encode(self, batch: Batch) -> Tensor:
        """x̂_0 (B, D) at the end of the reverse process."""
        rows, width, count = len(batch.users), self.items.embedding_dim, self.diffusion.steps
        generator = torch.Generator().manual_seed(self.sampling_seed)
        drawn = torch.randn(count, 1 + self.window, width, generator=generator).to(self.device)
        noise, spread = drawn[:, 0], drawn[:, 1:]  # row 0 of `noise` is x_T, row t - 1 that of t
        histories = self._histories(batch)
        state = noise[0].expand(rows, -1)
        for step in range(count, 0, -1):
            steps = torch.full((rows,), step, device=self.device)
            clean = self.approximate(batch, histories, state, steps, spread[step - 1][None])
            state = self.diffusion.reverse(state, clean, step, noise[step - 1])
        return state

    def approximate(
        self,
        batch: Batch,
        histories: list[Tensor],
        noisy: Tensor,
        steps: Tensor,
        spread: Tensor,
    ) -> Tensor:
        """x̂_0 (B, D) of the history and x_t.

        Args:
            batch: B rows.
            histories: LN(Drop(e)) of each group, (b, w, D).
            noisy: (B, D) x_t.
            steps: (B,) t in 1..T.
            spread: (B or 1, N, D) standard normal, from which ω is made.
        """
        scaled = (steps - 1) * (1000 / self.diffusion.steps)
        signal = noisy + self.step_mlp(step_embedding(scaled, noisy.shape[1]).to(noisy))
        omega = self.uncertainty * (1 + spread)
        states = []
        for (start, stop, width), history in zip(batch.groups, histories, strict=True):
            own = omega[start:stop, :width] if len(omega) > 1 else omega[:, :width]
            state = history + own * signal[start:stop, None]
            for number, block in enumerate(self.blocks, 1):
                state = block(state, batch.lengths[start:stop], number == len(self.blocks))
            states.append(state.squeeze(1))
        result: Tensor = self.last_norm(self.dropout(torch.cat(states)))
        return result

    def _histories(self, batch: Batch) -> list[Tensor]:
        """LN(Drop(e)) (b, w, D) of each group."""
        return [
            self.first_norm(self.embedding_dropout(self.items(batch.items[start:stop, :width])))
            for start, stop, width in batch.groups
        ]
