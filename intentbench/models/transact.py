"""TransAct (Xia et al., KDD 2023), adapted to rank the whole catalogue: IntentRec's best baseline.

    x_k = LN(W LN(E_item ⊕ E_action)) + time_k,  h = causal Transformer(x)
    state_k = h_k ⊕ max_{j ≤ k} h_j,  score(v) = FC_item(state_k),  p^i = softmax(FC_i(state_k))
    L = L_item + λ Σ_i L_i

In training the latest events are hidden: a time span t is drawn for each user, and what happened
less than t before the target is not seen. States being causal, that is to predict the target from
the state at the last event that is old enough.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.types import SequenceBatch
from intentbench.models.card import Card
from intentbench.models.events import EventRecommender
from intentbench.nn.event_features import EventFeatures
from intentbench.nn.event_inputs import EventInputs
from intentbench.nn.intent_heads import IntentHeads, Multi
from intentbench.nn.item_output import ItemOutput
from intentbench.nn.reading import Reading
from intentbench.nn.time_encoding import HOUR, Position, TimedEncoder

CARD = Card(
    title="TransAct (adapted)",
    paper="Xia et al., TransAct: Transformer-based Realtime User Action Model for Recommendation "
    "at Pinterest, KDD 2023, arXiv:2306.00248; heads for item and intents as in IntentRec, "
    "arXiv:2408.05353",
    code="github.com/pinterest/transformer_user_action",
    tiny={
        "fields": {"action": "behaviour", "category": "values:category:16"},
        "item_width": 32,
        "field_width": 8,
        "width": 32,
        "blocks": 1,
        "dropout": 0.1,
        "hidden_hours": 0.2,
        "learning_rate": 5e-3,
    },
    deviations=(
        "candidates are not fused into the sequence: the whole catalogue is ranked",
        "causal, every position a target, so that one pass trains all positions of a user",
        "one item table learned from scratch in place of PinSage vectors; no further features",
        "the state is the last output and the running maximum of outputs; the original joins "
        "several latest outputs",
        "what enters the Transformer goes through LayerNorms, and vectors of time start at their "
        "scale, as in IntentRec here",
        "the span that is hidden ends at the target's time, and where it would hide all, nothing "
        "is hidden",
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one",
    ),
    effects={
        "intents": "which heads there are: no other value can be derived",
        "fields": "what there is to predict: no other value can be derived",
        "action": "which field is an input: no other value can be derived",
    },
)


class TransAct(EventRecommender):
    """TransAct with heads for item and intents.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their events alone.
        window: inputs at most.
        fields: name to rule of what is known of each event (`datamodules.intent_labels`).
        intents: the fields that are predicted; None: all.
        action: the field that is an input beside the item; "" for none.
        position: how time enters; see `nn.time_encoding`.
        item_width: of E_item.
        field_width: of E_action.
        width: D of the Transformer.
        blocks: of the Transformer.
        heads: attention heads.
        dropout: of inputs and within the blocks.
        hidden_hours: the longest span that is hidden in training; 0 hides nothing.
        intent_weight: λ.
        multi: loss of intents with several labels: positives of a softmax, or a sigmoid each.
        clip_norm: of the gradient; 0: none.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        fields: dict[str, str] | None = None,
        intents: tuple[str, ...] | None = None,
        action: str = "action",
        position: Position = "time+order",
        item_width: int = 64,
        field_width: int = 16,
        width: int = 128,
        blocks: int = 2,
        heads: int = 1,
        dropout: float = 0.2,
        hidden_hours: float = 24.0,
        intent_weight: float = 0.3,
        multi: Multi = "softmax",
        clip_norm: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            n_items,
            n_users,
            fields,
            intents,
            intent_weight,
            clip_norm,
            False,
            learning_rate,
            weight_decay,
        )
        if action and action not in self.fields:
            raise RequestError(
                f"TransAct: action {action!r} is none of its fields; they are: "
                f"{', '.join(self.fields) or 'none'} (action '' reads items alone)"
            )
        self.shown = [list(self.fields).index(action)] if action else []
        self.hidden_seconds = hidden_hours * HOUR
        sizes = [self.field_sizes[number] for number in self.shown]
        self.features = EventFeatures(n_items, item_width, sizes, field_width, numbers=False)
        shape = (self.features.width, width, position, window, blocks, heads, dropout)
        self.encoder = TimedEncoder(*shape)
        if self.predicts:
            self.heads = IntentHeads(2 * width, self.intent_sizes, multi)
        self.output = ItemOutput(n_items, 2 * width)
        self.initialise()

    @classmethod
    def needs_times(cls, arguments: Mapping[str, Any]) -> bool:
        """Where time is a position, or limits what training sees."""
        return "time" in arguments["position"] or arguments["hidden_hours"] > 0

    def item_table(self) -> Tensor:
        """Weights and biases of FC_item (V + 1, 2 D + 1)."""
        return self.output.table()

    def read(self, events: EventInputs) -> Reading:
        """Item and intents from the last output and the maximum of all up to it."""
        values = [events.values[number] for number in self.shown]
        seen = self.features(events.items, values, events.numbers)
        outputs = self.encoder(seen, events.codes)
        states = torch.cat([outputs, outputs.cummax(1).values], -1)
        return Reading(self.output(states), self.heads(states) if self.predicts else [], states)

    def places(self, batch: SequenceBatch, rows: Tensor) -> Tensor:
        """The last event that is older than the span drawn for the user; in training only."""
        if not self.training or not self.hidden_seconds:
            return batch.select
        span = self.hidden_seconds * torch.rand(len(rows), device=rows.device)
        return hidden_places(batch, rows, self.known(rows.device).times, span)


def hidden_places(batch: SequenceBatch, rows: Tensor, times: Tensor, span: Tensor) -> Tensor:
    """Where the state stands that has not seen the latest events before each target.

    Args:
        batch: of T targets.
        rows: (B, L) numbers of its events.
        times: (E + 1,) seconds of all events.
        span: (B,) seconds before the target that are hidden in each row.

    Returns:
        (T,) as `batch.select`: of the last input that is at least `span` older than the target, or
        of the last input where there is none.
    """
    starts = _row_starts(batch, rows.device)[batch.rows]
    position = batch.select - starts  # of the last input, within its row
    inputs = rows[batch.rows]  # (T, L)
    target = inputs.gather(1, position[:, None]) + 1
    column = torch.arange(rows.shape[1], device=rows.device)
    old = times[target] - times[inputs] >= span[batch.rows, None]
    seen = (old & (column <= position[:, None])).sum(1)  # times do not fall within a user
    return starts + torch.where(seen > 0, seen - 1, position)


def _row_starts(batch: SequenceBatch, device: torch.device) -> Tensor:
    """(B,) where each row begins once the groups are flattened, without asking the host."""
    parts, base = [], 0
    for start, stop, width in batch.groups:
        parts.append(base + width * torch.arange(stop - start, device=device))
        base += width * (stop - start)
    return torch.cat(parts)
