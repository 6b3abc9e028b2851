"""Datasets that are prepared already and lie below a data root: `<root>/prepared/<name>-<key>/`.

`intentbench pack` carries them to machines that have neither the files nor what preparing needs.
"""

import glob
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.catalog import DatasetEntry, FileSource
from datamodules.fetch import file_sha256
from datamodules.prepared import FORMAT

Files = dict[str, tuple[str, str | None]]
"""Role to checksum and member of the file that was read for it."""


def prepared_name(entry: DatasetEntry, files: Files) -> str:
    """The folder that a prepared dataset gets, `<name>-<key>`: all that it is made from and by."""
    determined_by = {
        "format": FORMAT,
        "reader": entry.reader,
        "options": dict(entry.options),
        "recipe": asdict(entry.recipe),
        "files": {role: list(file) for role, file in files.items()},
    }
    text = json.dumps(determined_by, sort_keys=True)
    return f"{entry.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def find_packed(entry: DatasetEntry, roots: Iterable[Path]) -> Path | None:
    """The first folder below the roots that was prepared as the entry asks, by its name.

    A file without a stated checksum that lies below a root, or at its absolute path, must be the
    one that was read. Tensors are not read; whether they are whole is for the caller to see.
    """
    roots = list(roots)
    for root in roots:
        for meta in sorted(root.glob(f"prepared/{glob.escape(entry.name)}-*/meta.json")):
            try:
                facts = json.loads(meta.read_text(encoding="utf-8"))
                if _fits(entry, meta.parent.name, facts, roots):
                    return meta.parent
            except (ValueError, KeyError, TypeError, AttributeError):  # no such file of ours
                continue
    return None


def _fits(entry: DatasetEntry, folder: str, meta: Mapping[str, Any], roots: list[Path]) -> bool:
    """Whether a folder's name is that of the entry, made from the files that it states."""
    known = all(meta["statistics"][key] == count for key, count in entry.expected.items())
    readings = _readings(entry, meta["sources"], roots) if known else ()
    return any(prepared_name(entry, files) == folder for files in readings)


def _readings(
    entry: DatasetEntry, sources: Mapping[str, str], roots: list[Path]
) -> Iterator[Files]:
    """Every choice of one file a role that can have led to these checksums by name."""
    roles: dict[str, list[FileSource]] = {}
    for source in entry.files:
        roles.setdefault(source.role, []).append(source)
    choices = [_alternatives(own, sources, roots) for own in roles.values()]
    for choice in itertools.product(*choices):
        yield {role: file for role, file in zip(roles, choice, strict=True) if file is not None}


def _alternatives(
    own: list[FileSource], sources: Mapping[str, str], roots: list[Path]
) -> list[tuple[str, str | None] | None]:
    """What can have been read for a role: the file that lies here, if one without checksum does."""
    places = ((source, root / source.path) for root in roots for source in own)
    here = next(((source, path) for source, path in places if path.is_file()), None)
    if here is not None and here[0].sha256 is None:
        return [(file_sha256(here[1]), here[0].member)]
    found: list[tuple[str, str | None] | None] = []
    for source in own:
        sha256 = sources.get(Path(source.path).name)
        if sha256 is not None and source.sha256 in (None, sha256):
            found.append((sha256, source.member))
    return [*found, None] if any(source.optional for source in own) else found
