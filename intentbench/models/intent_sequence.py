"""Sequence models with intent heads side by side: the plain baselines of IntentRec's paper.

    h_k = LSTM | GRU | Transformer(LN(e_{i_1}) … LN(e_{i_k}))
    score(v) = FC_item(h_k),  p^i = softmax(FC_i(h_k))
    L = L_item + λ Σ_i L_i

They see items alone. With `features` they see the fields of events too: the Transformer then is
IntentRec's V1 (or, without intents, V0) with the order in place of the time, which tells apart what
the fields give and what the architecture gives.
"""

from typing import Literal

from torch import Tensor, nn

from intentbench.models.card import Card
from intentbench.models.events import EventRecommender
from intentbench.nn.event_features import EventFeatures
from intentbench.nn.event_inputs import EventInputs
from intentbench.nn.intent_heads import IntentHeads, Multi
from intentbench.nn.item_output import ItemOutput
from intentbench.nn.reading import Reading
from intentbench.nn.time_encoding import TimedEncoder

CARD = Card(
    title="Sequence model with intent heads",
    paper="The LSTM, GRU and Transformer of Oh et al., IntentRec, 2024, arXiv:2408.05353, table 1: "
    "items alone, with intent heads added",
    code="",
    tiny={
        "fields": {"action": "behaviour", "category": "values:category:16"},
        "encoder": "transformer",
        "features": True,
        "item_width": 32,
        "field_width": 8,
        "width": 32,
        "blocks": 1,
        "heads": 2,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    deviations=(
        "widths, depths, λ and initialisation are not given in the paper: those of IntentRec here, "
        "and a LayerNorm after the embeddings",
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one",
    ),
    effects={
        "intents": "which heads there are: no other value can be derived",
        "fields": "what there is to predict: no other value can be derived",
    },
)


class IntentSequence(EventRecommender):
    """A recurrent network or a Transformer, with heads for item and intents.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their events alone.
        window: inputs at most.
        encoder: which network.
        fields: name to rule of what is known of each event (`datamodules.intent_labels`).
        intents: the fields that are predicted; None: all.
        features: whether fields are inputs too.
        item_width: of E_item.
        field_width: of the vector of each field, with `features`.
        width: D of the states.
        blocks: layers.
        heads: attention heads of the Transformer.
        dropout: of inputs and within the encoder.
        intent_weight: λ.
        multi: loss of intents with several labels: positives of a softmax, or a sigmoid each.
        shuffled_labels: whether heads learn labels of other events: a control.
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
        encoder: Literal["lstm", "gru", "transformer"] = "transformer",
        fields: dict[str, str] | None = None,
        intents: tuple[str, ...] | None = None,
        features: bool = False,
        item_width: int = 64,
        field_width: int = 16,
        width: int = 128,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.2,
        intent_weight: float = 0.3,
        multi: Multi = "softmax",
        shuffled_labels: bool = False,
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
            shuffled_labels,
            learning_rate,
            weight_decay,
        )
        self.with_features = features
        sizes = self.field_sizes if features else []
        self.features = EventFeatures(n_items, item_width, sizes, field_width, features)
        self.encoder: nn.Module
        if encoder == "transformer":
            inputs = self.features.width
            self.encoder = TimedEncoder(inputs, width, "order", window, blocks, heads, dropout)
        else:
            self.encoder = Recurrent(encoder, self.features.width, width, blocks, dropout)
        if self.predicts:
            self.heads = IntentHeads(width, self.intent_sizes, multi)
        self.output = ItemOutput(n_items, width)
        self.initialise()

    def item_table(self) -> Tensor:
        """Weights and biases of FC_item (V + 1, D + 1)."""
        return self.output.table()

    def read(self, events: EventInputs) -> Reading:
        """Item and intents from one state, at each event."""
        values = events.values if self.with_features else []
        seen = self.features(events.items, values, events.numbers)
        states = self.encoder(seen, events.codes)
        return Reading(self.output(states), self.heads(states) if self.predicts else [], states)


class Recurrent(nn.Module):
    """LSTM or GRU over vectors.

    Args:
        kind: which.
        inputs: width of the vectors.
        width: D of the states.
        layers: how many.
        dropout: of inputs, between layers and of the states.
    """

    def __init__(
        self, kind: Literal["lstm", "gru"], inputs: int, width: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        cell = nn.LSTM if kind == "lstm" else nn.GRU
        between = dropout if layers > 1 else 0.0
        self.cells = cell(inputs, width, layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """States (B, L, D) of vectors (B, L, `inputs`); the codes of time are not read."""
        states, _ = self.cells(self.dropout(vectors))
        result: Tensor = self.dropout(states)
        return result
