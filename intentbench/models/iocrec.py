"""IOCRec: multi-intention oriented contrastive learning (Li et al., WSDM 2023).

The authors' code is not public: this follows a published re-implementation (see the Card).

Local states are those of an encoder, x = Encoder(s); global ones come from attention whose queries
are parameters of the positions, x = softmax(Q (E[s] W_k)ᵀ) E[s] W_v. Each of the two is taken apart
by K prototypes m_k and by how much each place matters to the last one:

    a_{t,k} = softmax_k( LN(x_t)·LN(m_k) / √D )
    b_t     = softmax_t( q·k_t / √D ),  q = LN(x_n + φ_n + ρ),  k̂_t = LN(x_t + φ_t),
                                        k_t = k̂_t + ReLU(W k̂_t)
    z_{t,k} = LN( a_{t,k} b_t x_t )

and both z are summed. The score is max_k z_{n,k}·e_v, and

    L = cross-entropy of the scores + w InfoNCE(z(x1), z(x2))

over the K B intent rows, each flattened over t, of two views; masked items are a token with its own
vector. A row of a batch is a prefix with its next item, as z must know which item is the last.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from datamodules.rows import flat_starts
from datamodules.types import PAD, Batch, EvaluationBatch, SequenceBatch
from intentbench.models.card import Card, Published
from intentbench.models.intent import IntentRecommender, Intents
from intentbench.nn.grouping import encode_last
from intentbench.nn.info_nce import info_nce
from intentbench.nn.initialisation import init_normal
from intentbench.nn.processes import widest
from intentbench.nn.transformer import SequenceEncoder, take_last
from intentbench.nn.views import EncodedRows, crop_mask_reorder, encode_view, random_view

PASS_ROWS = 1024
"""Prefixes encoded at a time where intents are inspected."""

_ICSREC = "ICSRec paper, @10 columns, transcribed by a third party (secondary; masking not stated)"
_ELCREC = "ELCRec paper, Table 1 (a run of its authors)"

CARD = Card(
    title="IOCRec",
    paper="Li et al., Multi-Intention Oriented Contrastive Learning for Sequential "
    "Recommendation, WSDM 2023",
    code="github.com/LFM-bot/IOCRec @ a1b91db (a re-implementation; the original is not public)",
    tiny={
        "prototypes": 3,
        "instance_weight": 0.02,
        "crop": 0.6,
        "mask": 0.4,
        "reorder": 0.8,
        "width": 32,
        "blocks": 1,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    published=(
        Published("beauty", "hit_rate@10", 0.0774, _ICSREC),
        Published("beauty", "ndcg@10", 0.0396, _ICSREC),
        Published("beauty", "hit_rate@20", 0.0916, _ELCREC),
        Published("beauty", "ndcg@20", 0.0444, _ELCREC),
        Published("sports", "hit_rate@20", 0.0641, _ELCREC),
        Published("sports", "ndcg@20", 0.0280, _ELCREC),
        Published("toys", "hit_rate@20", 0.0781, _ELCREC),
        Published("toys", "ndcg@20", 0.0330, _ELCREC),
        Published("yelp", "hit_rate@20", 0.0640, _ELCREC),
        Published("yelp", "ndcg@20", 0.0263, _ELCREC),
    ),
    deviations=(
        "a re-implementation of a re-implementation: the original code is not public",
        "attention over places leaves padding out, and intent rows are zero after their last item, "
        "so that a trimmed batch equals a padded one; the re-implementation's softmax over places "
        "includes padding, and its rows go on through the intents of padding. Both flatten from "
        "the first item on",
        "LN of a weighted state undoes its weight but for the norm's epsilon, so that the K "
        "intents of a place differ little; kept, as the formula is the re-implementation's",
        "padding and the mask token are no candidates of the cross-entropy; in the "
        "re-implementation both are, as rows of the item table. Biases of all layers start at 0",
        "edits are made on the window; the re-implementation cuts an edited history",
    ),
    causal=False,
)


class PositionAttention(nn.Module):
    """Global states: attention to all of a row, with a free query for each position.

    Args:
        window: N.
        width: D.
        dropout: of the result.
    """

    def __init__(self, window: int, width: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(window, width))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.apply(init_normal)

    def forward(self, vectors: Tensor, real: Tensor) -> Tensor:
        """Item vectors (B, L, D), and where they are real (B, L), to states (B, L, D)."""
        logits = self.queries[: vectors.shape[1]] @ self.key(vectors).transpose(1, 2)
        weights = logits.masked_fill(~real[:, None], -torch.inf).softmax(-1)
        result: Tensor = self.dropout(weights @ self.value(vectors))
        return result


class Disentangler(nn.Module):
    """Takes states apart into K intents; see the module's docstring.

    Args:
        prototypes: K.
        window: N.
        width: D.
    """

    def __init__(self, prototypes: int, window: int, width: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(prototypes, width))
        self.positions = nn.Embedding(window, width)
        self.last = nn.Parameter(torch.randn(width))
        self.project = nn.Linear(width, width)
        self.state_norm = nn.LayerNorm(width)
        self.prototype_norm = nn.LayerNorm(width)
        self.query_norm = nn.LayerNorm(width)
        self.key_norm = nn.LayerNorm(width)
        self.intent_norm = nn.LayerNorm(width)
        self.scale = 1 / math.sqrt(width)
        self.apply(init_normal)

    def shares(self, states: Tensor) -> Tensor:
        """a: how much of each state (…, D) belongs to each prototype, (…, K)."""
        logits = self.state_norm(states) @ self.prototype_norm(self.prototypes).T
        result: Tensor = (self.scale * logits).softmax(-1)
        return result

    def places(self, states: Tensor, real: Tensor) -> Tensor:
        """b: how much each place of states (B, L, D) matters to the last real one, (B, L)."""
        placed = states + self.positions.weight[: states.shape[1]]
        query = self.query_norm(take_last(placed, real.sum(1) - 1) + self.last)
        key = self.key_norm(placed)
        key = key + torch.relu(self.project(key))
        logits = self.scale * (query * key).sum(-1)
        result: Tensor = logits.masked_fill(~real, -torch.inf).softmax(-1)
        return result

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """z: states (B, L, D) to intents (B, L, K, D)."""
        return self._apart(states, self.places(states, real))

    def at_last(self, states: Tensor, real: Tensor) -> Tensor:
        """The same of the last real place alone, (B, K, D)."""
        last = real.sum(1) - 1
        places = self.places(states, real).gather(1, last[:, None])
        return self._apart(take_last(states, last), places).squeeze(1)

    def _apart(self, states: Tensor, places: Tensor) -> Tensor:
        """States (B, L, D) that matter by `places` (B, L), to intents (B, L, K, D)."""
        weights = self.shares(states) * places[:, :, None]
        result: Tensor = self.intent_norm(weights[..., None] * states[:, :, None])
        return result


class IOCRec(IntentRecommender):
    """Several intents a row, of which the best scores.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        prototypes: K, the number of intents.
        instance_weight: w, of the contrast between views; 0 leaves it out.
        temperature: τ of the contrast.
        crop: share of a row that cropping keeps.
        mask: share of a row that becomes the mask token.
        reorder: share of a row that reordering shuffles.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD
    layout = "prefix"

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        prototypes: int = 4,
        instance_weight: float = 0.1,
        temperature: float = 1.0,
        crop: float = 0.2,
        mask: float = 0.7,
        reorder: float = 0.2,
        width: int = 64,
        blocks: int = 3,
        heads: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.instance_weight = instance_weight
        self.temperature = temperature
        self.edits = crop_mask_reorder(crop, mask, reorder, token=n_items + 1)
        self.encoder = SequenceEncoder(n_items, window, "bert", width, blocks, heads, dropout)
        self.whole = PositionAttention(window, width, dropout)
        self.disentangle = Disentangler(prototypes, window, width)
        with torch.random.fork_rng(devices=()):
            self.mask_vector = nn.Parameter(0.02 * torch.randn(width))

    def _states(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Local and global states (B, L, D), and what is real (B, L), of items and masks V + 1."""
        real = items != PAD
        real[:, 0] = True  # an empty history is one padding item, so that nothing is undefined
        known = self.encoder.items(items.clamp(max=self.n_items))
        vectors = torch.where((items > self.n_items)[:, :, None], self.mask_vector, known)
        return self.encoder.attend(vectors), self.whole(vectors, real), real

    def _all_intents(self, items: Tensor) -> Tensor:
        """The intents z of each place, (B, L, K, D)."""
        near, far, real = self._states(items)
        result: Tensor = self.disentangle(near, real) + self.disentangle(far, real)
        return result

    def _last_intents(self, batch: Batch) -> Tensor:
        """The intents z of each row's last item, (B, K, D)."""

        def encode(items: Tensor, _: Tensor) -> Tensor:
            near, far, real = self._states(items)
            return self.disentangle.at_last(near, real) + self.disentangle.at_last(far, real)

        return encode_last(batch, encode)

    def score(self, batch: EvaluationBatch) -> Tensor:
        """Scores (B, V + 1), those of the best of a row's intents; column 0 (`PAD`) is -inf."""
        table = self.encoder.items.weight
        first, *others = self._last_intents(batch).unbind(1)
        scores = first @ table.T
        for intent in others:  # one after the other: (B, K, V) would not fit beside a big catalogue
            scores = torch.maximum(scores, intent @ table.T)
        scores[:, PAD] = -torch.inf
        return scores

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Cross-entropy of the next item and, where it has weight, the contrast of intents."""
        logits = (self._last_intents(batch) @ self.encoder.items.weight[1:].T).amax(1)
        total = cross_entropy(logits, batch.labels - 1)
        terms = {"next": total}
        if self.instance_weight:
            first, second = self._view(batch), self._view(batch)
            width = widest(max(first.width, second.width), self.device)
            rows = [self._intent_rows(view, width) for view in (first, second)]
            terms["instance"] = info_nce(rows[0], rows[1], self.temperature)
            total = total + self.instance_weight * terms["instance"]
        return {"total": total, **terms}

    def _view(self, batch: SequenceBatch) -> EncodedRows:
        view = random_view(batch.items, batch.lengths, self.edits, self.window)
        return encode_view(view, batch.groups, lambda items: self._all_intents(items).flatten(2))

    def _intent_rows(self, view: EncodedRows, width: int) -> Tensor:
        """(B K, width D): all of a row's places for each of its intents."""
        places = view.left_aligned(width)
        places = places.view(len(places), width, -1, self.encoder.items.embedding_dim)
        return places.transpose(1, 2).flatten(2).flatten(0, 1)

    def intents(self, batch: SequenceBatch) -> Intents:
        """The last item's local state of each prefix, and its intent of the strongest prototype."""
        start = torch.from_numpy(flat_starts(batch.groups)).to(batch.select.device)
        lengths = batch.select - start[batch.rows] + 1
        columns = torch.arange(batch.items.shape[1], device=lengths.device)
        vectors, states, assignment = [], [], []
        for rows, length in zip(
            torch.split(batch.rows, PASS_ROWS), torch.split(lengths, PASS_ROWS), strict=True
        ):
            items = torch.where(columns < length[:, None], batch.items[rows], PAD)
            near, far, real = self._states(items)
            last = take_last(near, length - 1).squeeze(1)
            strongest = self.disentangle.shares(last).argmax(1)
            both = self.disentangle.at_last(near, real) + self.disentangle.at_last(far, real)
            vectors.append(both[torch.arange(len(items), device=items.device), strongest])
            states.append(last)
            assignment.append(strongest)
        return Intents(torch.cat(vectors), torch.cat(states), torch.cat(assignment))
