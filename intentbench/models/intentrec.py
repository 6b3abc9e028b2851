"""IntentRec: hierarchical multi-task learning of intents and items (Oh et al., arXiv:2408.05353).

    F_k    fields of event k, S_k what the window of H seconds up to k says      (Eq. 1)
    E^int  = Encoder_int(F ⊕ S),  p^i = softmax(FC_i(E^int)),  v^i = Proj_i(p^i)
    Z      = Σ_i ω^i v^i,  ω = softmax_i(FC_att(v^i))                            (Eq. 2)
    E^item = Encoder_item(F ⊕ S ⊕ LN(Z)),  score(v) = FC_item(E^item)                (Eq. 3)
    L      = L_item + λ Σ_i L_i                                                  (Eq. 4)

Position k predicts the intents and the item of event k + 1. The paper's variants are arguments:

    V0  intents=()                                    the item encoder on F
    V1  hierarchical=False, short_term_window=None    one encoder, heads side by side
    V2  short_term_window=None                        two encoders, Z feeds the item encoder
    V3  the defaults                                  and S
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from datamodules.types import Batch, SequenceBatch
from intentbench.models.card import Card
from intentbench.models.events import EventRecommender
from intentbench.models.intent import IntentRecommender, Intents
from intentbench.nn.event_features import EventFeatures
from intentbench.nn.event_inputs import EventInputs, KnownEvents
from intentbench.nn.intent_heads import IntentHeads, IntentMixture, Multi
from intentbench.nn.item_output import ItemOutput
from intentbench.nn.reading import Reading
from intentbench.nn.short_term import ShortTerm
from intentbench.nn.time_encoding import Position, TimedEncoder

Bridge = Literal["mixture", "detached", "labels", "states", "mean", "concatenation"]

CARD = Card(
    title="IntentRec",
    paper="Oh, Bhattacharya, Feng & Lamkhede, IntentRec: Predicting User Session Intent with "
    "Hierarchical Multi-Task Learning, 2024, arXiv:2408.05353",
    code="",
    tiny={
        "fields": {"action": "behaviour", "category": "values:category:16"},
        "short_term_window": 1800.0,
        "behaviour_weights": {"view": 1.0, "cart": 2.0, "buy": 3.0},
        "item_width": 32,
        "field_width": 8,
        "short_width": 16,
        "intent_width": 16,
        "width": 32,
        "blocks": 1,
        "heads": 2,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    deviations=(
        "the authors' data and code are not public: intents are stand-ins made by rules of what a "
        "dataset has, so that only relative differences may be set beside the paper's; those are "
        "given for Netflix data, hence no published figures here",
        "widths, depths, λ, window and optimiser are not given in the paper: chosen here",
        "time enters as hour, weekday and gap (the paper: timestamp embeddings, not said how), and "
        "by default the order too, as equal timestamps are common in public data",
        "Enc of the short-term window is one banded attention block, which encodes every window "
        "exactly; a deeper one would need each window apart",
        "LayerNorm after the layers that enter an encoder; the paper's normalisation is not named",
        "F and Z too go through a LayerNorm before they are joined (S ends with one), and vectors "
        "of fields, of labels and of time start at its scale: else Z would start a thousand times "
        "below S, and the hierarchy hardly be heard; the paper says nothing of initialisation",
        "all targets weigh alike unless behaviour_weights says otherwise; the paper weighs them by "
        "duration, which no dataset here has. Weights are the target's, normalised over the batch",
        "each L_i is a mean over targets that have a label of the intent",
        "windows are padded on the right and positions counted from the first item, so that a "
        "trimmed batch equals a padded one",
    ),
    effects={
        "intents": "which heads there are: no other value can be derived; see its tests",
        "fields": "what there is to embed and to predict: no other value can be derived",
        "behaviour_weights": "the weights of targets: no other value can be derived",
    },
)


class IntentRec(EventRecommender, IntentRecommender):
    """IntentRec, V0 to V3.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their events alone.
        window: inputs at most (n in the paper).
        fields: name to rule of what is known of each event (`datamodules.intent_labels`).
        intents: the fields that are predicted; None: all; none at all: V0.
        hierarchical: whether predictions feed the item encoder; otherwise V1.
        short_term_window: H in seconds, inf for a causal summary; None: no limit in time.
        short_term_events: events of a window at most, the naive form; None: no limit. Without
            either limit there is no S.
        bridge: what feeds the item encoder: "mixture" Z of the predictions; "detached" the same,
            but the item loss does not reach the predictions; "labels" Z of the labels of event k;
            "states" E^int in place of Z; "mean" and "concatenation" of the v^i without attention.
        shared_encoder: whether the item encoder's blocks are the intent encoder's.
        position: how time enters: "time" (the paper), "time+order", "order" or "none".
        item_width: of E_item.
        field_width: of the vector of each field.
        short_width: of S.
        intent_width: of Z.
        width: D of both encoders.
        blocks: of each encoder.
        heads: attention heads of all encoders.
        dropout: everywhere.
        intent_weight: λ.
        multi: loss of intents with several labels: positives of a softmax, or a sigmoid each.
        behaviour_weights: name of a behaviour to how much a target with it counts, 1 if left out;
            None: all alike.
        weight_of: whose behaviour counts: the target's, or the last input's (Eq. 3, literally).
        tie_item_weights: whether scores use E_item, by way of a D -> `item_width` map.
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
        fields: dict[str, str] | None = None,
        intents: tuple[str, ...] | None = None,
        hierarchical: bool = True,
        short_term_window: float | None = 604800.0,
        short_term_events: int | None = None,
        bridge: Bridge = "mixture",
        shared_encoder: bool = False,
        position: Position = "time+order",
        item_width: int = 64,
        field_width: int = 16,
        short_width: int = 32,
        intent_width: int = 32,
        width: int = 128,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.2,
        intent_weight: float = 0.3,
        multi: Multi = "softmax",
        behaviour_weights: dict[str, float] | None = None,
        weight_of: Literal["target", "input"] = "target",
        tie_item_weights: bool = False,
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
        self.behaviour_weights = behaviour_weights
        self.weight_of = weight_of
        self._weights: Tensor | None = None  # (E + 1,) of each event
        self.bridge = bridge
        self.features = EventFeatures(n_items, item_width, self.field_sizes, field_width)
        inputs = self.features.width
        self.short_term: ShortTerm | None = None
        if short_term_window is not None or short_term_events is not None:
            limits = (short_term_window, short_term_events)
            self.short_term = ShortTerm(inputs, short_width, position, heads, dropout, *limits)
            inputs += short_width
        self.intent_encoder: TimedEncoder | None = None
        self.mixture: IntentMixture | None = None
        item_blocks: int | nn.ModuleList = blocks
        shape = (width, position, window)
        if self.predicts:
            self.heads = IntentHeads(width, self.intent_sizes, multi)
        if self.predicts and hierarchical:
            self.intent_encoder = TimedEncoder(inputs, *shape, blocks, heads, dropout)
            if shared_encoder:
                item_blocks = self.intent_encoder.blocks
            if bridge == "states":
                inputs += width
            else:
                sizes = [size for _, size in self.intent_sizes]
                how = bridge if bridge in ("mean", "concatenation") else "attention"
                self.mixture = IntentMixture(sizes, intent_width, how)
                self.mixture_norm = nn.LayerNorm(self.mixture.joined)  # F and S end with one
                inputs += self.mixture.joined
        self.item_encoder = TimedEncoder(inputs, *shape, item_blocks, heads, dropout)
        self.output = ItemOutput(n_items, width, self.features.items if tie_item_weights else None)
        self.initialise()

    @classmethod
    def needs_times(cls, arguments: Mapping[str, Any]) -> bool:
        """Where time is a position, or limits the window."""
        return "time" in arguments["position"] or arguments["short_term_window"] is not None

    @classmethod
    def refuse(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """As for every event method; and behaviours that weigh must exist.

        Raises:
            RequestError: the dataset lacks what the arguments ask for.
        """
        super().refuse(dataset, arguments)
        for name in arguments["behaviour_weights"] or ():
            if name not in dataset.meta.actions:
                raise RequestError(
                    f"{dataset.meta.name}: behaviour_weights: no behaviour {name!r}; it has: "
                    f"{', '.join(dataset.meta.actions) or 'none'}"
                )

    def take(self, dataset: PreparedDataset) -> None:
        """As for every event method; and the weight of each event."""
        super().take(dataset)
        if self.behaviour_weights is not None:
            given = [self.behaviour_weights.get(name, 1.0) for name in dataset.meta.actions]
            actions = self.known(torch.device("cpu")).table.actions
            self._weights = None if actions is None else torch.tensor([0.0, *given])[actions]

    def item_table(self) -> Tensor:
        """Weights and biases of FC_item (V + 1, D + 1), or the tied E_item."""
        return self.output.table()

    def read(self, events: EventInputs) -> Reading:
        """Both levels, at each event."""
        seen = self.features(events.items, events.values, events.numbers)
        if self.short_term is not None:
            short = self.short_term(seen, events.times, events.codes)
            seen = torch.cat([seen, short], -1)
        if self.intent_encoder is None:
            states = self.item_encoder(seen, events.codes)
            logits = self.heads(states) if self.predicts else []
            return Reading(self.output(states), logits, states)
        states = self.intent_encoder(seen, events.codes)
        logits = self.heads(states)
        mixture, entering, attention = states, states, None
        if self.mixture is not None:
            mixture, attention = self.mixture(self._evidence(events, logits))
            entering = self.mixture_norm(mixture)
        above = self.item_encoder(torch.cat([seen, entering], -1), events.codes)
        return Reading(self.output(above), logits, states, mixture, attention)

    def _evidence(self, events: EventInputs, logits: list[Tensor]) -> list[Tensor]:
        """What Z is made of: a distribution (B, L, d_i) for each intent."""
        if self.bridge == "labels":
            return [self._own_labels(events.values[n], n) for n in self.chosen]
        shares = self.heads.distributions(logits)
        return [share.detach() for share in shares] if self.bridge == "detached" else shares

    def _own_labels(self, values: Tensor, number: int) -> Tensor:
        """The labels of the events themselves, as distributions; all 0 where they have none."""
        kind, size = self.field_sizes[number]
        if kind == "multi":
            return values / values.sum(-1, keepdim=True).clamp(min=1)
        return functional.one_hot(values, size + 1)[..., 1:].to(self.output.dtype)

    def target_weights(self, known: KnownEvents, before: Tensor) -> Tensor | None:
        """The weight of the behaviour of each target, or of the input before it."""
        if self._weights is None:
            return None
        self._weights = self._weights.to(before.device)
        return self._weights[before + 1 if self.weight_of == "target" else before]

    def intents(self, batch: SequenceBatch) -> Intents:
        """Z at the positions of a batch whose rows have their own events as targets.

        Raises:
            RequestError: the method has no Z (V0, V1).
        """
        # such a row's last target is its last input, where `rows` expects the event after it
        reading, _ = self.reading(replace(batch, key=batch.key + 1))
        if reading.mixture is None:
            raise RequestError("IntentRec without a hierarchy of intents and items has no Z")
        return Intents(vectors=reading.mixture, states=reading.states)

    def explain(self, batch: Batch) -> tuple[list[Tensor], Tensor | None]:
        """What is predicted of each row's next event, and what the item encoder heeds.

        Returns:
            p^i (B, d_i) of each intent, and the attention weights ω (B, M), None without Z. The
            primary intent of a row is the arg max of ω.
        """
        reading, _ = self.reading(batch)
        shares = self.heads.distributions(reading.logits) if self.predicts else []
        return shares, reading.attention
