"""Where trials lie on disk, and how they get there without ever being half there.

Layout: `<root>/<dataset>/<label>/<trial>/` with `config.yaml` (written first), TensorBoard events,
`best.ckpt`, `log.txt`, `ranks.npz`, `noise.npz` where the trial ranks under noise too, and
`result.json`, which is written last: a folder without it holds a trial that is running or was cut
short.
"""

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import RequestError
from intentbench.results.record import TrialRecord, parse_record

CONFIG, RESULT, RANKS, NOISE_RANKS, CHECKPOINT, LOG = (
    "config.yaml",
    "result.json",
    "ranks.npz",
    "noise.npz",
    "best.ckpt",
    "log.txt",
)
"""Names of the files of a trial."""


DAMAGED = (OSError, EOFError, ValueError, KeyError, RuntimeError, BadZipFile, zlib.error)
"""What NumPy and zipfile raise on a damaged file of arrays."""


class RecordError(RequestError):
    """A result.json is there but cannot be read."""


def trial_folder(root: Path, dataset: str, label: str, trial: str) -> Path:
    """The folder of a trial below the root of all runs."""
    return root / dataset / label / trial


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that will be there whole or not at all, also after a power cut.

    Args:
        path: its folder is made if need be.

    Yields:
        What to write to. Where the block ends in an error, an older file stays as it was.

    Raises:
        OSError: the disk is full or may not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive, not only the content
    finally:
        os.close(folder)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see `atomic_file`.

    Raises:
        OSError: the disk is full or may not be written; an older file stays as it was.
    """
    with atomic_file(path) as file:
        file.write(content)


def write_record(folder: Path, record: TrialRecord) -> None:
    """Write `result.json`; the trial counts as finished from then on."""
    write_atomic(folder / RESULT, record.to_json().encode())


def read_record(folder: Path) -> TrialRecord | None:
    """The record of a trial, None where it has not finished.

    Raises:
        RecordError: the file is no record of this schema.
    """
    path = folder / RESULT
    try:
        return parse_record(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(
            f"{path}: no trial record ({reason}); delete the folder and run the trial again"
        ) from None


def load_records(root: Path) -> list[tuple[Path, TrialRecord]]:
    """Every finished trial below a folder, in the order of their paths.

    Args:
        root: a run folder, or any folder above trials; a trial's own folder will do.

    Returns:
        Folder and record of each; trials without a result are left out.

    Raises:
        RequestError: there is no such folder.
        RecordError: some records cannot be read; the message names each.
    """
    if not root.is_dir():
        raise RequestError(f"{root}: no such folder of runs")
    records, unreadable = [], []
    for path in sorted(root.rglob(RESULT)):
        try:
            record = read_record(path.parent)
        except RecordError as error:
            unreadable.append(str(error))
        else:
            if record is not None:
                records.append((path.parent, record))
    if unreadable:
        raise RecordError("; ".join(unreadable))
    return records


def save_ranks(
    folder: Path, user: NDArray[np.integer], key: NDArray[np.integer], rank: NDArray[np.integer]
) -> None:
    """Write the ranks of a trial, compressed.

    Args:
        folder: of the trial.
        user: (T,) row of the user in the prepared dataset.
        key: (T,) position of the target among the user's events.
        rank: (T,) rank of the target in the whole catalogue, 1 is best.

    Raises:
        ValueError: the arrays differ in length, or a rank is below 1.
    """
    if not len(user) == len(key) == len(rank):
        raise ValueError(f"{len(user)} users, {len(key)} keys and {len(rank)} ranks do not match")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, user=user.astype(np.int32), key=key.astype(np.int32), rank=narrow_ranks(rank)
    )
    write_atomic(folder / RANKS, buffer.getvalue())


def save_noise_ranks(folder: Path, rank: NDArray[np.integer]) -> None:
    """Write the ranks of a trial under noise, compressed.

    Args:
        folder: of the trial.
        rank: (K, T) for each entry of the record's `noise`, targets in the order of the trial's
            ranks.

    Raises:
        ValueError: a rank is below 1.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rank=narrow_ranks(rank))
    write_atomic(folder / NOISE_RANKS, buffer.getvalue())


def narrow_ranks(rank: NDArray[np.integer]) -> NDArray[np.integer]:
    """Ranks in two bytes where they fit, else in four.

    Raises:
        ValueError: a rank is below 1.
    """
    if rank.size and rank.min() < 1:
        raise ValueError(f"a rank is at least 1, found {rank.min()}")
    small = not rank.size or rank.max() <= np.iinfo(np.uint16).max
    return rank.astype(np.uint16 if small else np.uint32)


def load_ranks(folder: Path) -> dict[str, NDArray[np.integer]]:
    """The arrays "user", "key" and "rank" of a trial; see `save_ranks`.

    Raises:
        RequestError: the file is missing or damaged.
    """
    return _load(folder / RANKS, ("user", "key", "rank"))


def load_noise_ranks(folder: Path) -> NDArray[np.integer]:
    """The ranks of a trial under noise, (K, T); see `save_noise_ranks`.

    Raises:
        RequestError: the file is missing or damaged.
    """
    return _load(folder / NOISE_RANKS, ("rank",))["rank"]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file; pickles in it are refused.

    Raises:
        OSError: it cannot be read.
        Exception: one of `DAMAGED`.
    """
    # Opened here: NumPy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _load(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.integer]]:
    try:
        arrays = read_arrays(path)
        return {name: arrays[name] for name in names}
    except DAMAGED as error:
        raise RequestError(f"{path}: no readable ranks ({error}); run the trial again") from None
