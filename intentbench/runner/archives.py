"""Archives of runs from other machines, unpacked without trusting them."""

import tarfile
import zlib
from pathlib import Path

from datamodules.errors import RequestError


def unpack_runs(path: Path, folder: Path) -> Path:
    """Unpack an archive of runs, plain or compressed.

    Args:
        path: a tar archive.
        folder: is made; gets its files and nothing outside of it.

    Returns:
        The folder.

    Raises:
        RequestError: it is no whole tar archive, or holds a path that leads out of it, or what is
            neither file nor folder.
        OSError: the disk is full.
    """
    folder.mkdir(parents=True)
    try:
        with tarfile.open(path) as tape:
            for member in tape:
                if not (member.isreg() or member.isdir()):
                    raise RequestError(f"{path}: {member.name}: neither a file nor a folder")
                tape.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise RequestError(f"{path}: no archive of runs that can be unpacked ({error})") from None
    return folder
