"""What methods share that are built around another one, which is trained first."""

from collections.abc import Mapping
from inspect import signature
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from datamodules.errors import RequestError
from intentbench.models import load_method
from intentbench.models.base import GradientRecommender, Recommender
from intentbench.models.bert4rec import BERT4Rec
from intentbench.models.gru4rec import GRU4Rec
from intentbench.models.sasrec import Loss, SASRec
from intentbench.nn.intent_distiller import (
    BidirectionalReader,
    CausalReader,
    Reader,
    RecurrentReader,
)
from intentbench.nn.transformer import EncoderName

EncoderArgument = bool | int | float | Loss | EncoderName | Literal["all", "prefix"] | None
"""What an argument of a method that can be read may be."""

POSITIONS = "positions.weight"
"""End of the name of a table that has a row for each position of a window."""


class PretrainedRecommender(GradientRecommender):
    """A method around another one that is trained first.

    Its weights are part of this method's state, so that a checkpoint needs no other file. Without
    `load_encoder` they stay as they were drawn.

    Args:
        n_items: V.
        n_users: N.
        window: inputs at most.
        encoder: key of the other method.
        encoder_arguments: its constructor arguments, all but n_items, n_users and window; None or
            {} for its defaults.
        freeze_encoder: whether it takes no gradient and stays in evaluation mode; otherwise it is
            trained on, with its dropout.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.

    Attributes:
        base: the other method.
        reader: how tokens pass through it.
    """

    READABLE: ClassVar[tuple[type[Recommender], ...]] = (SASRec, GRU4Rec, BERT4Rec)
    """Methods whose encoders tokens can pass through, see `token_reader`."""

    def __init__(
        self,
        n_items: int,
        n_users: int,
        window: int,
        encoder: str = "sasrec",
        encoder_arguments: Mapping[str, EncoderArgument] | None = None,
        freeze_encoder: bool = True,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(n_items, n_users, learning_rate, weight_decay)
        self.window = window
        self.frozen = freeze_encoder
        filled = {"n_items": n_items, "n_users": n_users, "window": window}
        with torch.random.fork_rng(devices=()):
            # from a seed of its own, or it would draw the very weights that the method draws next
            torch.default_generator.manual_seed(int(torch.randint(2**31, ())))
            self.base = _build(encoder, {**(encoder_arguments or {})}, filled)
        self.reader = token_reader(self.base)
        self.base.requires_grad_(not freeze_encoder)
        self.train(self.training)

    def load_encoder(self, state: Mapping[str, Tensor]) -> None:
        """Take over the trained weights of the other method.

        One that was trained on longer windows gives the first of its positions: they are counted
        from the first item of a window.

        Args:
            state: the `state_dict` of its checkpoint.

        Raises:
            RequestError: these are the weights of another model.
        """
        own = self.base.state_dict()
        cut = {
            name: value[: len(own[name])] if name in own and name.endswith(POSITIONS) else value
            for name, value in state.items()
        }
        given, wanted = ({n: tuple(t.shape) for n, t in s.items()} for s in (cut, own))
        if given != wanted:
            name = min(n for n in {*given, *wanted} if given.get(n) != wanted.get(n))
            raise RequestError(
                f"{type(self).__name__}: the checkpoint has {given.get(name, 'no')} for {name!r}, "
                f"{type(self.base).__name__} has {wanted.get(name, 'none')}; give encoder, "
                "encoder_arguments and data of the method that was trained"
            )
        self.base.load_state_dict(cut)

    def train(self, mode: bool = True) -> Self:
        """As ever, but for a frozen encoder, which has no dropout."""
        super().train(mode)
        if self.frozen:
            self.base.eval()
        return self

    def on_fit_start(self) -> None:
        """Lightning warns of modules in evaluation mode: for a moment there is none."""
        self.base.train()

    def on_train_start(self) -> None:
        """The frozen encoder is in evaluation mode again before the first step of any run."""
        self.train()


def _build(
    key: str, arguments: dict[str, EncoderArgument], filled: Mapping[str, int]
) -> Recommender:
    """A method of these arguments, and of the others if it takes them."""
    cls = load_method(key)
    names = signature(cls).parameters
    for name in arguments:
        if name not in names or name in filled:
            allowed = ", ".join(sorted(names.keys() - filled.keys()))
            raise RequestError(f"encoder_arguments: {key!r} takes no {name!r}; allowed: {allowed}")
    taken = {name: value for name, value in filled.items() if name in names}
    given: dict[str, Any] = {**arguments, **taken}
    return cls(**given)


def token_reader(base: Recommender) -> Reader:
    """How tokens pass through a method's encoder.

    Raises:
        RequestError: they cannot.
    """
    if isinstance(base, SASRec):
        return CausalReader(base.encoder)
    if isinstance(base, GRU4Rec):
        return RecurrentReader(
            base.items, base.gru, base.back, base.embedding_dropout, base.output_dropout
        )
    if isinstance(base, BERT4Rec):
        return BidirectionalReader(base.encoder, base.n_items)
    raise RequestError(
        f"encoder: no tokens can be read by {type(base).__name__}; take sasrec, gru4rec or bert4rec"
    )
