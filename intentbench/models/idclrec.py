"""IDCLRec: disentangled intent and interest, intent contrast (Choi & Lim 2025, arXiv 2501.07096).

    H = Encoder(S),  R = CausalCrossAttention(H),  I = H - R        behaviour = interest + intent
    C_j = [cos(I_j, I_n) ≥ δ],  i = Σ_j α_j I_j,  g = mean of E[s_j] over C    categorical intent
    score(v) = (R_n + i) · e_v
    L = L_rec + λ_d L_d + λ_1 L_CL1 + λ_2 L_CL2

- L_rec: softmax over the catalogue;
- L_d: neighbouring intents are alike, mean of 1 - cos(I_t, I_{t-1});
- L_CL1: InfoNCE between i and the i' of another prefix with the same next item;
- L_CL2: InfoNCE between i and g, the centroid of the items that were consumed under it.

No code was published, and the equations were not at hand: causal mask, residual intent, threshold,
importance, the two contrasts and the equal sum follow the abstract and second-hand accounts, the
rest is reconstructed after ICSRec. With δ > 1 the scores are SASRec's.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from datamodules.types import PAD, Batch, SequenceBatch, TrainingData
from intentbench.models.card import Card
from intentbench.models.intent import IntentRecommender, Intents
from intentbench.nn.adjustment import Adjustment, adjustment, signatures
from intentbench.nn.clipping import clip_gradients
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.disentangle import (
    Disentangler,
    FusionName,
    Importance,
    Reading,
    Split,
    Threshold,
    Values,
)
from intentbench.nn.grouping import encode_groups, encode_last
from intentbench.nn.info_nce import info_nce
from intentbench.nn.prefixes import Prefixes
from intentbench.nn.processes import pool_mean
from intentbench.nn.transformer import SequenceEncoder
from intentbench.nn.views import crop_mask_reorder, random_view

Augmentation = Literal["prefixes", "dropout_only", "crop_mask_reorder"]

EDITS = crop_mask_reorder(0.6, 0.3, 0.6)
"""Ratios as in the CL4SRec of DuoRec's code."""

CARD = Card(
    title="IDCLRec (reconstructed)",
    paper="Choi & Lim, Intent-Interest Disentanglement and Item-Aware Intent Contrastive Learning "
    "for Sequential Recommendation, arXiv:2501.07096",
    code="",
    tiny={"width": 32, "blocks": 1, "dropout": 0.1, "learning_rate": 5e-3},
    deviations=(
        "a reconstruction: no code was published, and the paper's equations and tables were not "
        "at hand; each open point is an argument, so that it can be studied",
        "L_d is an attraction of neighbouring intents: of the forms that fit what is known (it "
        "acts on intents over time, and makes them all alike where it is too strong) the simplest",
        "subsequence augmentation: every prefix is a sample and its partner another prefix with "
        "the same next item, drawn uniformly, as ICSRec means it; ICSRec's code always takes the "
        "same partner",
        "importance of an intent is its mean scaled product with the intents of its category; the "
        "centroid is of consumed items, uniformly, so that it never holds the target; rows with "
        "the same next item are no negatives of each other, as in ICSRec",
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one; the lineage pads on the left",
        "a vector shorter than 1e-4 has cosine 0 with every other: where interest and behaviour "
        "are equal, the intent is rounding",
    ),
    effects={"top_m": "threshold top_m only", "margin": "ld_form ranked and relative only"},
)


class IDCLRec(IntentRecommender):
    """IDCLRec, with a switch for each open point.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        width: D.
        blocks: number of encoder blocks.
        heads: attention heads of the encoder.
        dropout: of embeddings, attention and blocks.
        cca_heads, cca_self, cca_values, threshold, delta, top_m, importance, fusion: see
            `nn.disentangle.Disentangler`.
        layout: "prefix", every prefix a row; or "all", one row a user with targets at all
            positions, of which the last is contrasted.
        augmentation: the two views of a row. "prefixes": itself, and another one with its next item
            (or itself again); "dropout_only": itself, twice; "crop_mask_reorder": two edits of it.
        lambda_d: weight of L_d.
        ld_form: which L_d, see `nn.disentangle.adjustment`.
        margin: μ of L_d, where its form has one.
        lambda_1: weight of L_CL1.
        lambda_2: weight of L_CL2.
        temperature: τ of both contrasts.
        cosine: contrast directions instead of vectors.
        contrast_on: "categorical" i, or "raw" q.
        centroid: weights of the items: "uniform" over the category, or "importance" α.
        centroid_items: those "consumed" at the positions, or the "next" ones, target included.
        detach_items: whether L_CL2 takes the centroid as given.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
        clip: norm that gradients are clipped to; 0 leaves them alone.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        cca_heads: int = 1,
        cca_self: bool = True,
        cca_values: Values = "projected",
        threshold: Threshold = "fixed",
        delta: float = 0.7,
        top_m: int = 3,
        importance: Importance = "mean_dot",
        fusion: FusionName = "sum",
        layout: Literal["all", "prefix"] = "prefix",
        augmentation: Augmentation = "prefixes",
        lambda_d: float = 0.1,
        ld_form: Adjustment = "adjacent",
        margin: float = 0.2,
        lambda_1: float = 0.5,
        lambda_2: float = 0.1,
        temperature: float = 1.0,
        cosine: bool = False,
        contrast_on: Literal["categorical", "raw"] = "categorical",
        centroid: Literal["uniform", "importance"] = "uniform",
        centroid_items: Literal["consumed", "next"] = "consumed",
        detach_items: bool = False,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        clip: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.layout = layout
        self.augmentation = augmentation
        self.lambda_d, self.lambda_1, self.lambda_2 = lambda_d, lambda_1, lambda_2
        self.ld_form, self.margin = ld_form, margin
        self.temperature, self.cosine = temperature, cosine
        self.contrast_on = contrast_on
        self.centroid, self.centroid_items = centroid, centroid_items
        self.detach_items = detach_items
        self.clip = clip
        self.encoder = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        with torch.random.fork_rng(devices=()):  # SASRec's weights, bit for bit
            self.disentangle = Disentangler(
                width, cca_heads, dropout, cca_self, cca_values,
                threshold, delta, top_m, importance, fusion,
            )  # fmt: skip
        self.prefixes: Prefixes | None = None

    def prepare(self, training: TrainingData) -> None:
        """Index the prefixes by next item, where partners are drawn."""
        if self.augmentation == "prefixes" and (self.lambda_1 or self.lambda_2):
            self.prefixes = Prefixes(training, self.window).to(self.device)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def encode(self, batch: Batch) -> Tensor:
        """Interest and categorical intent after the last item, fused: (B, D)."""
        lookup = self.encoder.items
        return encode_last(
            batch, lambda rows, lengths: self._read(lookup(rows), lengths).fused[:, 0]
        )

    def intents(self, batch: SequenceBatch) -> Intents:
        """I, H and R; a category is one sequence's own, so there is no assignment."""
        split = encode_groups(
            batch, lambda items: torch.cat(self.disentangle.split(self.encoder(items)), -1)
        )
        states, interests, intents = split[batch.select].chunk(3, 1)
        return Intents(intents, states, interests=interests)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The terms of the loss, and what tells of a failed split."""
        queries, splits, readings, views = [], [], [], []
        for start, stop, width in batch.groups:
            items, lengths = batch.items[start:stop, :width], batch.lengths[start:stop]
            vectors = self.encoder.items(items)
            split = self.disentangle.split(self.encoder.attend(vectors))
            current = wanted = self.disentangle.read(split, lengths[:, None] - 1)
            if self.layout == "all":
                every = torch.arange(width, device=items.device).expand_as(items)
                wanted = self.disentangle.read(split, every)
            queries.append(wanted.fused.flatten(0, 1))
            splits.append(split)
            readings.append(current)
            if self.lambda_1 or self.lambda_2:
                views.append(self._view(items, vectors, current))
        fused = torch.cat(queries)
        if self.layout == "all":
            fused = fused[batch.select]
        total = chunked_cross_entropy(fused, self.item_table(), batch.labels)
        terms = {"recommendation": total, **signatures(readings)}
        if self.lambda_d:
            terms["adjustment"] = self._adjustment(batch, splits)
            total = total + self.lambda_d * terms["adjustment"]
        if self.lambda_1 or self.lambda_2:
            first, second = self._views(batch, torch.cat(views), terms)
            total = total + self._contrast(batch, first, second, terms)
        return {"total": total, **terms}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to `clip`, where the Trainer asks for nothing else."""
        limit = (self.clip or None) if gradient_clip_val is None else gradient_clip_val
        clip_gradients(self, optimizer, limit, gradient_clip_algorithm)

    def _adjustment(self, batch: SequenceBatch, splits: Sequence[Split]) -> Tensor:
        """L_d, over all positions of all rows; 0 where no row is long enough."""
        noise = torch.rand(len(batch.users), self.window, device=batch.users.device)
        parts = [
            adjustment(self.ld_form, self.margin, split, batch.lengths[i:j], noise[i:j])
            for split, (i, j, _) in zip(splits, batch.groups, strict=True)
        ]
        sums, counts = (torch.stack(part).sum() for part in zip(*parts, strict=True))
        return pool_mean(sums / counts.clamp(min=1), counts)

    def _read(self, vectors: Tensor, lengths: Tensor) -> Reading:
        """The last position of each row of item vectors (B, n, D)."""
        split = self.disentangle.split(self.encoder.attend(vectors))
        return self.disentangle.read(split, (lengths[:, None] - 1).clamp(min=0))

    def _view(self, items: Tensor, vectors: Tensor, current: Reading) -> Tensor:
        """Intent, centroid, and its missing share, of an item yet to come: (B, 2 D + 1)."""
        shares = current.weights if self.centroid == "importance" else current.shares
        if self.centroid_items == "next":  # the last item is followed by PAD, a row of zeros
            shares, items, vectors = shares[..., :-1], items[:, 1:], vectors[:, 1:]
        missing = 1 - shares @ (items != PAD).to(shares.dtype)[..., None]
        intent = current.raw if self.contrast_on == "raw" else current.intent
        return torch.cat([intent, shares @ vectors, missing], 2).squeeze(1)

    def _views(
        self, batch: SequenceBatch, first: Tensor, terms: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Two views of each row, (B, 2 D + 1) each; `first` is the row itself."""

        def encode(items: Tensor, lengths: Tensor) -> Tensor:
            vectors = self.encoder.items(items)
            return self._view(items, vectors, self._read(vectors, lengths))

        if self.augmentation == "crop_mask_reorder":
            rows = (batch.items, batch.lengths)
            drawn = [random_view(*rows, EDITS, self.window) for _ in range(2)]
            # edits make no row longer: the groups still fit
            edited = [replace(batch, items=items, lengths=lengths) for items, lengths in drawn]
            return encode_last(edited[0], encode), encode_last(edited[1], encode)
        if self.augmentation == "dropout_only":
            return first, encode_last(batch, encode)
        if self.prefixes is None:
            raise RuntimeError("IDCLRec.prepare must see the training events before the loss")
        partners = self.prefixes.partners(batch.users, batch.key)
        # a row that is its own partner counts too; on views of one user, overlap solves L_CL1
        terms["same_user"] = (self.prefixes.users[partners] == batch.users).float().mean()
        return first, self.prefixes.encode(partners, encode)

    def _contrast(
        self, batch: SequenceBatch, first: Tensor, second: Tensor, terms: dict[str, Tensor]
    ) -> Tensor:
        """λ_1 L_CL1 + λ_2 L_CL2 of two views; rows with one next item are no negatives."""
        target = batch.targets.gather(1, batch.lengths[:, None] - 1).squeeze(1)

        def compare(one: Tensor, other: Tensor) -> Tensor:
            return info_nce(one, other, self.temperature, target, self.cosine)

        width = (first.shape[1] - 1) // 2
        views = [torch.split(view, [width, width, 1], 1) for view in (first, second)]
        total = first.new_zeros(())
        if self.lambda_1:
            terms["intent_intent"] = compare(views[0][0], views[1][0])
            total = total + self.lambda_1 * terms["intent_intent"]
        if self.lambda_2:
            pairs = []
            for intent, centroid, missing in views:
                if self.centroid_items == "next":
                    centroid = centroid + missing * self.encoder.items(target)
                pairs.append(compare(intent, centroid.detach() if self.detach_items else centroid))
            terms["intent_item"] = (pairs[0] + pairs[1]) / 2
            total = total + self.lambda_2 * terms["intent_item"]
        return total
