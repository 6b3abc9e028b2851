"""Text features on disk: `features.safetensors`, and `manifest.json`, which is written last."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from datamodules.errors import FormatError, RequestError
from intentbench.results.store import write_atomic

FEATURES, MANIFEST = "features.safetensors", "manifest.json"
MATRICES = ("user_intent", "item_intent", "user_profile", "item_profile")

FORMAT = 1
"""Version of the layout, and of how offline features are made; others are made anew."""

_AGAIN = "run `intentbench text embed` again"


@dataclass(frozen=True)
class Manifest:
    """What text features are; a leaderboard names `source` beside each row that used them.

    Attributes:
        source: such as `tfidf-svd-128` or `openai-compatible:<model>`: what made the vectors.
        model: the embedding model.
        revision: its commit or checksum, empty where there is none.
        texts: what wrote the texts: "offline" or `openai-compatible:<model>`; empty if unknown.
        parameters: of the texts and of the embedder.
        prompt_sha256: of the prompts, empty where there are none.
        texts_sha256: of all texts, empty for vectors that were made elsewhere.
        dataset: name of the dataset.
        data_fingerprint: of the dataset.
        coverage: share of "users" and "items" whose intent is not all zero.
        fallback_share: share of the intents that come from the offline summariser although
            `texts` names another.
        features_sha256: of the file beside it.
        format: layout version.
    """

    source: str
    model: str
    revision: str
    texts: str
    parameters: dict[str, Any]
    prompt_sha256: str
    texts_sha256: str
    dataset: str
    data_fingerprint: str
    coverage: dict[str, float]
    fallback_share: float = 0.0
    features_sha256: str = ""
    format: int = FORMAT


def read_manifest(folder: Path) -> Manifest:
    """What the matrices in a folder are.

    Raises:
        RequestError: there are none.
        FormatError: the file is damaged, or of another version.
    """
    try:
        raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _nothing(folder) from None
    except ValueError as error:
        raise FormatError(f"{folder / MANIFEST}: damaged ({error}); {_AGAIN}") from None
    names = {item.name for item in fields(Manifest)}
    if not isinstance(raw, dict) or raw.keys() != names or raw["format"] != FORMAT:
        raise FormatError(f"{folder / MANIFEST}: written by another version; {_AGAIN}")
    return Manifest(**raw)


def read_matrices(folder: Path) -> tuple[dict[str, Tensor], Manifest]:
    """The matrices in a folder by name, and what they are.

    Raises:
        RequestError: there are none.
        FormatError: a file is damaged, or of another version.
    """
    manifest = read_manifest(folder)
    try:
        content = (folder / FEATURES).read_bytes()
    except FileNotFoundError:
        raise _nothing(folder) from None
    if hashlib.sha256(content).hexdigest() != manifest.features_sha256:
        raise FormatError(f"{folder / FEATURES}: not the file that the manifest names; {_AGAIN}")
    try:
        found = load(content)
    except SafetensorError as error:
        raise FormatError(f"{folder / FEATURES}: damaged ({error}); {_AGAIN}") from None
    if found.keys() != set(MATRICES):
        raise FormatError(f"{folder / FEATURES}: has not {', '.join(MATRICES)}; {_AGAIN}")
    return found, manifest


def _nothing(folder: Path) -> RequestError:
    return RequestError(
        f"{folder}: no text features there; run `intentbench text embed`, or name tfidf-svd"
    )


def write_matrices(folder: Path, matrices: Mapping[str, Tensor], manifest: Manifest) -> None:
    """Write matrices and, last, their manifest; the same matrices give the same bytes.

    Raises:
        OSError: the folder cannot be written; `read_matrices` refuses what is half there.
    """
    content = save({name: matrix.contiguous() for name, matrix in matrices.items()})
    complete = replace(manifest, features_sha256=hashlib.sha256(content).hexdigest())
    text = json.dumps(asdict(complete), indent=1, sort_keys=True) + "\n"
    write_atomic(folder / FEATURES, content)
    write_atomic(folder / MANIFEST, text.encode())
