"""A dataset's files on this machine: under a data root, among earlier downloads, or fetched now."""

import os
from dataclasses import dataclass
from pathlib import Path

from datamodules.catalog import DatasetEntry, FileSource, expand_home
from datamodules.errors import ChecksumError, DatasetNotFoundError, RequestError
from datamodules.fetch import difference, download, extract_member, file_sha256


@dataclass(frozen=True)
class FoundFile:
    """A source file on this machine.

    Attributes:
        source: what was looked for.
        path: where it is.
        sha256: of its bytes.
    """

    source: FileSource
    path: Path
    sha256: str


def data_roots(data_root: Path | None) -> list[Path]:
    """The folders in which data is looked for: the given one, then `$INTENTBENCH_DATA`.

    Raises:
        RequestError: one does not exist.
    """
    given = {"data root": data_root, "INTENTBENCH_DATA": os.environ.get("INTENTBENCH_DATA")}
    roots = [expand_home(root, where) for where, root in given.items() if root]
    for root in roots:
        if not root.is_dir():
            raise RequestError(f"data root {root}: no such folder")
    return roots


def find_files(entry: DatasetEntry, data_root: Path | None, cache: Path) -> dict[str, FoundFile]:
    """The entry's files by role: found under a root, or downloaded into the cache, and verified.

    Optional files are used where they are found, and never downloaded.

    Raises:
        DatasetNotFoundError: a file is nowhere to be had.
        ChecksumError: a file differs from the catalogue.
        RequestError: a data root does not exist.
    """
    roots = data_roots(data_root)
    downloads = cache / "downloads" / entry.name
    alternatives: dict[str, list[FileSource]] = {}
    for source in entry.files:
        alternatives.setdefault(source.role, []).append(source)
    found = {}
    for role, sources in alternatives.items():
        file = _find(sources, [*roots, downloads]) or _fetch(entry, sources, roots, downloads)
        if file is not None:
            found[role] = file
    return found


def unpack(file: FoundFile, folder: Path) -> Path:
    """The file itself, or the member of the archive unpacked into `folder`."""
    if file.source.member is None:
        return file.path
    target = folder / Path(file.source.member).name
    extract_member(file.path, file.source.member, target)
    return target


def _find(sources: list[FileSource], roots: list[Path]) -> FoundFile | None:
    for root in roots:
        for source in sources:
            path = root / source.path
            if path.is_file():
                problem = difference(path, source.sha256, source.size)
                if problem is not None:
                    raise ChecksumError(
                        f"{path}: not the catalogued file: {problem}; delete it or move it away, "
                        "or declare it as a dataset of your own in the spec"
                    )
                return FoundFile(source, path, source.sha256 or file_sha256(path))
    return None


def _fetch(
    entry: DatasetEntry, sources: list[FileSource], roots: list[Path], downloads: Path
) -> FoundFile | None:
    if all(source.optional for source in sources):
        return None
    for source in sources:
        if source.url is not None:
            target = downloads / source.path
            download(source.url, target, sha256=source.sha256, size=source.size)
            return FoundFile(source, target, source.sha256 or file_sha256(target))
    names = " or ".join(source.path for source in sources)
    places = ", ".join(str(root) for root in roots) or "no data root; give --data-root"
    raise DatasetNotFoundError(
        f"{entry.name}: {names} not found ({places}), and it has no address to download it from"
    )
