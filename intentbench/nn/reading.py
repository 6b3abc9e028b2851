"""What a method that reads events makes of them."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from intentbench.nn.event_inputs import joined


class Reading(NamedTuple):
    """What a method makes of events, at each of them.

    Attributes:
        queries: (…, D) whose products with the item table are the scores of the next item.
        logits: (…, d_i) of each intent.
        states: (…, D') what the heads read.
        mixture: (…, D'') Z, where the method has one.
        attention: (…, M) its weights over intents.
    """

    queries: Tensor
    logits: list[Tensor]
    states: Tensor
    mixture: Tensor | None = None
    attention: Tensor | None = None

    def at(self, places: Tensor) -> "Reading":
        """The reading at some places of the first dimension."""
        return Reading(
            self.queries[places],
            [logits[places] for logits in self.logits],
            self.states[places],
            None if self.mixture is None else self.mixture[places],
            None if self.attention is None else self.attention[places],
        )


def join_readings(parts: Sequence[Reading]) -> Reading:
    """The readings of a batch's groups, flattened and joined."""
    mixtures = [part.mixture for part in parts if part.mixture is not None]
    attentions = [part.attention for part in parts if part.attention is not None]
    return Reading(
        joined([part.queries for part in parts]),
        [joined(logits) for logits in zip(*(part.logits for part in parts), strict=True)],
        joined([part.states for part in parts]),
        joined(mixtures) if mixtures else None,
        joined(attentions) if attentions else None,
    )
