"""What a method on texts makes of users, items and their texts, before, during and after training.

The numbers behind the pictures of `intentbench text show`, which are those of IRLLRec's figures 1c
and 5 (Wang et al., SIGIR 2025).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import seed_everything
from numpy.typing import NDArray

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from intentbench.metrics.hypersphere import alignment, uniformity, unit_rows
from intentbench.models.base import Recommender
from intentbench.models.graph_text import TextGraphRecommender
from intentbench.models.irllrec import IRLLRec
from intentbench.models.kar import KAR
from intentbench.models.rlmrec_con import RLMRecCon
from intentbench.models.rlmrec_gen import RLMRecGen
from intentbench.results.record import TrialRecord
from intentbench.results.store import CHECKPOINT, CONFIG, read_record
from intentbench.runner.build import build_data, build_model, build_trainer
from intentbench.runner.config import read_config
from intentbench.runner.recommend import load_trained

Floats = NDArray[np.float32]

PAIRS = 2000
"""Rows whose pairs are compared, at most: a sample of the users, and of the items."""

BLOCK = 256
"""Users ranked at a time."""


@dataclass(frozen=True)
class Spaces:
    """Vectors of all nodes, users first.

    Attributes:
        n_users: N.
        kinds: name to vectors, (n, D) each; D may differ.
        matched: names of the two, of one width, that the method brings together for each node:
            from interactions, from texts.
    """

    n_users: int
    kinds: dict[str, Floats]
    matched: tuple[str, str]

    def side(self, kind: str, side: str) -> Floats:
        """The vectors of "users" (N, D) or of "items" (V, D)."""
        users = side == "users"
        return self.kinds[kind][: self.n_users] if users else self.kinds[kind][self.n_users :]

    def user(self, user: int) -> tuple[Floats, Floats]:
        """The two vectors (D,) of a user that are matched."""
        ours, texts = (self.kinds[kind][user] for kind in self.matched)
        return ours, texts


@torch.no_grad()
def read_spaces(model: TextGraphRecommender, data: SequenceDataModule) -> Spaces:
    """What a method makes of all nodes, without noise and with all edges.

    Args:
        model: on the CPU; in evaluation mode afterwards.
        data: what it was trained on.

    Raises:
        RequestError: its weights are 0, so that it has nothing to do with texts; or it is a method
            that is not known here.
    """
    model.take(data.dataset)
    model.prepare(data.training())
    model.eval()
    final = model.base.views(model.nodes()).final
    n_users, texts = model.n_users, model.profile_text
    kinds = {"embeddings e": final}
    match model:
        case IRLLRec() if model.aligns:
            intents, projected = model(torch.arange(len(final)))
            if model.graph_intents:
                kinds["intents r"] = intents
            matched = [*kinds][-1], "texts z"
            kinds["texts z"] = projected
            if model.profile_weight:
                kinds["profiles p"] = model.profile_tower(texts)
            elif texts.shape[1] > 1:  # a picture is of two directions
                kinds["profiles x"] = texts
        case IRLLRec() if model.profile_weight:
            kinds["profiles p"] = model.profile_tower(texts)
            matched = "embeddings e", "profiles p"
        case RLMRecCon() if model.weight:
            kinds["profiles p"] = model.tower(texts)
            matched = "embeddings e", "profiles p"
        case RLMRecGen() if model.weight:
            kinds |= {"guesses x̂": model.decoder(final), "profiles x": texts}
            matched = "guesses x̂", "profiles x"
        case KAR():
            kinds["profiles p"] = model.adaptor(texts[:n_users], texts[n_users:])
            matched = "embeddings e", "profiles p"
        case _:
            raise RequestError(
                f"{type(model).__name__}: relates no texts to interactions, its weights are 0 or "
                "`text show` does not know it; nothing to show"
            )
    found = {name: vectors.float().cpu().numpy() for name, vectors in kinds.items()}
    return Spaces(n_users, found, matched)


@dataclass(frozen=True)
class Subject:
    """A finished trial of a method on texts.

    Attributes:
        folder: of the trial.
        record: of the trial.
        trained: the method, from its best epoch.
        data: what it was trained on.
    """

    folder: Path
    record: TrialRecord
    trained: TextGraphRecommender
    data: SequenceDataModule

    @property
    def config(self) -> dict[str, Any]:
        """Of the trial."""
        return read_config(self.folder)

    def untrained(self) -> TextGraphRecommender:
        """The method as the trial began with it."""
        seed_everything(self.record.seed, workers=True, verbose=False)
        return _on_texts(build_model(self.config), self.folder)

    def after_epochs(self, epochs: int) -> TextGraphRecommender:
        """The method after so many epochs, trained again as the trial trained it.

        Nothing is validated and nothing stops it early.
        """
        model = self.untrained()
        config = self.config
        config["trainer"] |= {
            "max_epochs": epochs,
            "limit_val_batches": 0,
            "enable_checkpointing": False,
            "callbacks": [],
        }
        with tempfile.TemporaryDirectory(prefix="intentbench-") as folder:
            trainer = build_trainer(config, Path(folder))
            trainer.fit(model, build_data(config, self.data.dataset))
        return _on_texts(model.cpu(), self.folder)


def find_subject(folder: Path, data_root: Path | None) -> Subject:
    """The trial of a folder.

    Raises:
        RequestError: it is no trial, has not finished, is of another kind of method, or has no
            checkpoint; or the data are others now.
    """
    if not (folder / CONFIG).is_file():
        raise RequestError(f"{folder}: no {CONFIG} in it; give runs/DATASET/ROW/TRIAL")
    record = read_record(folder)
    if record is None or record.status != "done":
        raise RequestError(f"{folder}: this trial has not finished; run its benchmark first")
    _on_texts(build_model(read_config(folder)), folder)
    model, data = load_trained(folder / CHECKPOINT, data_root)
    return Subject(folder, record, _on_texts(model, folder), data)


def _on_texts(model: Recommender, folder: Path) -> TextGraphRecommender:
    if not isinstance(model, TextGraphRecommender):
        raise RequestError(
            f"{folder}: {type(model).__name__} adds no texts to a method on the graph; IRLLRec "
            "does, or RLMRec"
        )
    return model


def find_user(data: SequenceDataModule, wanted: str | None) -> int:
    """The row of a user.

    Args:
        data: whose users they are.
        wanted: original id; None for one with the median number of training interactions, drawn
            among those who have it.

    Raises:
        RequestError: the data has no such user.
    """
    if wanted is None:
        counts = data.training().offsets.diff().numpy()
        median = np.quantile(counts, 0.5, method="lower")
        return int(np.random.default_rng(0).choice(np.flatnonzero(counts == median)))
    names = data.dataset.original_ids("users")
    if wanted not in names:
        raise RequestError(
            f"--user {wanted}: {data.dataset.meta.name} has no such user; one is {names[0]}"
        )
    return names.index(wanted)


def match_user(spaces: Spaces, user: int) -> dict[str, float]:
    """How near a user's vector is to the user's own text: dot product, cosine, and rank.

    The rank is among the texts of all users, by cosine; ties count half, rounded up. The median
    rank is of all users.
    """
    ours, texts = spaces.user(user)
    ranks = own_ranks(*(spaces.side(kind, "users") for kind in spaces.matched))
    cosine = (unit_rows(ours[None]) * unit_rows(texts[None])).sum()
    return {
        "dot": float(ours.astype(np.float64) @ texts),
        "cosine": float(cosine),
        "rank": int(ranks[user]),
        "median_rank": float(np.median(ranks)),
    }


def own_ranks(ours: Floats, texts: Floats) -> NDArray[np.int64]:
    """The rank of each row's own text among all texts, by cosine; ties count half, rounded up.

    Args:
        ours: (N, D).
        texts: (N, D).
    """
    ours_1, texts_1 = unit_rows(ours), unit_rows(texts)
    ranks = np.empty(len(ours), dtype=np.int64)
    for begin in range(0, len(ours), BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, len(ours)))
        cosines = ours_1[rows] @ texts_1.T
        own = cosines[rows - begin, rows][:, None]
        equal = np.abs(cosines - own) < 1e-12  # equal texts, as rounding leaves them
        higher = ((cosines > own) & ~equal).sum(1)
        ranks[rows] = 1 + higher + equal.sum(1) // 2  # of those equal one is the own text
    return ranks


def measure_spaces(spaces: Spaces, data: SequenceDataModule) -> dict[str, Any]:
    """Alignment and uniformity of every kind (Wang & Isola 2020).

    Returns:
        Kind to "uniformity" of users and of items, over the pairs of at most `PAIRS` rows, and
        "alignment" of the training interactions' users and items.
    """
    events = data.training()
    users, items = events.users.numpy(), spaces.n_users + events.items.numpy() - 1
    found: dict[str, Any] = {}
    for kind, vectors in spaces.kinds.items():
        sides = {side: spaces.side(kind, side) for side in ("users", "items")}
        even = {side: uniformity(sample_rows(rows, PAIRS)) for side, rows in sides.items()}
        found[kind] = {
            "uniformity": even,
            "alignment": alignment(vectors[users], vectors[items]),
        }
    return found


def measure_match(spaces: Spaces) -> dict[str, float]:
    """Alignment of the two matched kinds, over users and over items."""
    return {
        side: alignment(*(spaces.side(kind, side) for kind in spaces.matched))
        for side in ("users", "items")
    }


def sample_rows(rows: Floats, count: int) -> Floats:
    """At most so many rows, the same ones each time."""
    return rows[np.random.default_rng(0).permutation(len(rows))[:count]]
