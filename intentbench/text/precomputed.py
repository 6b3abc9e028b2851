"""Vectors that were made elsewhere.

A folder has `user_intent.npy`, `item_intent.npy`, `user_profile.npy` and `item_profile.npy`, in the
order of the dataset's users and items.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import FormatError, RequestError
from datamodules.prepared import PreparedDataset
from intentbench.text.features import TextFeatures, check_features, compute_coverage, to_tensor
from intentbench.text.store import MATRICES, Manifest


def read_precomputed(folder: Path, dataset: PreparedDataset) -> TextFeatures:
    """Read the four matrices of a folder.

    Args:
        folder: that has them. Items have V rows, or V + 1 with a first row for `PAD`.
        dataset: whose they are; nothing in them can show that they are.

    Raises:
        FormatError: a file is missing, pickled, or no matrix of numbers.
        RequestError: a matrix has another number of rows, a value is not finite, or users and items
            have different widths.
    """
    found = {name: _read_npy(folder / f"{name}.npy") for name in MATRICES}
    for name in ("item_intent", "item_profile"):
        if len(found[name]) != dataset.n_items:
            found[name][:1] = 0  # before it is looked at: what a file has for `PAD` is of no use
    for name, matrix in found.items():
        _check_finite(matrix, folder / f"{name}.npy")
    for name in ("item_intent", "item_profile"):
        if len(found[name]) == dataset.n_items:
            found[name] = np.concatenate([np.zeros_like(found[name][:1]), found[name]])
    matrices = {name: to_tensor(matrix) for name, matrix in found.items()}
    digest = hashlib.sha256(b"".join(matrix.tobytes() for matrix in found.values()))
    manifest = Manifest(
        source=f"precomputed:{folder.resolve().name}",
        model="precomputed",
        revision=f"sha256:{digest.hexdigest()[:16]}",
        texts="",
        parameters={},
        prompt_sha256="",
        texts_sha256="",
        dataset=dataset.meta.name,
        data_fingerprint=dataset.fingerprint,
        coverage=compute_coverage(matrices["user_intent"], matrices["item_intent"]),
    )
    features = TextFeatures(**matrices, manifest=manifest)
    check_features(features, dataset, str(folder))
    _check_widths(features, folder)
    return features


def _check_widths(features: TextFeatures, folder: Path) -> None:
    """Refuse what methods, which put users and items into one matrix, could not take."""
    # not of `check_features`: its file is in the fingerprint of every row on texts
    matrices = features.matrices()
    for kind in ("intent", "profile"):
        users, items = (matrices[f"{side}_{kind}"].shape[1] for side in ("user", "item"))
        if users != items:
            raise RequestError(
                f"{folder}: user_{kind}.npy has {users} columns, item_{kind}.npy {items}; "
                "make both with one model: methods take one width for both"
            )


def _read_npy(path: Path) -> NDArray[np.float32]:
    """A matrix as float32; numbers beyond its range become infinite.

    Raises:
        FormatError: there is none.
    """
    try:
        with path.open("rb") as file:
            matrix = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; it takes {', '.join(MATRICES)}, .npy") from None
    except OSError as error:
        raise FormatError(f"{path}: not read ({error.strerror or error})") from None
    except ValueError:  # NumPy's words advise to load pickles
        raise FormatError(
            f"{path}: not read: damaged, or no .npy file of plain numbers (objects and pickles are "
            "not taken); save a matrix of floats with numpy.save"
        ) from None
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise FormatError(f"{path}: not a matrix of numbers")
    with np.errstate(over="ignore"):  # `_check_finite` says it, with the row
        return matrix.astype(np.float32)


def _check_finite(matrix: NDArray[np.float32], path: Path) -> None:
    """Refuse numbers that are not finite, or that float32 has no room for."""
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        raise RequestError(
            f"{path}: not finite as float32: {len(bad)} of {len(matrix)} rows, the first is row "
            f"{bad[0]}, counted from 0; mend them (what has no text is a row of zeros)"
        )
