"""Text features of a dataset: four float32 matrices, and a manifest that says what they are.

Methods read them with `load_features`, which refuses features of other data. Those named
`tfidf-svd` need no command: they are made of the dataset's own texts when they are asked for.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.prepared import PreparedDataset
from datamodules.texts import TextData, collect_ids, collect_texts
from intentbench.results.fingerprint import code_fingerprint
from intentbench.text.documents import DocumentSet, offline_documents
from intentbench.text.store import (
    FORMAT,
    MATRICES,
    Manifest,
    read_manifest,
    read_matrices,
    write_matrices,
)
from intentbench.text.tfidf import TfidfSvd

DIMS = 128
"""Width of offline profiles, and of each half of offline intents."""

_PROFILE = "profile"

_OFFLINE = re.compile(r"tfidf-svd(?:-(\d+))?")


@dataclass(frozen=True)
class TextFeatures:
    """Frozen inputs of a text tower.

    Attributes:
        user_intent: (N, D) float32, row u is user u.
        item_intent: (V + 1, D) float32, row v is item v; row 0 (`PAD`) is zero.
        user_profile: (N, P) float32.
        item_profile: (V + 1, P) float32, row 0 is zero.
        manifest: where they come from.
    """

    user_intent: Tensor
    item_intent: Tensor
    user_profile: Tensor
    item_profile: Tensor
    manifest: Manifest

    def matrices(self) -> dict[str, Tensor]:
        """The matrices by their names on disk."""
        return {name: getattr(self, name) for name in MATRICES}

    def write(self, folder: Path) -> None:
        """Write them; see `intentbench.text.store.write_matrices`."""
        write_matrices(folder, self.matrices(), self.manifest)


class Embedder(Protocol):
    """Turns texts into vectors; `name`, `model`, `revision`, `parameters` go into the manifest."""

    name: str
    model: str
    revision: str
    parameters: dict[str, object]

    def embed(self, columns: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.float32]]:
        """(n, width) for each column of n texts; an empty text is a zero row."""


def load_features(folder_or_name: Path | str, dataset: PreparedDataset) -> TextFeatures:
    """The text features of a dataset.

    Args:
        folder_or_name: a folder that `intentbench text embed` has written; or `tfidf-svd` or
            `tfidf-svd-<dims>`, see `offline_features`.
        dataset: what they must be features of.

    Raises:
        RequestError: there are none, or they are features of other data.
        FormatError: a file is damaged.
    """
    if offline := _OFFLINE.fullmatch(str(folder_or_name)):
        return offline_features(dataset, int(offline[1] or DIMS))
    matrices, manifest = read_matrices(Path(folder_or_name))
    features = TextFeatures(**matrices, manifest=manifest)
    check_features(features, dataset, str(folder_or_name))
    return features


def check_features(features: TextFeatures, dataset: PreparedDataset, where: str) -> None:
    """Refuse features that are not of this dataset.

    Raises:
        RequestError: the fingerprint is of other data, or a matrix has another number of rows, or
            a value is not finite.
    """
    found, wanted = features.manifest.data_fingerprint, dataset.fingerprint
    again = f"run `intentbench text embed {dataset.meta.name}`"
    if found != wanted:
        raise RequestError(
            f"{where}: text features of other data: fingerprint {found[:12]} "
            f"({features.manifest.dataset}), {dataset.meta.name} has {wanted[:12]}; {again}"
        )
    for name, matrix in features.matrices().items():
        rows = dataset.n_users if name.startswith("user") else dataset.n_items + 1
        if matrix.ndim != 2 or len(matrix) != rows or not matrix.isfinite().all():
            raise RequestError(
                f"{where}: {name}: expected {rows} rows of finite numbers, found the shape "
                f"{tuple(matrix.shape)}; {again}"
            )


def describe_features(folder_or_name: str, dataset: PreparedDataset, dims: int = DIMS) -> str:
    """The source of text features in one line, with a checksum; reads no matrix.

    Args:
        folder_or_name: as of `load_features`.
        dataset: as there.
        dims: of the name `tfidf-svd`.

    Returns:
        Such as "tfidf-svd-128 (offline texts, 0123456789abcdef)". The checksum is one of the
        features; of those that are made here, of the texts, for rounding differs between machines.

    Raises:
        RequestError: there are none.
        FormatError: a file is damaged.
    """
    if offline := _OFFLINE.fullmatch(folder_or_name):
        return f"tfidf-svd-{offline[1] or dims} (offline texts, {_checksum(dataset)[:16]})"
    manifest = read_manifest(Path(folder_or_name))
    texts = f"{manifest.texts} texts" if manifest.texts else "unknown texts"
    return f"{manifest.source} ({texts}, {manifest.features_sha256[:16]})"


def _checksum(dataset: PreparedDataset) -> str:
    """sha256 of a dataset's texts, which are no part of its fingerprint."""
    digest = hashlib.sha256()
    for path in sorted(dataset.folder.glob("*.texts.json")) if dataset.folder else ():
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def offline_features(
    dataset: PreparedDataset, dims: int = DIMS, min_df: int = 5, max_df: float = 0.5
) -> TextFeatures:
    """Features from a dataset's own texts, without a language model and without a network.

    They are kept beside the dataset's folder, under a name made of their parameters, of the
    dataset's texts and of the code that makes them; processes that ask at the same time make them
    once. The same bytes on every run on one machine.

    Args:
        dataset: prepared, with texts.
        dims: width of the profile and of each half of the intent.
        min_df: see `TfidfSvd`.
        max_df: see `TfidfSvd`.

    Raises:
        RequestError: the dataset has no texts, or none that share words.
    """
    return _kept(dataset, TfidfSvd(dims, min_df, max_df), collect_texts, "offline")


def id_features(dataset: PreparedDataset, dims: int = DIMS) -> TextFeatures:
    """A control: as `offline_features`, but the text of each item is one word of its own.

    No word is left out, however few or many documents it is in. What these features know is who
    has had what, and nothing in words.

    Args:
        dataset: prepared; needs no texts.
        dims: as of `offline_features`.
    """
    return _kept(dataset, TfidfSvd(dims, min_df=1, max_df=1.0), collect_ids, "ids")


def _kept(
    dataset: PreparedDataset,
    embedder: TfidfSvd,
    collect: Callable[[PreparedDataset], TextData],
    origin: str,
) -> TextFeatures:
    def make() -> TextFeatures:
        documents = offline_documents(collect(dataset), dataset.fingerprint)
        documents = replace(documents, origin=origin)
        return embed_documents(documents, embedder, dataset.meta.name)

    if dataset.folder is None or not os.access(dataset.folder.parent, os.W_OK):
        return make()  # nowhere to keep them
    code = code_fingerprint([Path(__file__)])  # and all it imports: documents, TF-IDF, texts
    parts = [FORMAT, embedder.parameters, origin, code, _checksum(dataset)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = dataset.folder.with_name(f"{dataset.folder.name}.text-{digest[:12]}")
    with FileLock(f"{folder}.lock"):
        try:
            return load_features(folder, dataset)
        except RequestError:  # not there yet, damaged, or stale
            made = make()
            made.write(folder)
            return made


def embed_documents(documents: DocumentSet, embedder: Embedder, dataset: str) -> TextFeatures:
    """Vectors of documents.

    Args:
        documents: of N users and V + 1 items.
        embedder: sees users' and items' texts of one kind together.
        dataset: its name, for the manifest.

    Returns:
        Intents: the vectors of the parts side by side, each of length 1, or zero where the text is
        empty. Profiles: the vectors as they come.
    """
    vectors = embedder.embed(stack_columns(documents))
    parts = [_unit_rows(vectors[name]) for name in sorted(vectors) if name != _PROFILE]
    intents, profiles = np.concatenate(parts, axis=1), vectors[_PROFILE]
    n_users = len(documents.users.profiles)
    user_intent, item_intent = to_tensor(intents[:n_users]), to_tensor(intents[n_users:])
    manifest = Manifest(
        source=embedder.name,
        model=embedder.model,
        revision=embedder.revision,
        texts=documents.origin,
        parameters={"texts": documents.parameters, "embedder": embedder.parameters},
        prompt_sha256=documents.prompt_sha256,
        texts_sha256=documents.checksum(),
        dataset=dataset,
        data_fingerprint=documents.data_fingerprint,
        coverage=compute_coverage(user_intent, item_intent),
        fallback_share=documents.fallback_share,
    )
    return TextFeatures(
        user_intent=user_intent,
        item_intent=item_intent,
        user_profile=to_tensor(profiles[:n_users]),
        item_profile=to_tensor(profiles[n_users:]),
        manifest=manifest,
    )


def stack_columns(documents: DocumentSet) -> dict[str, list[str]]:
    """The texts of users, then of items, by kind: each part of the intents, and the profiles."""
    users, items = documents.users, documents.items
    columns = {
        f"intent {number}": [*pair[0], *pair[1]]
        for number, pair in enumerate(zip(users.intents, items.intents, strict=True))
    }
    return columns | {_PROFILE: [*users.profiles, *items.profiles]}


def compute_coverage(user_intent: Tensor, item_intent: Tensor) -> dict[str, float]:
    """Share of users, and of items without `PAD`, whose row is not all zero."""
    found = {"users": user_intent, "items": item_intent[1:]}
    return {
        side: float((rows != 0).any(1).double().mean()) if len(rows) else 0.0
        for side, rows in found.items()
    }


def to_tensor(matrix: NDArray[np.generic]) -> Tensor:
    """A matrix as a float32 tensor of its own."""
    return torch.from_numpy(np.array(matrix, dtype=np.float32, order="C"))


def _unit_rows(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; zero rows stay zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.where(lengths > 0, lengths, 1), dtype=np.float32)
