"""CL4SRec: SASRec with a contrast of two edited views of each row (Xie et al., ICDE 2022).

    L = L_rec + λ InfoNCE(H(x1), H(x2))

A view is the row cropped to a share η, with a share γ of its items masked, or with a share β of
them shuffled. Three methods go under this name, and the arguments tell them apart:

- DuoRec's repository (default): `ce`, layout `prefix`, the last states are contrasted, masked
  items become a token, the two views of a row are of different kinds, η 0.6, γ 0.3, β 0.6;
- the paper: `bce1`, layout `all`, last states, the kinds are drawn independently;
- ICLRec's repository ("InstanceCL"): `bce1`, layout `all`, the states of all positions are
  contrasted as one long vector, masked items vanish, η 0.2, γ 0.7, β 0.2.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from datamodules.augment import crop, mask, reorder
from datamodules.types import SequenceBatch
from intentbench.models.card import Card, Published
from intentbench.models.sasrec import SASRec
from intentbench.nn.info_nce import info_nce
from intentbench.nn.processes import widest
from intentbench.nn.together import encode_together

KINDS = 3
"""Crop, mask, reorder."""

_DUOREC = "DuoRec paper as quoted in the uSASRec README (history left in the ranking)"
_MCLREC = "MCLRec paper, Table 3 (SIGIR 2023; whether history is removed: unstated)"
_DEFAULT: Mapping[str, Any] = {"loss": "ce", "layout": "prefix", "pool": "last"}

CARD = Card(
    title="CL4SRec",
    paper="Xie et al., Contrastive Learning for Sequential Recommendation, ICDE 2022, "
    "arXiv:2010.14395",
    code="github.com/RuihongQiu/DuoRec @ 4ebc30d (the authors published none)",
    tiny={"width": 32, "blocks": 1, "dropout": 0.1, "learning_rate": 5e-3},
    published=(
        Published("beauty", "hit_rate@10", 0.0681, _DUOREC, _DEFAULT),
        Published("beauty", "ndcg@10", 0.0299, _DUOREC, _DEFAULT),
        Published("sports", "hit_rate@10", 0.0387, _DUOREC, _DEFAULT),
        Published("sports", "ndcg@10", 0.0171, _DUOREC, _DEFAULT),
        Published("beauty", "hit_rate@10", 0.0642, _MCLREC),
        Published("beauty", "ndcg@10", 0.0345, _MCLREC),
        Published("sports", "hit_rate@10", 0.0369, _MCLREC),
        Published("sports", "ndcg@10", 0.0191, _MCLREC),
        Published("yelp", "hit_rate@10", 0.0384, _MCLREC),
        Published("yelp", "ndcg@10", 0.0194, _MCLREC),
    ),
    deviations=(
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one; ICLRec's code pads on the left",
        "editing leaves the row that is recommended from alone; DuoRec's code edits a view of its "
        "memory, and so trains on rows that are masked and shuffled",
        "pool flatten leaves padding out and lines the states up at the last item, as they stand "
        "in ICLRec's left-padded windows; that code contrasts the states of padding too",
        "negatives of bce1 are drawn outside the training events only: drawing outside the whole "
        "sequence, as ICLRec's code does, tells the model what is held out",
        "with the data module's targets='last' only the last window of a history makes rows; "
        "DuoRec's code (RecBole) makes one of every prefix (targets='every')",
    ),
)


class CL4SRec(SASRec):
    """SASRec on BERT blocks, and a contrast of views.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs of a row at most.
        loss: "ce", the full softmax, or "bce1", one negative a position.
        layout: "prefix", one row a target, or "all", one row a user.
        pool: what is contrasted: the "last" state, or all states of the row ("flatten").
        contrast_weight: λ.
        temperature: τ.
        crop_ratio: η, the share of items that a crop keeps.
        mask_ratio: γ, the share of items that are masked.
        reorder_ratio: β, the share of items that are shuffled.
        masking: whether a masked item becomes a "token", with a vector of its own, or is taken
            away ("removal").
        different_kinds: whether the two views of a row are of two kinds; else each kind is drawn
            on its own.
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
        loss: Literal["ce", "bce1"] = "ce",
        layout: Literal["all", "prefix"] = "prefix",
        pool: Literal["last", "flatten"] = "last",
        contrast_weight: float = 0.1,
        temperature: float = 1.0,
        crop_ratio: float = 0.6,
        mask_ratio: float = 0.3,
        reorder_ratio: float = 0.6,
        masking: Literal["token", "removal"] = "token",
        different_kinds: bool = True,
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            n_items,
            n_users,
            window=window,
            loss=loss,
            layout=layout,
            encoder="bert",
            width=width,
            blocks=blocks,
            heads=heads,
            dropout=dropout,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
        )
        self.window = window
        self.pool = pool
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.ratios = (crop_ratio, mask_ratio, reorder_ratio)
        self.different_kinds = different_kinds
        self.mask_vector: nn.Parameter | None = None
        if masking == "token":
            with torch.random.fork_rng(devices=()):
                self.mask_vector = nn.Parameter(0.02 * torch.randn(width))

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The loss of SASRec with the same switches, and the contrast."""
        recommendation = super().loss(batch)["total"]
        if not self.contrast_weight:
            return {"total": recommendation}
        contrast = info_nce(*self._pooled(self.views(batch)), self.temperature)
        total = recommendation + self.contrast_weight * contrast
        return {"total": total, "recommendation": recommendation, "contrast": contrast}

    def views(self, batch: SequenceBatch) -> tuple[SequenceBatch, SequenceBatch]:
        """Two edited copies of the rows; the batch itself is left as it is.

        An edit makes no row longer, so the groups of the batch hold for its views.
        """
        shape, device = (len(batch.users),), batch.users.device
        first = torch.randint(KINDS, shape, device=device)
        if self.different_kinds:
            second = (first + 1 + torch.randint(KINDS - 1, shape, device=device)) % KINDS
        else:
            second = torch.randint(KINDS, shape, device=device)
        return self._edited(batch, first), self._edited(batch, second)

    def _edited(self, batch: SequenceBatch, kind: Tensor) -> SequenceBatch:
        """The rows, each edited in the way that `kind` (B,) says."""
        crop_ratio, mask_ratio, reorder_ratio = self.ratios
        token = None if self.mask_vector is None else self.n_items + 1
        items, lengths = batch.items, batch.lengths
        # as wide as any batch: trimming changes no draw
        noise = torch.rand(len(items), self.window + 1, device=items.device)
        edits = (
            crop(items, lengths, crop_ratio, noise[:, 0]),
            mask(items, lengths, mask_ratio, noise, token),
            reorder(items, lengths, reorder_ratio, noise),
        )
        row = torch.arange(len(items), device=items.device)
        edited, shorter = (torch.stack(parts)[kind, row] for parts in zip(*edits, strict=True))
        return replace(batch, items=edited, lengths=shorter)

    def _pooled(self, views: tuple[SequenceBatch, SequenceBatch]) -> tuple[Tensor, Tensor]:
        """What is contrasted of each row of two views: (B, D), or (B, L D) with pool "flatten"."""
        if self.pool == "flatten":
            return self._flattened(views[0]), self._flattened(views[1])
        first, second = encode_together([(v.items, v.lengths) for v in views], self._last_state)
        return first, second

    def _flattened(self, view: SequenceBatch) -> Tensor:
        """All states of each row, (B, L D), from the last one backwards."""
        parts = []
        width, depth = widest(view.items.shape[1], self.device), self.item_table().shape[1]
        for start, stop, narrow in view.groups:
            states = self.encoder.attend(self._vectors(view.items[start:stop, :narrow]))
            # column j holds the state j steps before the last one, and 0 beyond the first
            back = view.lengths[start:stop, None] - 1 - torch.arange(narrow, device=states.device)
            turned = states.gather(1, back.clamp(min=0)[:, :, None].expand(-1, -1, depth))
            turned = turned * (back >= 0)[:, :, None]
            parts.append(pad(turned.flatten(1), (0, (width - narrow) * depth)))
        return torch.cat(parts)

    def _last_state(self, items: Tensor, lengths: Tensor) -> Tensor:
        return self.encoder.attend(self._vectors(items), (lengths - 1).clamp(min=0)).squeeze(1)

    def _vectors(self, items: Tensor) -> Tensor:
        """Embeddings (B, L, D) of items 1..V and, as V + 1, the mask token."""
        if self.mask_vector is None:
            embedded: Tensor = self.encoder.items(items)
            return embedded
        known = self.encoder.items(items.clamp(max=self.n_items))
        return torch.where((items > self.n_items)[:, :, None], self.mask_vector, known)
