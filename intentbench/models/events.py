"""Methods that read more of events than their items: times, behaviours, labels of intents.

    L = L_item + λ Σ_i L_i                                                    (IntentRec, Eq. 4)

Position k predicts the next event: its item, over the whole catalogue, and the chosen labels.
Fields of an event are given as rules (`datamodules.intent_labels`), which fix the size of
everything, so that a checkpoint loads without data.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.errors import RequestError
from datamodules.events import IntentLabels, build_events
from datamodules.intent_labels import label_count
from datamodules.prepared import TRAIN, PreparedDataset
from datamodules.types import PAD, Batch, EvaluationBatch, SequenceBatch
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.intent_prediction import IntentScore
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.models.base import MONITORED, GradientRecommender
from intentbench.models.takes import TakesDataset
from intentbench.nn.clipping import clip_gradients
from intentbench.nn.cross_entropy import chunked_cross_entropy
from intentbench.nn.event_features import EventFeatures
from intentbench.nn.event_inputs import (
    EventInputs,
    KnownEvents,
    joined,
    know_events,
    label_shares,
)
from intentbench.nn.initialisation import init_normal
from intentbench.nn.intent_heads import IntentHeads, IntentMixture
from intentbench.nn.reading import Reading, join_readings
from intentbench.nn.time_encoding import TimeEncoding
from intentbench.nn.weighted_cross_entropy import weighted_cross_entropy


class EventRecommender(TakesDataset, GradientRecommender):
    """A method that is shown the dataset, by `take`, before anything is trained or scored.

    A subclass makes `heads` (unless `intents` is empty), gives `read` and `item_table`.

    Args:
        n_items: V.
        n_users: N.
        fields: name to rule of what is known of each event.
        intents: the fields that are predicted; None: all.
        intent_weight: λ.
        clip_norm: of the gradient; 0: none. A Trainer's `gradient_clip_val` overrules it.
        shuffled_labels: whether heads learn labels of other events, a control.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.

    Attributes:
        intent_metrics: after a test, measures of each intent by "intent/measure".
    """

    heads: IntentHeads

    def __init__(
        self,
        n_items: int,
        n_users: int,
        fields: Mapping[str, str] | None,
        intents: tuple[str, ...] | None,
        intent_weight: float,
        clip_norm: float,
        shuffled_labels: bool,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.fields = dict(fields or {})
        self.predicts = tuple(self.fields) if intents is None else tuple(intents)
        unknown = [name for name in self.predicts if name not in self.fields]
        if unknown or len(set(self.predicts)) < len(self.predicts):
            known = ", ".join(self.fields) or "none"
            raise RequestError(f"intents {self.predicts}: each one of the fields, once: {known}")
        self.intent_weight = intent_weight
        self.clip_norm = clip_norm
        self.shuffled_labels = shuffled_labels
        # the rules that label items give several labels at once
        kinds = ["multi" if r.startswith("values:") else "single" for r in self.fields.values()]
        counts = [label_count(rule) for rule in self.fields.values()]
        self.field_sizes = list(zip(kinds, counts, strict=True))
        self.chosen = [list(self.fields).index(name) for name in self.predicts]
        self.intent_sizes = [self.field_sizes[number] for number in self.chosen]
        self.judges = [IntentScore(d, kind == "single") for kind, d in self.intent_sizes]
        self.scores = nn.ModuleList(self.judges)  # moves them along with the model
        self.intent_metrics: dict[str, float] = {}
        self._known: KnownEvents | None = None
        self._taken: PreparedDataset | None = None

    def initialise(self) -> None:
        """N(0, 0.02²), but what enters encoders side by side, or is added there, of like scale.

        Otherwise what is smaller by an order of magnitude would hardly be heard at first, and a
        comparison of parts would be one of their scales.
        """
        self.apply(init_normal)
        for module in self.modules():
            if isinstance(module, EventFeatures | TimeEncoding | IntentMixture):
                module.initialise()

    # Data ----------------------------------------------------------------------------------

    @classmethod
    def needs_times(cls, arguments: Mapping[str, Any]) -> bool:
        """Whether these arguments ask for timestamps, whatever the rules ask for."""
        return False

    @classmethod
    def check(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """Refuse a dataset that lacks what these arguments ask for.

        Args:
            dataset: prepared.
            arguments: all arguments of the method.

        Raises:
            RequestError: it does, or a rule is malformed.
        """
        cls.refuse(dataset, arguments)
        build_events(dataset, arguments["fields"] or {})

    @classmethod
    def refuse(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """The part of `check` that needs no work, and that every `take` does.

        Raises:
            RequestError: the dataset lacks what the arguments ask for, or there is nothing to
                predict, and that was not asked for.
        """
        if not arguments["fields"] and arguments["intents"] is None:
            raise RequestError(
                f"{dataset.meta.name}: {cls.__name__} has no fields for this dataset: give rules, "
                "fields: {action: behaviour} (docs/events.md), or intents: [] for the item alone"
            )
        if dataset.timestamps is None and cls.needs_times(arguments):
            raise RequestError(
                f"{dataset.meta.name}: {cls.__name__} needs timestamps, which the dataset does not "
                "have; choose position 'order' and no short-term window in time"
            )

    def take(self, dataset: PreparedDataset) -> None:
        """Look up what the dataset knows of its events.

        Raises:
            RequestError: it lacks what the arguments ask for.
        """
        if dataset is self._taken:
            return
        self.refuse(dataset, self.hparams)
        self._known = know_events(dataset, self.fields, self.shuffled_labels)
        self._taken = dataset
        training = dataset.split == TRAIN
        for score, number in zip(self.judges, self.chosen, strict=True):
            field = self._known.table.intents[number]
            score.frequencies = label_shares(field, self._known.table, training)

    def setup(self, stage: str) -> None:
        """Take the dataset, in every stage; then as for every method."""
        self.take(self.trainer.datamodule.dataset)  # type: ignore[attr-defined]  # Lightning sets it
        super().setup(stage)

    def known(self, device: torch.device) -> KnownEvents:
        """What is known of events, on a device.

        Raises:
            RequestError: `take` has not been called.
        """
        if self._known is None:
            raise RequestError(
                f"{type(self).__name__} reads more of events than a batch holds; call "
                "take(dataset) first"
            )
        self._known = self._known.to(device)
        return self._known

    def predicted(self, known: KnownEvents) -> list[IntentLabels]:
        """The fields that are predicted."""
        return [known.table.intents[number] for number in self.chosen]

    # Network -------------------------------------------------------------------------------

    def read(self, events: EventInputs) -> Reading:
        """What the method makes of a rectangle of events, at each of them (B, L, …)."""
        raise NotImplementedError

    def places(self, batch: SequenceBatch, rows: Tensor) -> Tensor:
        """(T,) where the states that predict a training batch's targets stand: `batch.select`.

        Args:
            batch: of T targets.
            rows: (B, L) numbers of its events.
        """
        return batch.select

    def reading(self, batch: Batch) -> tuple[Reading, Tensor]:
        """The reading behind each target, and (T,) the number of the event before it."""
        known = self.known(batch.items.device)
        rows = known.table.rows(batch)
        parts = [
            known.inputs(batch.items[start:stop, :width], rows[start:stop, :width])
            for start, stop, width in batch.groups
        ]
        whole = join_readings([self.read(part) for part in parts])
        places = batch.select
        if isinstance(batch, SequenceBatch):
            places = self.places(batch, rows)
        return whole.at(places), joined([part.rows for part in parts])[batch.select]

    def encode(self, batch: Batch) -> Tensor:
        """The query of each row (B, D)."""
        return self.reading(batch)[0].queries

    # Training ------------------------------------------------------------------------------

    def target_weights(self, known: KnownEvents, before: Tensor) -> Tensor | None:
        """(T,) how much each target counts, None where all count alike.

        Args:
            known: on the batch's device.
            before: (T,) number of the event before each target; the target is the next one.
        """
        return None

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """L_item, each L_i as "intent_<name>", and their sum."""
        reading, before = self.reading(batch)
        known = self.known(batch.items.device)
        weights = self.target_weights(known, before)
        if weights is None:
            total = chunked_cross_entropy(reading.queries, self.item_table(), batch.labels)
        else:
            total = weighted_cross_entropy(
                reading.queries, self.item_table(), batch.labels, weights
            )
        terms = {"item": total}
        if self.predicts and self.intent_weight:
            labels = [known.labels(field, before + 1) for field in self.predicted(known)]
            losses = self.heads.losses(reading.logits, labels, weights)
            for name, loss in zip(self.predicts, losses, strict=True):
                terms[f"intent_{name}"] = loss
                total = total + self.intent_weight * loss
        return {"total": total, **terms}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to `clip_norm`, where the Trainer asks for nothing else."""
        limit = self.clip_norm if gradient_clip_val is None else gradient_clip_val
        clip_gradients(self, optimizer, limit, gradient_clip_algorithm)

    # Test ----------------------------------------------------------------------------------

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Rank the test target, and judge the predicted intents, of one reading."""
        reading, before = self.reading(batch)
        scores = reading.queries @ self.item_table().T
        scores[:, PAD] = -torch.inf
        ranks = ranks_from_scores(scores, batch.target, batch.masked)
        self.test_ranks.update(batch.users, batch.key, ranks)
        if self.predicts:
            self._judge(batch, reading, before)

    def _judge(self, batch: EvaluationBatch, reading: Reading, before: Tensor) -> None:
        known = self.known(batch.items.device)
        table = known.table
        target = table.target_rows(batch)
        tied = torch.zeros_like(target, dtype=torch.bool)
        if table.gaps is not None:
            tied = table.gaps[target] == 0
        shares = self.heads.distributions(reading.logits)
        fields = self.predicted(known)
        for score, share, field in zip(self.judges, shares, fields, strict=True):
            if field.kind == "single":
                truth, last = field.labels[target], field.labels[before]
            else:
                truth, last = field.labels[batch.target], field.labels[table.items[before]]
            score.update(share, truth, last, tied)

    def on_test_epoch_end(self) -> None:
        """Keep the ranks in `table`, and measures of intents in `intent_metrics`."""
        super().on_test_epoch_end()
        self.intent_metrics = self._untied_items()
        for name, score in zip(self.predicts, self.judges, strict=True):
            found = score.compute()
            self.intent_metrics |= {f"{name}/{measure}": v for measure, v in found.items()}
            score.reset()

    def _untied_items(self) -> dict[str, float]:
        """Item metrics over targets whose time is not that of the event before, if some are."""
        table = self.known(self.device).table.to("cpu")
        if table.gaps is None or self.table is None:
            return {}
        rows = table.offsets[self.table.user] + torch.from_numpy(self.table.key)
        untied = (table.gaps[rows] > 0).numpy()
        if not 0 < untied.sum() < len(untied):
            return {}
        ranks = self.table.rank[untied]
        return {f"item/{m}_untied": float(compute_metric(m, ranks).mean()) for m in MONITORED}
