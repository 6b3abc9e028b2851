"""CaDiRec: contrast of views that a context-aware diffusion writes (Cui et al., CIKM 2024).

The base is SASRec(bert, all, bce1). A share ρ of the items is masked; a diffusion model over item
vectors, conditioned on the items around them, says what else could stand there:

    x_0 = e_i + √(1 - ᾱ_1) ε,   x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε'   at masked positions, else x_0
    x̂_0 = DeBERTa(Drop(LN(x_t + temb(t))))      no causal mask, relative positions
    L_diff = mean over rows of the mean over masked positions of CE(x̂_0 E^T, i)
    view: each masked item becomes a random one of the 10 best of x̂_0 E^T; two views a row
    L = L_rec + β L_diff + α InfoNCE(h_last(view 1), h_last(view 2))

t is uniform in 1..T, one a row: views come from a single denoising step, not from sampling. The
views are encoded from a frozen copy of the item table. At α = β = 0 the base is left, bit for bit.
Ranking is the base's alone.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from datamodules.errors import RequestError
from datamodules.types import PAD, Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.nn.bidirectional_diffusion import DisentangledEncoder
from intentbench.nn.diffusion import GaussianDiffusion, Schedule, step_embedding
from intentbench.nn.grouping import encode_groups, encode_last
from intentbench.nn.info_nce import info_nce
from intentbench.nn.initialisation import init_normal
from intentbench.nn.losses import binary_cross_entropy, positive_and_negative_scores
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.processes import pool_mean
from intentbench.nn.transformer import SequenceEncoder

_ISSUE = "CaDiRec repository, issue 1: a user's run of the released code, epoch 290"

CARD = Card(
    title="CaDiRec",
    paper="Cui et al., Context Matters: Enhancing Sequential Recommendation with Context-aware "
    "Diffusion-based Contrastive Learning, CIKM 2024, arXiv:2405.09369",
    code="github.com/ziqiangcui/CaDiRec @ 870f0dd",
    tiny={
        "steps": 50,
        "width": 32,
        "blocks": 1,
        "denoiser_blocks": 1,
        "dropout": 0.2,
        "mask_ratio": 0.2,
        "learning_rate": 5e-3,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.0666, _ISSUE),
        Published("beauty", "ndcg@10", 0.0359, _ISSUE),
        Published("beauty", "hit_rate@20", 0.1007, _ISSUE),
        Published("beauty", "ndcg@20", 0.0445, _ISSUE),
    ),
    deviations=(
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one; the code pads on the left",
        "negatives are drawn outside the training events only: drawing outside the whole "
        "sequence, as the code does, tells the model what is held out",
        "a share of exactly mask_ratio of a batch's items is masked; the code draws each item with "
        "that probability: the number is then known without asking the device",
        "padding is no candidate of L_diff and of the views; the code has it, and a mask token",
        "the base's feed-forward layers are 4 D wide, as in the lineage; the code's are 2 D",
        "frequencies of the step embedding are those of the suite's other diffusion methods",
        "a squared error beside L_diff has weight 0 in every published setting: left out",
        "the model is selected on validation; the code prints test figures every 10 epochs",
    ),
    # the states that rank are causal; L_diff and the contrast read whole rows. C6b cannot be an
    # expected failure: it asks at the first weights, where the total moves by 1e-6, and passes
    causal=False,
)


class CaDiRec(GradientRecommender):
    """SASRec with two views of each row from a masked diffusion model.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most (N in the paper).
        alpha: α, weight of the contrast.
        beta: β, weight of L_diff.
        mask_ratio: ρ, the share of items that are noised and replaced.
        candidates: how many of the best items a replacement is drawn from.
        temperature: τ of InfoNCE.
        steps: T of the diffusion.
        schedule: of β_1 … β_T.
        width: D.
        blocks: blocks of the sequence encoder.
        heads: attention heads of both encoders; must divide `width`.
        dropout: of the sequence encoder, and of the denoiser's inputs.
        denoiser_blocks: blocks of the denoiser.
        denoiser_dropout: inside the denoiser.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        alpha: float = 0.1,
        beta: float = 0.2,
        mask_ratio: float = 0.1,
        candidates: int = 10,
        temperature: float = 1.0,
        steps: int = 1000,
        schedule: Schedule = "sqrt",
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        denoiser_blocks: int = 2,
        denoiser_dropout: float = 0.2,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        if width % 2:
            raise RequestError(
                f"CaDiRec: width {width} is odd, give an even one: a step is embedded in pairs"
            )
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.alpha = alpha
        self.beta = beta
        self.mask_ratio = mask_ratio
        self.candidates = min(candidates, n_items)
        self.temperature = temperature
        self.encoder = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        self.diffusion = GaussianDiffusion(schedule, steps)
        with torch.random.fork_rng(devices=()):  # without it, the base draws the same
            self.step_mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
            )
            self.noisy_input = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout))
            self.denoiser = DisentangledEncoder(
                window, width, denoiser_blocks, heads, denoiser_dropout
            )
            for module in (self.step_mlp, self.denoiser):
                module.apply(init_normal)
        self.sampler: UniformNegatives | None = None

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has seen: negatives are drawn outside it."""
        self.sampler = UniformNegatives(training).to(self.device)

    def encode(self, batch: Batch) -> Tensor:
        """The state after the last item, (B, D)."""
        return encode_last(batch, self.encoder.last_state)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The loss of the base, L_diff and the contrast; terms of weight 0 are left out."""
        total = self._recommendation(batch)
        terms = {"recommendation": total}
        if self.alpha or self.beta:
            items = torch.cat([batch.items[i:j, :width].flatten() for i, j, width in batch.groups])
            masked = self._masked(batch)
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.beta != 0):
                logits = self._denoise(batch, items, masked)
            if self.beta:
                places, rows = batch.select[masked], batch.rows[masked]
                terms["diffusion"] = mean_over_rows(
                    cross_entropy(logits, items[places], reduction="none"), rows, len(batch.users)
                )
                total = total + self.beta * terms["diffusion"]
            if self.alpha:
                views = self._views(items, batch.select[masked], logits.detach())
                terms["contrast"] = info_nce(*self._view_states(batch, views), self.temperature)
                total = total + self.alpha * terms["contrast"]
        return terms | {"total": total}

    def _recommendation(self, batch: SequenceBatch) -> Tensor:
        """`bce1` at every real target, as SASRec computes it."""
        states = encode_groups(batch, self.encoder)[batch.select]
        if self.sampler is None:
            raise RuntimeError("CaDiRec.prepare must see the training events before the loss")
        negatives = self.sampler.sample(batch.users[batch.rows], 1)
        return binary_cross_entropy(
            *positive_and_negative_scores(states, self.item_table(), batch.labels, negatives)
        )

    def _masked(self, batch: SequenceBatch) -> Tensor:
        """Which M of the batch's T input positions with a target are masked: (M,) in 0..T-1."""
        count = max(1, round(self.mask_ratio * len(batch.select)))
        return torch.rand(len(batch.select), device=self.device).argsort()[:count]

    def _denoise(self, batch: SequenceBatch, items: Tensor, masked: Tensor) -> Tensor:
        """Scores of all items at the masked positions, x̂_0 E^T: (M, V + 1), -inf for `PAD`.

        Args:
            batch: B rows, T input positions.
            items: (C,) cells of the batch's groups, row after row.
            masked: (M,) numbers of the masked positions.
        """
        places, rows = batch.select[masked], batch.rows[masked]
        steps = torch.randint(1, self.diffusion.steps + 1, (len(batch.users),), device=self.device)
        vectors = self.encoder.items(items)
        spread = (1 - self.diffusion.alpha_bar[0]).sqrt()
        noise = torch.randn_like(vectors[batch.select])
        clean = vectors.index_add(0, batch.select, spread * noise)
        hidden = clean[places]
        noisy = self.diffusion.diffuse(hidden, steps[rows], torch.randn_like(hidden))
        times = self.step_mlp(step_embedding(steps - 1, vectors.shape[1]).to(vectors))
        states = [
            self.denoiser(self.noisy_input(part + times[i:j, None]), batch.lengths[i:j])
            for i, j, part in _rectangles(batch, clean.index_copy(0, places, noisy))
        ]
        logits = torch.cat([part.flatten(0, 1) for part in states])[places] @ self.item_table().T
        logits[:, PAD] = -torch.inf
        return logits

    def _views(self, items: Tensor, places: Tensor, logits: Tensor) -> Tensor:
        """Two views (C, 2) of the items (C,): those at `places` (M,) give way to likely others."""
        best = logits.topk(self.candidates, dim=1).indices
        choice = torch.randint(self.candidates, (len(places), 2), device=self.device)
        return items[:, None].expand(-1, 2).index_copy(0, places, best.gather(1, choice))

    def _view_states(self, batch: SequenceBatch, views: Tensor) -> tuple[Tensor, Tensor]:
        """Last states (B, D) of either view (C, 2); items are read from a frozen table."""
        frozen = self.item_table().detach()
        states = []
        for i, j, part in _rectangles(batch, views):
            both = part.movedim(-1, 0).flatten(0, 1)  # (2 b, w): the first view of all, the second
            last = (batch.lengths[i:j] - 1).repeat(2)
            states.append(self.encoder.attend(frozen[both], last).view(2, j - i, -1))
        first, second = torch.cat(states, 1)
        return first, second


def mean_over_rows(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Mean over `count` rows of the mean of each row's values; a row without any counts as 0.

    Args:
        values: (M,).
        rows: (M,) row of each value.
        count: B, number of rows.
    """
    per_row = values.new_zeros(count).index_add(0, rows, torch.ones_like(values.detach()))
    return pool_mean((values / per_row[rows]).sum() / count, count)


def _rectangles(batch: Batch, cells: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Cut joined cells (C, …) into the batch's groups: first row, row after the last, (b, w, …)."""
    begin = 0
    for start, stop, width in batch.groups:
        end = begin + (stop - start) * width
        yield start, stop, cells[begin:end].view(stop - start, width, *cells.shape[1:])
        begin = end
