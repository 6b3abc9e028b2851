"""CoSeRec: contrastive learning with robust augmentations (Liu, Chen, Li, Yu et al., 2021).

    L = L_next + w InfoNCE(vec H(x1), vec H(x2))

x1, x2 are two views of a row, each after one random edit. Besides crop, mask and reorder there are
two edits that use similar items: substitute puts the most similar item in an item's stead, insert
puts it before the item. Short rows are only substituted, inserted into or masked, as the other
edits leave little of them. The similarity of items a and b is first

    ItemCF-IUF(a, b) = Σ_{u has both} 1 / log(1 + n_u) / √(n_a n_b)

and, after a warm-up, the larger of it and e_a·e_b, either scaled to [0, 1] by its least and largest
value. L_next is one sampled negative a position.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from datamodules.augment import insert, substitute
from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.base import GradientRecommender
from intentbench.models.card import Card, Published
from intentbench.models.item_knn import keep_largest
from intentbench.nn.grouping import encode_last
from intentbench.nn.item_matrix import count_matrix
from intentbench.nn.negatives import UniformNegatives
from intentbench.nn.transformer import SequenceEncoder
from intentbench.nn.views import (
    EncodedRows,
    bce_with_one_negative,
    crop_mask_reorder,
    encode_rows,
    encode_view,
    instance_contrast,
    random_view,
)

CHUNK_CELLS = 8_000_000
"""Products of item vectors made at a time: 32 MB in float32."""

SHORT_EDITS = (False, True, False, True, True)
"""Which of crop, mask, reorder, substitute and insert a short row may take."""

_CHECKPOINT = "CoSeRec repository, official checkpoint, ranked anew with the history removed"
_README = "CoSeRec repository, README"
_ICSREC = "ICSRec paper, @10 columns, transcribed by a third party (secondary; masking not stated)"
_MCLREC = "MCLRec paper, Table 3 (masking not stated)"

CARD = Card(
    title="CoSeRec",
    paper="Liu et al., Contrastive Self-supervised Sequential Recommendation with Robust "
    "Augmentation, 2021, arXiv:2108.06479",
    code="github.com/YChen1993/CoSeRec @ 692cb41",
    tiny={
        "warm_up": 0,
        "crop": 0.6,
        "mask": 0.4,
        "reorder": 0.8,
        "substitute": 0.6,
        "insert": 0.6,
        "width": 32,
        "blocks": 1,
        "dropout": 0.1,
        "learning_rate": 1e-2,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.0736, _CHECKPOINT),
        Published("beauty", "ndcg@10", 0.0414, _CHECKPOINT),
        Published("sports", "hit_rate@10", 0.0437, _README),
        Published("sports", "ndcg@10", 0.0242, _README),
        Published("toys", "hit_rate@10", 0.0755, _ICSREC),
        Published("toys", "ndcg@10", 0.0442, _ICSREC),
        Published("yelp", "hit_rate@10", 0.0395, _MCLREC),
        Published("yelp", "ndcg@10", 0.0205, _MCLREC),
    ),
    deviations=(
        "windows are padded on the right and positions counted from the first item; the code pads "
        "on the left",
        "flattened states cover real positions only, from the last item backwards, so that a "
        "trimmed batch equals a padded one; the code takes all N padded positions",
        "masked items vanish and the gap closes; the code leaves a hidden hole at their position",
        "the closest items by embedding join in at epoch `warm_up`; the code starts one later",
        "edits are made on the window; the code edits the whole history and cuts it afterwards",
        "reorder has a share of its own, as the code's options say; the code hands it that of mask "
        "(0.7) wherever short rows are told apart",
        "similarity counts all training events of a user; the code leaves the last one out",
        "an item without a neighbour stands for itself until the warm-up ends; the code draws one "
        "at random each time",
        "similar items come from the training events; the embeddings of the code also offer items "
        "that nobody had, padding and the mask id",
        "negatives of L_next are drawn outside the training events only: the code draws outside "
        "the whole sequence, which tells the model what is held out, and may draw its mask id",
    ),
    expected_failures={
        "C6b": "the contrast compares whole windows; the states and the loss of the next item are "
        "causal",
    },
)


class CoSeRec(GradientRecommender):
    """Contrast of views that similar items make.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        instance_weight: w, of the contrast; 0 leaves it out.
        temperature: τ of the contrast.
        warm_up: epochs with ItemCF-IUF alone.
        short_length: rows of at most so many items are short; 0: none is.
        crop: share of a row that cropping keeps.
        mask: share of a row that masking takes away.
        reorder: share of a row that reordering shuffles.
        substitute: share of a row that is substituted.
        insert: share of a row's items that get a similar one before them.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        instance_weight: float = 0.1,
        temperature: float = 1.0,
        warm_up: int = 160,
        short_length: int = 4,
        crop: float = 0.2,
        mask: float = 0.7,
        reorder: float = 0.2,
        substitute: float = 0.1,
        insert: float = 0.4,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.instance_weight = instance_weight
        self.temperature = temperature
        self.warm_up = warm_up
        self.short_length = short_length
        self.substitute_share = substitute
        self.insert_share = insert
        self.edits = crop_mask_reorder(crop, mask, reorder)
        self.encoder = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        self.sampler: UniformNegatives | None = None
        self.known: Tensor
        self.frequent: Tensor
        self.frequent_score: Tensor
        self.similar: Tensor
        itself, nothing = torch.arange(n_items + 1), torch.zeros(n_items + 1)
        self.register_buffer("known", torch.zeros(0, dtype=torch.long), persistent=False)
        self.register_buffer("frequent", itself, persistent=False)
        self.register_buffer("frequent_score", nothing, persistent=False)
        self.register_buffer("similar", itself.clone(), persistent=False)
        allowed = torch.tensor([SHORT_EDITS, [True] * len(SHORT_EDITS)])
        self.allowed: Tensor
        self.register_buffer("allowed", allowed, persistent=False)

    def prepare(self, training: TrainingData) -> None:
        """Keep what each user has seen, and find the most similar item of each item."""
        self.sampler = UniformNegatives(training).to(self.device)
        self.known = torch.unique(training.items).to(self.device)
        frequent, score = most_similar(item_cf_iuf(training))
        self.frequent, self.frequent_score = frequent.to(self.device), score.to(self.device)
        self.similar = self.frequent

    def on_epoch(self) -> None:
        """After the warm-up: take the more similar of two items, by counts or by embeddings."""
        if self.instance_weight and self.current_epoch >= self.warm_up:
            close, score = closest(self.item_table()[self.known])
            by_counts = self.frequent_score[self.known] >= score
            similar = torch.where(by_counts, self.frequent[self.known], self.known[close])
            self.similar = self.frequent.index_copy(0, self.known, similar)

    def encode(self, batch: Batch) -> Tensor:
        """The state after the last item, (B, D)."""
        return encode_last(batch, self.encoder.last_state)

    def item_table(self) -> Tensor:
        """The tied item table (V + 1, D)."""
        return self.encoder.items.weight

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The loss of the next item and, where it has weight, the contrast of two views."""
        rows = encode_rows(batch.items, batch.lengths, batch.groups, self.encoder)
        states = rows.flat()[batch.select]
        total = bce_with_one_negative(states, self.item_table(), batch, self.sampler)
        terms = {"next": total}
        if self.instance_weight:
            first, second = self._view(batch), self._view(batch)
            terms["instance"] = instance_contrast(first, second, self.temperature)
            total = total + self.instance_weight * terms["instance"]
        return {"total": total, **terms}

    def _view(self, batch: SequenceBatch) -> EncodedRows:
        similar = self.similar
        edits = (
            *self.edits,
            partial(substitute, ratio=self.substitute_share, similar=similar),
            partial(insert, ratio=self.insert_share, similar=similar, window=self.window),
        )
        allowed = self.allowed[(batch.lengths > self.short_length).long()]
        view = random_view(batch.items, batch.lengths, edits, self.window, allowed)
        groups = tuple((start, stop, self._widest(width)) for start, stop, width in batch.groups)
        return encode_view(view, groups, self.encoder)

    def _widest(self, width: int) -> int:
        """What rows of at most `width` items may grow to.

        An insertion adds ⌊share n⌋ items, at least one. It multiplies in float32, which may round
        up to a whole number that the product here just misses: hence always one more.
        """
        return min(width + int(self.insert_share * width) + 1, self.window)


def item_cf_iuf(training: TrainingData) -> "csr_array[Any]":
    """The similarities (V + 1, V + 1) of items that a user has had both of; the diagonal is 0."""
    had = count_matrix(training, np.float64)
    weight = 1 / np.log1p(np.maximum(had.sum(axis=1), 1))  # n_u, of items that differ
    common = (had.T @ diags_array(weight) @ had).tocoo()
    users = had.sum(axis=0)
    a, b = common.row, common.col
    pairs = a != b
    a, b = a[pairs], b[pairs]
    return csr_array((common.data[pairs] / np.sqrt(users[a] * users[b]), (a, b)), common.shape)


def most_similar(similarity: "csr_array[Any]") -> tuple[Tensor, Tensor]:
    """The best column of each row, and its value scaled to [0, 1] by those that are stored.

    Returns:
        (V + 1,) int64, the row itself where it has no value; (V + 1,) float32, 0 there.
    """
    best, score = np.arange(similarity.shape[0]), np.zeros(similarity.shape[0])
    if similarity.nnz:
        largest = keep_largest(similarity, 1)
        found = np.flatnonzero(np.diff(largest.indptr))
        low, high = similarity.data.min(), similarity.data.max()
        best[found] = largest.indices
        score[found] = (largest.data - low) / max(high - low, np.finfo(float).tiny)
    return torch.from_numpy(best), torch.from_numpy(score).float()


def closest(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """For each of C vectors (C, D) the other one with the largest dot product.

    Returns:
        (C,) its number, and the product scaled to [0, 1] by the least and largest of all, those of
        vectors with themselves included.
    """
    rows = max(1, CHUNK_CELLS // len(vectors))
    numbers, values, lows, highs = [], [], [], []
    for start in range(0, len(vectors), rows):
        products = vectors[start : start + rows] @ vectors.T
        lows.append(products.amin())
        highs.append(products.amax())
        own = torch.arange(len(products), device=vectors.device)
        products[own, own + start] = -torch.inf
        best = products.max(1)
        numbers.append(best.indices)
        values.append(best.values)
    low, high = torch.stack(lows).amin(), torch.stack(highs).amax()
    scaled = (torch.cat(values) - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    return torch.cat(numbers), scaled
