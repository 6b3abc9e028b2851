"""Lists of recommended items from a trained trial."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from datamodules.sequence import SequenceDataModule
from datamodules.types import PAD, EvaluationBatch
from intentbench.metrics.beyond import coverage, gini, mean_popularity, novelty
from intentbench.models.base import Recommender
from intentbench.models.events import EventRecommender
from intentbench.results.store import CONFIG
from intentbench.runner.build import build_data, build_model
from intentbench.runner.config import read_config

Stage = Literal["next", "test", "validation"]


def load_checkpoint(checkpoint: Path) -> Recommender:
    """The trained method of a trial, from the checkpoint beside its `config.yaml`.

    Raises:
        RequestError: there is no such checkpoint, or no `config.yaml` beside it; one of them is
            damaged, or they do not belong together.
    """
    if not checkpoint.is_file():
        raise RequestError(f"{checkpoint}: no such checkpoint")
    if not (checkpoint.parent / CONFIG).exists():
        raise RequestError(f"{checkpoint}: no {CONFIG} beside it; give the one in a trial's folder")
    model = build_model(read_config(checkpoint.parent))
    state = read_weights(checkpoint)
    try:
        model.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(
            f"{checkpoint}: its weights are not those of the method that {CONFIG} beside it "
            f"describes ({reason}); give the one in the trial's own folder, or run its benchmark "
            "again with the code of today"
        ) from error
    return model.eval()


def read_weights(checkpoint: Path) -> Mapping[str, torch.Tensor]:
    """The weights in a checkpoint.

    Raises:
        RequestError: the file is no checkpoint, or a damaged one.
        OSError: it is not there, or may not be read.
    """
    with checkpoint.open("rb"):  # its error names the file, torch's does not always
        pass
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # a damaged pickle may raise anything
        raise RequestError(
            f"{checkpoint}: no checkpoint of a trial, or damaged ({type(error).__name__}); give "
            "another, or delete the trial's folder and run its benchmark again"
        ) from error
    if not isinstance(state, Mapping):
        raise RequestError(f"{checkpoint}: no checkpoint of a trial; give its best.ckpt")
    return state


def load_trained(
    checkpoint: Path, data_root: Path | None
) -> tuple[Recommender, SequenceDataModule]:
    """The trained method of a trial, in evaluation mode, and the data that it was trained on.

    Args:
        checkpoint: `best.ckpt` of a trial.
        data_root: where data files are looked for.

    Raises:
        RequestError: see `load_checkpoint`; or the data are others now.
    """
    model = load_checkpoint(checkpoint)
    config = read_config(checkpoint.parent)
    data = build_data(config)
    data.data_root = data_root
    if data.dataset.fingerprint != config["trial"]["fingerprint"]:
        raise RequestError(
            f"{checkpoint}: was trained on other data than {data.dataset.meta.name} is now; run "
            "its benchmark again"
        )
    if isinstance(model, EventRecommender):
        model.take(data.dataset)
    return model, data


@dataclass(frozen=True)
class Recommendations:
    """Lists for a dataset's users.

    Attributes:
        dataset: what the numbers refer to.
        users: (Q,) rows of users, rising.
        items: (Q, k) items, best first; `PAD` where no candidate was left.
        scores: (Q, k) their scores, -inf there.
        intents: column to (Q,) labels, see `predict_intents`; {} where the method predicts none.
    """

    dataset: PreparedDataset
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    intents: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def frame(self) -> pl.DataFrame:
        """Columns user, item (original ids), score, rank (1 is best), one row an item.

        Then the intents, the same in all rows of a user.
        """
        real = self.items != PAD
        users = pl.Series(self.dataset.original_ids("users"))
        items = pl.Series(["", *self.dataset.original_ids("items")])
        row, column = np.nonzero(real)
        return pl.DataFrame(
            {
                "user": users.gather(self.users[row]),
                "item": items.gather(self.items[real]),
                "score": self.scores[real],
                "rank": (column + 1).astype(np.int32),
                **{name: pl.Series(labels[row]) for name, labels in self.intents.items()},
            }
        )

    def summary(self) -> dict[str, float]:
        """Beyond accuracy: coverage, Gini, mean popularity and novelty of what is recommended."""
        n_items = self.dataset.n_items
        trained = self.dataset.training().items.numpy()
        counts = np.bincount(trained, minlength=n_items + 1)
        return {
            "coverage": coverage(self.items, n_items),
            "gini": gini(self.items, n_items),
            "mean_popularity": mean_popularity(self.items, counts),
            "novelty": novelty(self.items, counts),
        }


def predict_intents(model: EventRecommender, batch: EvaluationBatch) -> dict[str, list[str]]:
    """What a method predicts of each row's next event besides its item.

    Returns:
        "intent_<name>" of each predicted intent: its most likely label, of those that a target can
        have; and, where the method weighs its intents by attention, "primary_intent": the name of
        the one that weighs most. A label a row.
    """
    if not model.predicts:
        return {}
    reading, _ = model.reading(batch)
    columns = {}
    fields = model.predicted(model.known(batch.items.device))
    for intent, share in zip(fields, model.heads.distributions(reading.logits), strict=True):
        never = [n for n, name in enumerate(intent.names) if not name or n in intent.inputs_only]
        share[:, never] = -torch.inf
        columns[f"intent_{intent.name}"] = [intent.names[n] for n in share.argmax(-1).tolist()]
    if reading.attention is not None:
        most = reading.attention.argmax(-1).tolist()
        columns["primary_intent"] = [model.predicts[n] for n in most]
    return columns


@torch.inference_mode()
def recommend(checkpoint: Path, k: int, stage: Stage, data_root: Path | None) -> Recommendations:
    """The k best items of every user, and the intents that the method predicts.

    Args:
        checkpoint: `best.ckpt` of a trial.
        k: list length.
        stage: what the lists stand for: "next" follows all of a user's events; "test" and
            "validation" follow what was known before that target. Where that is the same for all
            targets of a user, they have one list.
        data_root: where data files are looked for.

    Raises:
        RequestError: k is below 1, the data has no event of this stage, or see `load_checkpoint`.
    """
    if k < 1:
        raise RequestError(f"-k {k}: must be at least 1")
    model, data = load_trained(checkpoint, data_root)
    loader = {
        "next": data.predict_dataloader,
        "test": data.test_dataloader,
        "validation": data.val_dataloader,
    }[stage]()
    parts, intents = [], []
    for batch in loader:
        parts.append((batch.users, *model.recommend(batch, k)))
        intents.append(predict_intents(model, batch) if isinstance(model, EventRecommender) else {})
    if not parts:
        raise RequestError(f"{checkpoint}: {data.dataset.meta.name} has no {stage} events")
    users, items, scores = (torch.cat(column) for column in zip(*parts, strict=True))
    order = users.argsort(stable=True)
    if data.dataset.meta.history != "successive":  # the same list for each target of a user
        follows = users[order].diff(prepend=users.new_tensor([-1])) > 0
        order = order[follows]
    columns = {name: np.concatenate([part[name] for part in intents]) for name in intents[0]}
    items = torch.where(scores > -torch.inf, items, PAD)
    return Recommendations(
        data.dataset,
        users[order].numpy(),
        items[order].numpy(),
        scores[order].float().numpy(),
        {name: labels[order.numpy()] for name, labels in columns.items()},
    )
