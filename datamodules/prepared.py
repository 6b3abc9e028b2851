"""A prepared dataset: flat tensors on disk, memory-mapped, with the recipe that made them.

A folder holds `tensors.safetensors` (events, offsets, features), `users.txt` and `items.txt`
(original ids, a line each), optional texts, and `meta.json`, written last. Reading needs torch
alone.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from datamodules.errors import FormatError
from datamodules.types import TrainingData

TRAIN, VALID, TEST, UNUSED = 0, 1, 2, 3
"""Values of the `split` tensor."""

FORMAT = 1
"""Version of the layout on disk; another version is prepared anew."""


@dataclass(frozen=True)
class Meta:
    """What is known about a prepared dataset.

    Attributes:
        name: its catalogue key.
        fingerprint: sha256 over the tensors and the recipe; two preparations with the same
            fingerprint are interchangeable.
        recipe: filters, k-core, split and everything else that determined the result.
        history: which events stand before a target: "successive" all that precede it, "block"
            all that precede the first target of its split, "train" the training events.
        statistics: users, items, interactions, density and the like.
        sources: file name to sha256 of what was read.
        item_features: names of the item feature blocks (see `PreparedDataset.item_feature`).
        actions: names of the action codes; empty where the data has none.
        notes: what a page should say about the data (tie rule, users without targets, …).
        format: layout version.
    """

    name: str
    fingerprint: str
    recipe: dict[str, Any]
    history: str
    statistics: dict[str, float]
    sources: dict[str, str]
    item_features: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True)
class PreparedDataset:
    """Events sorted by user, then split, then time, then input order.

    Attributes:
        meta: name, fingerprint, recipe, statistics.
        items: (E,) int32, ids 1..V.
        split: (E,) uint8, `TRAIN`, `VALID`, `TEST` or `UNUSED`; never falls within a user.
        offsets: (N + 1,) int64, user u owns events `offsets[u]:offsets[u + 1]`.
        timestamps: (E,) int64 seconds, or None where the data has none.
        actions: (E,) int16 codes into `meta.actions`, or None.
        ratings: (E,) float32, or None.
        sessions: (E,) int32 running number of the session within its user, or None.
        features: further tensors by name: item features as `item.<name>.values` and
            `item.<name>.offsets` (V + 2,), planted truth as `truth.<name>`.
        folder: where it lies on disk, None when made in memory.
    """

    meta: Meta
    items: Tensor
    split: Tensor
    offsets: Tensor
    timestamps: Tensor | None = None
    actions: Tensor | None = None
    ratings: Tensor | None = None
    sessions: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def n_users(self) -> int:
        """N, the number of users."""
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        """V, the size of the catalogue."""
        return int(self.meta.statistics["items"])

    @property
    def fingerprint(self) -> str:
        """Fingerprint of content and recipe."""
        return self.meta.fingerprint

    def training(self) -> TrainingData:
        """The training events of every user, flat."""
        keep = self.split == TRAIN
        counts = torch.zeros(len(self.items) + 1, dtype=torch.int64)
        torch.cumsum(keep, 0, out=counts[1:])
        return TrainingData(self.items[keep].long(), counts[self.offsets], self.n_items)

    def item_feature(self, name: str) -> tuple[Tensor, Tensor]:
        """A multi-valued item feature.

        Returns:
            values and (V + 2,) offsets: item v has `values[offsets[v]:offsets[v + 1]]`.

        Raises:
            KeyError: the dataset has no such feature; the message lists those it has.
        """
        try:
            return self.features[f"item.{name}.values"], self.features[f"item.{name}.offsets"]
        except KeyError:
            known = ", ".join(self.meta.item_features) or "none"
            raise KeyError(f"{self.meta.name} has no feature {name!r}; it has: {known}") from None

    def original_ids(self, kind: str) -> list[str]:
        """Original ids of "users" (position u) or "items" (position v - 1), as text.

        Datasets made in memory have the running numbers themselves.
        """
        if self.folder is None:
            count, first = (self.n_users, 0) if kind == "users" else (self.n_items, 1)
            return [str(number) for number in range(first, first + count)]
        return (self.folder / f"{kind}.txt").read_text(encoding="utf-8").split("\n")

    def texts(self, kind: str) -> list[str] | None:
        """One text a user or item ("users", "items"), None where the data has none."""
        if self.folder is None or not (path := self.folder / f"{kind}.texts.json").exists():
            return None
        return list(json.loads(path.read_text(encoding="utf-8")))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name on disk."""
        named = {
            "items": self.items,
            "split": self.split,
            "offsets": self.offsets,
            "timestamps": self.timestamps,
            "actions": self.actions,
            "ratings": self.ratings,
            "sessions": self.sessions,
            **self.features,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def compute_fingerprint(tensors: dict[str, Tensor], recipe: dict[str, Any]) -> str:
    """sha256 over content and recipe: tensor names, types, shapes and bytes, then the recipe."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    digest.update(json.dumps(recipe, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def load_prepared(folder: Path) -> PreparedDataset:
    """Open a prepared dataset; tensors are memory-mapped, so processes share their pages.

    Raises:
        FormatError: the folder holds no prepared dataset, or one of another format version.
    """
    try:
        raw = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(
            f"{folder}: no prepared dataset there; run `intentbench data prepare`"
        ) from None
    if raw["format"] != FORMAT:
        raise FormatError(f"{folder}: prepared by another version; delete it and prepare again")
    for name in ("item_features", "actions", "notes"):
        raw[name] = tuple(raw[name])
    with safe_open(folder / "tensors.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    fixed = {
        name: tensors.pop(name, None)
        for name in ("items", "split", "offsets", "timestamps", "actions", "ratings", "sessions")
    }
    return PreparedDataset(Meta(**raw), **fixed, features=tensors, folder=folder)


def write_prepared(
    dataset: PreparedDataset,
    folder: Path,
    users: list[str],
    items: list[str],
    texts: dict[str, list[str]] | None = None,
) -> None:
    """Write a dataset into an empty folder; `meta.json` comes last and makes it valid.

    Args:
        dataset: what to write.
        folder: must exist; the caller renames it into place.
        users: original ids, position u. Must not contain line breaks.
        items: original ids, position v - 1.
        texts: optional texts of "users" and "items", in the same order.
    """
    save_file(dataset.tensors(), folder / "tensors.safetensors")
    (folder / "users.txt").write_text("\n".join(users), encoding="utf-8")
    (folder / "items.txt").write_text("\n".join(items), encoding="utf-8")
    for kind, lines in (texts or {}).items():
        (folder / f"{kind}.texts.json").write_text(json.dumps(lines), encoding="utf-8")
    (folder / "meta.json").write_text(json.dumps(asdict(dataset.meta), indent=1), encoding="utf-8")
