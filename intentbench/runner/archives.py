"""Archives of runs from other machines, unpacked without trusting them."""

import lzma
import shutil
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
                _extract(tape, member, folder.resolve())
            if not _ends_whole(tape):
                raise RequestError(f"{path}: ends too early or is damaged; copy it again")
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _refusal(path, error) from None
    except OSError as error:
        if error.errno is None:  # of gzip and bz2: damaged data
            raise _refusal(path, error) from None
        raise
    return folder


def _extract(tape: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one file or folder. Python before 3.11.4 has no filters that would keep it inside."""
    target = Path(folder, member.name).resolve()
    if not target.is_relative_to(folder):
        raise tarfile.ExtractError(f"{member.name} leads out of it")
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    content = tape.extractfile(member) if member.isreg() else None
    if content is None:
        raise tarfile.ExtractError(f"{member.name} is neither a file nor a folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)


def _ends_whole(tape: tarfile.TarFile) -> bool:
    """Whether nothing but zeros follows the last member, a block at least; reads to the end.

    `tarfile` takes a header that is damaged, cut or missing for the end of the archive.
    """
    file = tape.fileobj
    if file is None:  # closed
        return False
    file.seek(tape.offset)
    whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    while block := file.read(2**20):
        whole = whole and not block.strip(b"\0")
    return whole


def _refusal(path: Path, error: Exception) -> RequestError:
    return RequestError(f"{path}: no archive of runs that can be unpacked ({error})")
