"""Where a command is about to write, refused before it costs anything."""

import os
from pathlib import Path

from datamodules.errors import RequestError


def plain(error: OSError | UnicodeEncodeError) -> str:
    """What went wrong with which file, without the number of the error."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def is_device(path: Path) -> bool:
    """Whether it is a device or a pipe, such as /dev/stdout."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_folder(option: str, folder: Path) -> None:
    """Refuse a folder that nothing could be written to; makes none.

    Args:
        option: that named it.
        folder: may be missing, and its parents too.

    Raises:
        RequestError: a file is in its way, or it may not be written to.
    """
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        what = "a file" if nearest.is_file() else "no folder"
        raise RequestError(f"{option} {folder}: {nearest} is {what}; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RequestError(
            f"{option} {folder}: {nearest} may not be written to; name another folder"
        )


def check_file(option: str, file: Path | None) -> None:
    """Refuse a file that could not be written; makes none.

    Args:
        option: that named it.
        file: may be missing, and its folder too; None for an option that was not given.

    Raises:
        RequestError: it is a folder, or could not be put into its own.
    """
    if file is None or is_device(file):
        return
    if file.is_dir():
        raise RequestError(f"{option} {file}: is a folder; name a file")
    check_folder(option, file.parent)
