"""Folders as bytes: how data and results travel where machines share no disk."""

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from datamodules.errors import FormatError
from datamodules.prepared import compute_fingerprint, load_prepared
from intentbench.results.store import write_atomic

Files = Mapping[str, NDArray[np.uint8]]
"""Path below a folder to content: arrays, which an object store hands on without a copy."""


def pack_folder(folder: Path) -> Files:
    """Every file of a folder but hidden ones."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return pack_files(folder, [path for path in found if not path.name.startswith(".")])


def pack_files(folder: Path, paths: Iterable[Path]) -> Files:
    """Some files of a folder."""
    return {
        path.relative_to(folder).as_posix(): np.fromfile(path, dtype=np.uint8) for path in paths
    }


def unpack_files(files: Files, folder: Path) -> None:
    """Write files below a folder, each atomically, in their order."""
    for name, content in files.items():
        write_atomic(folder / name, content.tobytes())


def unpack_dataset(files: Files, name: str, fingerprint: str, root: Path) -> Path:
    """Unpack a prepared dataset; processes that ask at once unpack it once.

    Args:
        files: of its folder.
        name: of its folder.
        fingerprint: that the tensors must have.
        root: where unpacked datasets lie on this machine.

    Returns:
        Its folder.

    Raises:
        FormatError: the tensors are not those of the fingerprint.
        OSError: the disk is full; nothing half-written is left.
    """
    folder = root / f"{name}-{fingerprint[:16]}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return folder
        prefix = f".{folder.name}-"
        for left_by_a_killed_process in root.glob(f"{prefix}*"):
            shutil.rmtree(left_by_a_killed_process)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=root) as temporary:
            result = Path(temporary, "result")
            unpack_files(files, result)
            dataset = load_prepared(result)
            found = compute_fingerprint(dataset.tensors(), dataset.meta.recipe)
            if found != fingerprint:
                raise FormatError(
                    f"{name}: arrived with fingerprint {found[:16]}, sent as {fingerprint[:16]}; "
                    "delete the prepared dataset there, and prepare it again"
                )
            result.replace(folder)
    return folder
