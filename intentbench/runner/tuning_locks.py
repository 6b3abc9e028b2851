"""One search at a time on a storage, and in a folder."""

import hashlib
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from datamodules.errors import RequestError


def lock_storage(place: str, out: Path) -> FileLock:
    """A lock on a storage; whoever holds it may take what stands as running for cut short.

    Args:
        place: see `intentbench.runner.tuning_worker.open_storage`.
        out: has the lock of a database that is no file.

    Raises:
        RequestError: another search works on it, or it is no place.
    """
    return lock_path(_storage_file(place, out), f"--storage {place}")


def _storage_file(place: str, out: Path) -> Path:
    """The file of a storage; what stands for it where it has none."""
    if "://" not in place:
        return Path(place)
    try:
        url = make_url(place)
    except ArgumentError as error:
        raise RequestError(f"--storage {place}: {error}") from None
    if url.get_backend_name() != "sqlite":
        return out / hashlib.sha256(place.encode()).hexdigest()[:16]
    if url.database in (None, "", ":memory:"):
        raise RequestError(f"--storage {place}: is in memory, name a file: sqlite:///FILE")
    return Path(str(url.database))


def lock_path(path: Path, what: str) -> FileLock:
    """A lock beside a path, held.

    Args:
        path: of a file or folder, which need not exist.
        what: the beginning of the message.

    Raises:
        RequestError: another search holds it.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.tuning"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"{what}: another `intentbench tune` works on it; wait, or name another"
        ) from None
    return lock
