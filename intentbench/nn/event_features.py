"""What a model sees of each event: IntentRec's interaction features F_k (arXiv 2408.05353).

    F_k = LN(E_item[i_k] ⊕ E_1[c_k^1] ⊕ … ⊕ numbers)

A field with one value an event (a behaviour, a bucket of ages) is looked up; one with several
values an item (genres) enters as the mean of their vectors. Numbers lie in [0, 1]. The paper has no
LN here: with it F enters an encoder at the scale of what is joined to it, S and Z.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.events import EventTable, IntentLabels
from datamodules.types import PAD
from intentbench.nn.initialisation import init_normal

NUMBERS = 2
"""Numbers of an event: rating / 5, and the logarithm of the gap before it."""

BEST_RATING = 5.0


def gap_scale(gaps: Tensor, training: Tensor) -> Tensor | None:
    """The 99th percentile of log(1 + seconds) over training events; None where there are none.

    Args:
        gaps: (E + 1,) seconds, see `EventTable`.
        training: (E,) bool, whether an event is one of training.
    """
    if not training.any():
        return None
    known = gaps.float().log1p()[:-1][training]
    place = max(1, round(0.99 * len(known)))  # kthvalue: quantile() takes no 16 M elements
    return known.kthvalue(place).values.clamp(min=1e-6)


def event_numbers(events: EventTable, scale: Tensor | None) -> Tensor:
    """The numbers of each event; 0 where the dataset does not have them.

    The gap enters as log(1 + seconds), divided by its 99th percentile over training events and cut
    at 1.

    Args:
        events: of E events.
        scale: see `gap_scale`.

    Returns:
        (E + 1, `NUMBERS`) float32, the row of padding 0.
    """
    numbers = torch.zeros(len(events.items), NUMBERS)
    if events.ratings is not None:
        numbers[:, 0] = (events.ratings / BEST_RATING).clamp(0, 1)
    if events.gaps is not None and scale is not None:
        numbers[:, 1] = (events.gaps.float().log1p() / scale).clamp(max=1)
    return numbers


def field_values(field: IntentLabels, items: Tensor, rows: Tensor) -> Tensor:
    """A field's value at events: codes (B, L) of a single one, or the items' labels (B, L, d).

    Args:
        field: see `EventTable.intents`.
        items: (B, L).
        rows: (B, L) numbers of the events.
    """
    return field.codes[rows] if field.kind == "single" else field.labels[items]


class EventFeatures(nn.Module):
    """F_k.

    Args:
        n_items: V.
        item_width: of E_item.
        fields: (kind, number of labels) of each field.
        field_width: of the vector of each field.
        numbers: whether the numbers are seen too.
    """

    def __init__(
        self,
        n_items: int,
        item_width: int,
        fields: Sequence[tuple[str, int]],
        field_width: int,
        numbers: bool = True,
    ) -> None:
        super().__init__()
        self.numbers = numbers
        self.items = nn.Embedding(n_items + 1, item_width, padding_idx=PAD)
        self.fields = nn.ModuleList(
            nn.Embedding(size + 1, field_width, padding_idx=PAD)
            if kind == "single"
            else MeanEmbedding(size, field_width)
            for kind, size in fields
        )
        self.width = item_width + field_width * len(fields) + NUMBERS * numbers
        self.norm = nn.LayerNorm(self.width)

    def initialise(self) -> None:
        """Vectors of length about 1, whatever their width: none drowns beside the numbers."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                init_normal(module, module.embedding_dim**-0.5)

    def forward(self, items: Tensor, values: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """F (B, L, `width`).

        Args:
            items: (B, L).
            values: what `field_values` gives for each field.
            numbers: (B, L, `NUMBERS`).
        """
        looked_up = [field(value) for field, value in zip(self.fields, values, strict=True)]
        parts = [self.items(items), *looked_up, *([numbers] if self.numbers else [])]
        result: Tensor = self.norm(torch.cat(parts, -1))
        return result


class MeanEmbedding(nn.Module):
    """The mean of the vectors of the labels that hold; 0 where none does.

    Args:
        size: d, the number of labels.
        width: of a vector.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.labels = nn.Embedding(size, width)

    def forward(self, holds: Tensor) -> Tensor:
        """(…, d) bool to (…, width)."""
        shares = holds.to(self.labels.weight.dtype)
        result: Tensor = shares @ self.labels.weight
        return result / shares.sum(-1, keepdim=True).clamp(min=1)
