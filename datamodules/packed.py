"""Datasets that are prepared already and lie below a data root: `<root>/prepared/<name>-<key>/`.

`intentbench pack` carries them to machines that have neither the files nor what preparing needs.
"""

import glob
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.catalog import DatasetEntry, FileSource
from datamodules.fetch import file_sha256
from datamodules.prepared import FORMAT


def find_packed(entry: DatasetEntry, roots: Iterable[Path]) -> Path | None:
    """The first folder below the roots that says it was prepared as the entry asks.

    A file without a stated checksum that lies below a root, or at its absolute path, must be the
    one that was read. Tensors are not read; whether they are whole is for the caller to see.
    """
    roots = list(roots)
    for root in roots:
        for meta in sorted(root.glob(f"prepared/{glob.escape(entry.name)}-*/meta.json")):
            try:
                if _fits(entry, json.loads(meta.read_text(encoding="utf-8")), roots):
                    return meta.parent
            except (ValueError, KeyError, TypeError, AttributeError):  # no such file of ours
                continue
    return None


def _fits(entry: DatasetEntry, meta: dict[str, Any], roots: list[Path]) -> bool:
    """Whether name, recipe, sources and size are those of the entry."""
    recipe = {"reader": entry.reader, "options": dict(entry.options), **asdict(entry.recipe)}
    roles: dict[str, list[FileSource]] = {}
    for source in entry.files:
        roles.setdefault(source.role, []).append(source)
    return (
        meta["format"] == FORMAT
        and meta["name"] == entry.name
        and meta["recipe"] == json.loads(json.dumps(recipe))
        and all(meta["statistics"][key] == count for key, count in entry.expected.items())
        and all(_were_read(sources, meta["sources"], roots) for sources in roles.values())
    )


def _were_read(sources: list[FileSource], found: dict[str, str], roots: list[Path]) -> bool:
    """Whether one of a role's files went into the data: the one that lies here, if one does."""
    places = ((source, root / source.path) for root in roots for source in sources)
    here = next(((source, path) for source, path in places if path.is_file()), None)
    if here is not None and here[0].sha256 is None:
        return found.get(here[1].name) == file_sha256(here[1])
    return any(source.optional or _was_read(source, found) for source in sources)


def _was_read(source: FileSource, found: dict[str, str]) -> bool:
    """Whether a file went into the data; without a checksum its name has to do."""
    sha256 = found.get(Path(source.path).name)
    return sha256 is not None and source.sha256 in (None, sha256)
