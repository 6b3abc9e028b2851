"""InDiRec where events have behaviours (view, cart, buy): merged, as clusters apart, or as inputs.

    merged:    behaviours are not looked at; this is `indirec` as the suite repairs it, bit for bit
    clusters:  k-means within the prefixes whose last event has one behaviour, K clusters each
    embedded:  h^0_i = E[v_i] + T[a_i] + p_i; items are ranked by E alone

A study (what is left open by arXiv:2504.16077), not a method of the paper.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from torch import Tensor, nn

from datamodules.errors import RequestError
from datamodules.events import EventTable, build_events
from datamodules.intent_labels import MAX_BEHAVIOURS
from datamodules.prepared import TRAIN, PreparedDataset
from datamodules.types import Batch, SequenceBatch, TrainingData
from intentbench.models.indirec import CARD as PLAIN
from intentbench.models.indirec import InDiRec
from intentbench.models.intent import Intents
from intentbench.models.takes import TakesDataset
from intentbench.nn.behaviours import BehaviourEmbedding, ClustersByBehaviour
from intentbench.nn.diffusion import Schedule

CARD = replace(
    PLAIN,
    title="InDiRec with behaviours",
    tiny={**PLAIN.tiny, "behaviours": "embedded"},
    published=(),
    deviations=(
        *PLAIN.deviations,
        "the paper has one behaviour: clusters apart and embedded behaviours are the suite's study",
        "the behaviour of the next event is not known; events of every behaviour are targets",
    ),
)


class InDiRecBehaviours(TakesDataset, InDiRec):
    """InDiRec (repaired) that may look at behaviours.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        behaviours: "merged", "clusters" or "embedded".
        clusters: K, of each behaviour where they are apart; as all that follow, see `InDiRec`.
        steps: T.
        guidance: w.
        signal_dropout: p.
        lambda_diff: weight of L_diff.
        lambda_cl: weight of L_cl.
        temperature: τ of L_cl.
        schedule: of the noise.
        width: D.
        blocks: number of blocks.
        heads: attention heads; must divide `width`.
        dropout: of embeddings, attention and blocks.
        clip_norm: of the gradient.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        behaviours: Literal["merged", "clusters", "embedded"] = "embedded",
        clusters: int = 32,
        steps: int = 50,
        guidance: float = 2.0,
        signal_dropout: float = 0.1,
        lambda_diff: float = 1.0,
        lambda_cl: float = 0.2,
        temperature: float = 1.0,
        schedule: Schedule = "exp",
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        clip_norm: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            n_items, n_users, window, clusters=clusters, steps=steps, guidance=guidance,
            signal_dropout=signal_dropout, lambda_diff=lambda_diff, lambda_cl=lambda_cl,
            temperature=temperature, schedule=schedule, width=width, blocks=blocks, heads=heads,
            dropout=dropout, clip_norm=clip_norm, learning_rate=learning_rate,
            weight_decay=weight_decay,
        )  # fmt: skip
        self.behaviours = behaviours
        if behaviours == "clusters":
            self.members = ClustersByBehaviour(clusters, width, True, MAX_BEHAVIOURS)
        if behaviours == "embedded":
            typed = BehaviourEmbedding(self.encoder.items, MAX_BEHAVIOURS)
            self.encoder.items = cast("nn.Embedding", typed)  # is called, and has a table, like one
        self._known: EventTable | None = None
        self._of_training: Tensor | None = None

    @classmethod
    def check(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """Refuse a dataset without behaviours, where they are looked at.

        Raises:
            RequestError: it has none, or more than `MAX_BEHAVIOURS`.
        """
        found = len(dataset.meta.actions) if dataset.actions is not None else 0
        if arguments["behaviours"] != "merged" and not 0 < found <= MAX_BEHAVIOURS:
            raise RequestError(
                f"{dataset.meta.name}: has {found or 'no'} behaviours; {cls.__name__} looks at "
                f"1 to {MAX_BEHAVIOURS}: give behaviours 'merged', or other data"
            )

    def take(self, dataset: PreparedDataset) -> None:
        """Look up the behaviours.

        Raises:
            RequestError: see `check`.
        """
        self.check(dataset, self.hparams)
        if self.behaviours == "merged":
            return
        self._known = build_events(dataset, {})
        if self._known.actions is None:
            raise RequestError(f"{dataset.meta.name}: has no behaviours")
        self._of_training = self._known.actions[:-1][dataset.split == TRAIN]
        if isinstance(self.members, ClustersByBehaviour):
            self.members.take_behaviours(self._of_training)

    def setup(self, stage: str) -> None:
        """Take the dataset, in every stage; then as for every method."""
        self.take(self.trainer.datamodule.dataset)  # type: ignore[attr-defined]  # Lightning sets it
        super().setup(stage)

    def prepare(self, training: TrainingData) -> None:
        """Number the training prefixes; their items are codes where behaviours are embedded."""
        if self.behaviours == "embedded" and self._of_training is not None:
            codes = training.items + (self.n_items + 1) * self._of_training
            training = replace(training, items=codes)
        super().prepare(training)

    def encode(self, batch: Batch) -> Tensor:
        """The state after the last item, (B, D)."""
        return super().encode(self._typed(batch))

    def intents(self, batch: SequenceBatch) -> Intents:
        """As InDiRec's; clusters apart have no centroid that is nearest whatever the behaviour."""
        return super().intents(self._typed(batch))

    def _typed(self, batch: Any) -> Any:
        """The batch with codes for items, where inputs have behaviours."""
        if self.behaviours != "embedded":
            return batch
        if self._known is None or self._known.actions is None:
            raise RequestError(f"{type(self).__name__} reads behaviours; call take(dataset) first")
        if self._known.items.device != batch.items.device:
            self._known = self._known.to(batch.items.device)
        actions = cast("Tensor", self._known.actions)[self._known.rows(batch)]
        return replace(batch, items=batch.items + (self.n_items + 1) * actions)
