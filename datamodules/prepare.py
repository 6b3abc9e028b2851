"""Preparing a dataset: find or fetch its files, verify, read, preprocess, verify, write; once.

A prepared dataset lies in `<cache>/prepared/<name>-<key>`, where the key is a hash of all that
determines it: reader, options, recipe, the sha256 of each file, the layout's version. A folder is
built under another name and renamed, so that what has the right name is whole. What lies prepared
below a data root (see `datamodules.packed`) is taken as it is. Only building needs polars.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from errno import EROFS
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from datamodules.catalog import DatasetEntry, expand_home, find_entry
from datamodules.errors import FormatError, RequestError, StatisticsError
from datamodules.packed import find_packed, prepared_name
from datamodules.prepared import (
    Meta,
    PreparedDataset,
    compute_fingerprint,
    load_prepared,
    write_prepared,
)
from datamodules.recipe import Recipe
from datamodules.sources import FoundFile, data_roots, find_files, unpack
from datamodules.types import PAD

if TYPE_CHECKING:
    from datamodules.preprocess import Preprocessed

HISTORY = {
    "leave_one_out": "successive",
    "global_temporal": "successive",
    "last_session": "successive",
    "ratio": "block",
    "pre_split": "train",
    "random": "train",
}
"""What stands before a target, by split (see `datamodules.prepared.Meta.history`). A set of
held-out items is ranked as one block; collaborative filtering's own splits know training alone."""

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$INTENTBENCH_CACHE`, or else `~/.cache/intentbench`.

    Raises:
        RequestError: it names a home folder that does not exist.
    """
    folder = os.environ.get("INTENTBENCH_CACHE") or "~/.cache/intentbench"
    return expand_home(folder, "INTENTBENCH_CACHE")


def prepare(
    entry: DatasetEntry | str,
    data_root: Path | None = None,
    cache: Path | None = None,
    recipe: Recipe | None = None,
) -> Path:
    """Prepare a dataset, unless that is done already; processes that ask at once prepare it once.

    Args:
        entry: a catalogue name, or an entry.
        data_root: where it, or its files, are looked for first; then in `$INTENTBENCH_DATA`, then
            among earlier downloads; only then are they downloaded.
        cache: where downloads and prepared datasets go, by default `cache_folder()`.
        recipe: other filters or another split than the entry's; its expected statistics, which
            hold for its own recipe, are then not verified.

    Returns:
        Folder of the prepared dataset, for `datamodules.prepared.load_prepared`.

    Raises:
        DatasetNotFoundError: no such entry, or a file of it is nowhere to be had.
        ChecksumError: a file is not the one that the catalogue describes.
        FormatError: a file cannot be read.
        StatisticsError: what came out is not what the entry promises, is empty, or has nothing
            to test on.
        RequestError: the cache cannot be written.
        OSError: the disk is full; nothing half-written is left.
    """
    if isinstance(entry, str):
        entry = find_entry(entry)
    if recipe is not None:
        entry = replace(entry, recipe=recipe, expected={})
    cache = cache or cache_folder()
    with _permissions(cache):
        packed = find_packed(entry, data_roots(data_root))
        if packed is not None and _is_whole(packed):
            return packed
        found = find_files(entry, data_root, cache)
        folder = prepared_path(entry, found, cache)
        if not _is_whole(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not _is_whole(folder):
                    _build(entry, found, folder)
    return folder


def prepared_path(entry: DatasetEntry, found: Mapping[str, FoundFile], cache: Path) -> Path:
    """Where the entry's prepared dataset lies, made from these files; it need not exist."""
    files = {role: (file.sha256, file.source.member) for role, file in found.items()}
    return cache / "prepared" / prepared_name(entry, files)


def _is_whole(folder: Path) -> bool:
    """Whether a prepared dataset lies there: the tensors that were written, an id a row, texts."""
    if not (folder / "meta.json").exists():
        return False
    try:
        dataset = load_prepared(folder)
        for kind, count in (("users", dataset.n_users), ("items", dataset.n_items)):
            if len(dataset.original_ids(kind)) != count:
                return False
        for texts in folder.glob("*.texts.json"):
            json.loads(texts.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, FormatError, SafetensorError):
        return False
    return compute_fingerprint(dataset.tensors(), dataset.meta.recipe) == dataset.fingerprint


def _build(entry: DatasetEntry, found: Mapping[str, FoundFile], folder: Path) -> None:
    """Prepare into a temporary folder and rename it; the caller holds the lock."""
    try:
        from datamodules.preprocess import preprocess
        from datamodules.readers.registry import read_events
    except ModuleNotFoundError as error:
        if error.name != "polars":
            raise
        raise RequestError(
            f"{entry.name}: preparing needs polars: pip install polars datasets; or prepare it "
            "elsewhere and bring it with `intentbench pack`"
        ) from None
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    prefix = f".{folder.name}-"
    for left_by_a_killed_process in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_by_a_killed_process)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as temporary:
        unpacked, result = Path(temporary, "unpacked"), Path(temporary, "result")
        unpacked.mkdir()
        result.mkdir()
        try:
            files = {role: unpack(file, unpacked) for role, file in found.items()}
            table = read_events(entry.reader, files, entry.options)
            events = preprocess(table, entry.recipe)
        except RequestError as error:  # neither readers nor filters know whose events they have
            raise type(error)(f"{entry.name}: {error}") from None
        _verify(entry, events.statistics)
        _write(_dataset(entry, found, events, table.truth or {}), events, result)
        result.replace(folder)
    _log.info("prepared %s in %.1f s: %s", entry.name, time.perf_counter() - started, folder)


def _write(dataset: PreparedDataset, events: "Preprocessed", folder: Path) -> None:
    """Write and flush to disk. Names of an item feature's codes are texts, `item.<feature>`."""
    texts = {"users": events.user_texts, "items": events.item_texts}
    for name, feature in events.item_features.items():
        texts[f"item.{name}"] = feature.names
    for original in (*events.user_ids, *events.item_ids):
        if "\n" in original or "\r" in original:  # either is read back as the end of a line
            raise FormatError(f"{dataset.meta.name}: the id {original!r} has a line break")
    present = {kind: lines for kind, lines in texts.items() if lines is not None}
    try:
        write_prepared(dataset, folder, events.user_ids, events.item_ids, present)
    except SafetensorError as error:  # what a full disk becomes on its way through Rust
        raise OSError(f"{folder}: {error}") from error
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _dataset(
    entry: DatasetEntry,
    found: Mapping[str, FoundFile],
    events: "Preprocessed",
    truth: Mapping[str, NDArray[np.generic]],
) -> PreparedDataset:
    recipe = {"reader": entry.reader, "options": dict(entry.options), **asdict(entry.recipe)}
    features = _truth(truth, events)
    for kind, blocks in (("item", events.item_features), ("user", events.user_features)):
        for name, feature in blocks.items():
            features[f"{kind}.{name}.values"] = _tensor(feature.values)
            features[f"{kind}.{name}.offsets"] = _tensor(feature.offsets)
    meta = Meta(
        name=entry.name,
        fingerprint="",
        recipe=recipe,
        history=HISTORY[entry.recipe.split],
        statistics=events.statistics,
        sources={Path(file.source.path).name: file.sha256 for file in found.values()},
        item_features=tuple(events.item_features),
        actions=events.action_names,
        notes=(*entry.notes, *events.notes),
    )
    dataset = PreparedDataset(
        meta,
        _tensor(events.items),
        _tensor(events.split),
        _tensor(events.offsets),
        _optional(events.timestamps),
        _optional(events.actions),
        _optional(events.ratings),
        _optional(events.sessions),
        features,
    )
    fingerprint = compute_fingerprint(dataset.tensors(), recipe)
    return replace(dataset, meta=replace(meta, fingerprint=fingerprint))


def _truth(truth: Mapping[str, NDArray[np.generic]], events: "Preprocessed") -> dict[str, Tensor]:
    """Planted truth, put in the order of the prepared events, users and items.

    Generated users are called 0..N-1 and items 1..V, so an original id is its own row.
    """
    if not truth:
        return {}
    users = np.array(events.user_ids, dtype=np.int64)
    items = np.array([PAD, *events.item_ids], dtype=np.int64)
    rows = {
        "intent": events.rows,
        "accidental": events.rows,
        "user_type": users,
        "user_interest": users,
        "item_intent": items,
    }
    return {f"truth.{name}": _tensor(values[rows[name]]) for name, values in truth.items()}


def _optional(values: NDArray[np.generic] | None) -> Tensor | None:
    return None if values is None else _tensor(values)


def _tensor(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.require(values, requirements="W"))  # polars' arrays are read-only


def _verify(entry: DatasetEntry, statistics: Mapping[str, float]) -> None:
    if wrong := {key: n for key, n in entry.expected.items() if statistics[key] != n}:
        expected = ", ".join(f"{n} {key}" for key, n in wrong.items())
        found = ", ".join(f"{statistics[key]:.0f} {key}" for key in wrong)
        raise StatisticsError(f"{entry.name}: expected {expected}, found {found}; nothing was kept")
    if statistics["users_without_target"] == statistics["users"]:
        raise StatisticsError(
            f"{entry.name}: split {entry.recipe.split}: no user has a test event (the longest "
            f"history has {statistics['max_length']:.0f} events); choose another split or share, "
            "or loosen the filters"
        )


def describe(dataset: PreparedDataset) -> list[tuple[str, str]]:
    """What a prepared dataset holds, as lines of a table: a label and a value."""
    meta = dataset.meta
    rows = [("dataset", meta.name)]
    for key, value in meta.statistics.items():
        number = f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
        rows.append((key.replace("_", " "), number))
    events = ("timestamps", "actions", "ratings", "sessions")
    columns = [name for name in events if getattr(dataset, name) is not None]
    rows.append(("columns", ", ".join(["user", "item", *columns])))
    if meta.item_features:
        rows.append(("item features", ", ".join(meta.item_features)))
    rows += [("note", note) for note in meta.notes]
    rows.append(("fingerprint", meta.fingerprint))
    return rows


@contextmanager
def _permissions(cache: Path) -> Iterator[None]:
    """Turn a missing permission into one clear line; a full disk stays an OSError."""
    try:
        yield
    except OSError as error:
        if (
            isinstance(error, PermissionError | NotADirectoryError | FileExistsError)
            or error.errno == EROFS
        ):
            raise RequestError(
                f"{error.filename}: {error.strerror}; the cache is {cache}, "
                "INTENTBENCH_CACHE sets another"
            ) from None
        raise
