"""Whether some process runs a trial at this moment, seen from outside."""

import fcntl
from pathlib import Path

LOCK = ".lock"
"""Held by the process that runs a trial; the system frees it when that process dies."""


def is_locked(folder: Path) -> bool:
    """Whether some process holds the lock of a trial's folder.

    Asks with a shared lock, which those who look do not take from each other, and writes nothing.
    A runner that tries within the same instant finds the trial busy, and tries it again later.
    """
    try:
        file = (folder / LOCK).open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # held; or a file system without locks, where the file alone is the lock
            return True
    return False
