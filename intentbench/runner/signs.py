"""Signs that training goes wrong in a way that a metric does not show, watched while it runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from intentbench.metrics.geometry import effective_rank, length_ratio, mean_pairwise_cosine
from intentbench.models.intent import IntentRecommender
from intentbench.runner.intents import IntentTable, collect_intents, spread_users

if TYPE_CHECKING:
    from torch import Tensor

UNVALIDATED = "no validation events: the last epoch was tested, and nothing ended training early"

USERS = 256
"""Users whose last positions are looked at after each validation."""

ALIKE = 0.95
"""Mean pairwise cosine from which vectors count as one."""

LARGEST = 0.9
"""Share of one category from which the others count as unused."""

SHORT = 0.05
"""Length relative to the behaviour below which a part counts as absent."""

RANK = 2.0
"""Effective rank below which representations count as collapsed."""

UNIFORM = 0.99
"""Entropy of the attention over intents, of the largest possible, from which none is told apart."""

MISMATCH = 1.5
"""A generated view should have its source's category more often than chance times this."""

FALL = 0.1
"""Relative fall of the validation metric after its best that counts as overfitting."""


def measure_signs(last: IntentTable, several: bool = True) -> dict[str, float]:
    """The numbers that signs are read from.

    Args:
        last: one position a user.
        several: whether there is more than one category; the only one is everybody's.
    """
    share = np.bincount(last.intent) / max(len(last.intent), 1)
    numbers = {
        "intent_cosine": mean_pairwise_cosine(last.vectors),
        "largest_category": float(share.max()) if last.own and several else 0.0,
        "intent_length": length_ratio(last.vectors, last.states),
        "effective_rank": effective_rank(last.states),
        "state_cosine": mean_pairwise_cosine(last.states),
    }
    if last.interests is not None:
        numbers["interest_length"] = length_ratio(last.interests, last.states)
    if last.view is not None:
        chance = float(np.square(share).sum())
        numbers["view_match"] = float((last.view == last.intent).mean()) / max(chance, 1e-12)
    return numbers


def name_signs(numbers: dict[str, float]) -> list[str]:
    """The signs that these numbers show, each with its number.

    >>> name_signs({"intent_cosine": 0.99, "effective_rank": 30.0})
    ['intent collapse: mean pairwise cosine of intents 0.99']
    """
    seen = []

    def look(name: str, bad: bool, text: str) -> None:
        if bad:
            seen.append(f"{text} {numbers[name]:.3g}")

    def value(name: str, healthy: float) -> float:
        return numbers.get(name, healthy)

    cosine, largest = value("intent_cosine", 0), value("largest_category", 0)
    look("intent_cosine", cosine > ALIKE, "intent collapse: mean pairwise cosine of intents")
    look("largest_category", largest > LARGEST, "intent collapse: share of the largest category")
    entropy = value("attention_entropy", 0)
    look("attention_entropy", entropy > UNIFORM, "attention collapse: entropy over its largest")
    if "interest_length" in numbers:
        look("intent_length", numbers["intent_length"] < SHORT, "zero residual: ‖I‖/‖H‖")
        look("interest_length", numbers["interest_length"] < SHORT, "zero interest: ‖R‖/‖H‖")
    rank, alike = value("effective_rank", RANK), value("state_cosine", 0)
    look("effective_rank", rank < RANK, "representation collapse: effective rank")
    look("state_cosine", alike > ALIKE, "representation collapse: mean pairwise cosine of states")
    match = value("view_match", MISMATCH)
    look("view_match", match < MISMATCH, "intent mismatch of generated views: match over chance")
    return seen


def name_overfitting(validation: list[float], losses: list[float]) -> list[str]:
    """Whether the validation metric fell while the training loss went on falling.

    Args:
        validation: the monitored metric of each validation.
        losses: the training loss of the same epochs.

    >>> name_overfitting([0.1, 0.2, 0.15], [3.0, 2.0, 1.0])
    ['overfitting: validation fell by 25% after its best while the loss fell by 50%']
    """
    if len(validation) < 2 or len(losses) != len(validation):
        return []
    best = int(np.argmax(validation))
    fall = 1 - validation[-1] / validation[best] if validation[best] > 0 else 0.0
    if fall < FALL or losses[-1] >= losses[best]:
        return []
    decrease = 1 - losses[-1] / losses[best]
    return [
        f"overfitting: validation fell by {fall:.0%} after its best while the loss fell by "
        f"{decrease:.0%}"
    ]


class SignWatch(Callback):
    """Looks for signs after each validation; keeps those of the best epoch and of overfitting.

    Args:
        monitor: name of the validation metric, without "val/".
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = f"val/{monitor}"
        self._validation: list[float] = []
        self._losses: list[float] = []
        self._of_best: list[str] = []
        self._sum: Tensor | float = 0.0
        self._steps = 0

    @property
    def signs(self) -> list[str]:
        """What was seen, one line each."""
        return [*self._of_best, *name_overfitting(self._validation, self._losses)]

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on from a checkpoint has to know."""
        return {"validation": self._validation, "losses": self._losses, "of_best": self._of_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on watching."""
        self._validation = list(state_dict["validation"])
        self._losses = list(state_dict["losses"])
        self._of_best = list(state_dict["of_best"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin another mean of the loss."""
        self._sum, self._steps = 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: object
    ) -> None:
        """Add a step's loss; on the device, which is not waited for."""
        if isinstance(outputs, Mapping) and "loss" in outputs:
            self._sum = self._sum + outputs["loss"].detach()
            self._steps += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, log, and keep the signs if this is the best epoch so far."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        found = float(trainer.callback_metrics[self.monitor])
        improved = not self._validation or found > max(self._validation)
        self._validation.append(found)
        if self._steps:
            self._losses.append(float(self._sum) / self._steps)
        if not isinstance(pl_module, IntentRecommender):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        try:
            several = pl_module.hparams.get("num_intents", 2) > 1
            numbers = measure_signs(_sampled(pl_module, data), several)
        except RequestError:  # a variant without intents says so
            return
        for logger in trainer.loggers:
            named = {f"intents/{name}": value for name, value in numbers.items()}
            logger.log_metrics(named, trainer.global_step)
        name = "attention_entropy"
        if (entropy := trainer.callback_metrics.get(f"train/{name}")) is not None:
            numbers[name] = float(entropy)  # of the epoch before; that of this one is not over
        if improved:
            self._of_best = name_signs(numbers)


def _sampled(model: IntentRecommender, data: SequenceDataModule) -> IntentTable:
    users = spread_users(data.n_users, USERS)
    mode = model.training
    try:
        return collect_intents(model.eval(), data.dataset, data.window, users, last=True)
    finally:
        model.train(mode)
