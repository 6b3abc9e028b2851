"""IGR-SR whose frozen encoder reads texts: SASRec on frozen text features is trained first.

    T_I = last m states of FrozenEncoder(P, W t_{i_1} + p_1 … W t_{i_n} + p_n, I)

t_v are features of item v's text, W a linear map to the encoder's width. As with encoders of IDs,
the whole of the encoder, W included, is trained first (`pretrained: ROW` of `sasrec_text`) and
then frozen: only P and I learn through it. All else is `igr_sr`, whose main network has IDs.
"""

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any, ClassVar, Literal, cast

from datamodules.prepared import PreparedDataset
from intentbench.models.base import Recommender
from intentbench.models.igr_sr import CARD as PLAIN
from intentbench.models.igr_sr import IGRSR
from intentbench.models.pretrained import EncoderArgument
from intentbench.models.sasrec_text import SASRecText
from intentbench.models.takes import TakesDataset
from intentbench.nn.deliberation import Fusion

CARD = replace(
    PLAIN,
    title="IGR-SR on texts (partly reconstructed)",
    tiny={
        **PLAIN.tiny,
        "encoder": "sasrec_text",
        "encoder_arguments": {
            "width": 32, "blocks": 1, "heads": 2, "text": "gaussian", "profile_width": 24,
        },
    },
    deviations=(
        *PLAIN.deviations,
        "the paper's encoder is a SASRec of IDs; here what it reads of an item is a linear map of "
        "frozen features of its text. Map and causal blocks are trained first on the same training "
        "events, as the paper's encoder is, and frozen; without a `pretrained` row they stay as "
        "drawn, which is a control",
        "a language model that reads the items' texts as one sequence, with the tokens in it, is "
        "not offered: one vector an item enters the encoder",
    ),
    frozen=tuple(
        name.replace("encoder.items.weight", "encoder.items.project.weight")
        for name in PLAIN.frozen
    ),
)  # fmt: skip


class IGRSRText(TakesDataset, IGRSR):
    """IGR-SR that reads its intents from texts.

    Args:
        n_items: V.
        n_users: N; unused, users are known by their items alone.
        window: inputs at most.
        encoder: "sasrec_text".
        encoder_arguments: its arguments, `text` among them.
        freeze_encoder: whether the encoder stays as it is; the features do in any case.
        num_prefix: as all that follow, see `IGRSR`.
        num_intents: m.
        intents: "distilled" or "free".
        width: D of the main network.
        blocks: its layers.
        heads: its attention heads.
        dropout: of the main network.
        fusion: how intents enter it.
        layout: "prefix" or "all".
        p_mask: probability that an intent is masked in a view.
        mask: "zero" or "drop".
        lambda_icr: λ.
        temperature: τ.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
    """

    CARD = CARD
    READABLE: ClassVar[tuple[type[Recommender], ...]] = (SASRecText,)

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int = 50,
        encoder: Literal["sasrec_text"] = "sasrec_text",
        encoder_arguments: dict[str, EncoderArgument | str] | None = None,
        freeze_encoder: bool = True,
        num_prefix: int = 4,
        num_intents: int = 4,
        intents: Literal["distilled", "free"] = "distilled",
        width: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        fusion: Fusion = "cross",
        layout: Literal["all", "prefix"] = "prefix",
        p_mask: float = 0.2,
        mask: Literal["zero", "drop"] = "zero",
        lambda_icr: float = 0.1,
        temperature: float = 0.1,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        arguments = cast("dict[str, EncoderArgument] | None", encoder_arguments)  # and a source
        super().__init__(
            n_items, n_users, window, encoder, arguments, freeze_encoder, num_prefix, num_intents,
            intents, width, blocks, heads, dropout, fusion, layout, p_mask, mask, lambda_icr,
            temperature, "random", learning_rate, weight_decay,
        )  # fmt: skip

    @classmethod
    def check(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> None:
        """Refuse a dataset without the texts that the encoder reads.

        Raises:
            RequestError: it is one.
        """
        SASRecText.check(dataset, _of_encoder(arguments))

    @classmethod
    def reads(cls, dataset: PreparedDataset, arguments: Mapping[str, Any]) -> str:
        """The texts that the encoder reads."""
        return SASRecText.reads(dataset, _of_encoder(arguments))

    def take(self, dataset: PreparedDataset) -> None:
        """Look up the encoder's features.

        Raises:
            RequestError: there are none, or of another width.
        """
        cast("SASRecText", self.base).take(dataset)

    def setup(self, stage: str) -> None:
        """Take the texts for training; a checkpoint holds them. Then as for every method."""
        if stage == "fit":
            self.take(self.trainer.datamodule.dataset)  # type: ignore[attr-defined]  # Lightning sets it
        super().setup(stage)


def _of_encoder(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the encoder."""
    usual = {name: p.default for name, p in signature(SASRecText).parameters.items()}
    return {**usual, **(arguments["encoder_arguments"] or {})}
