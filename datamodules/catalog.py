"""The catalogue: datasets known by name, and what each must look like once it is prepared.

`catalog.yaml` holds the entries. A person's own data has an entry of the same form in a spec.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from datamodules.errors import DatasetNotFoundError, RequestError
from datamodules.hints import did_you_mean
from datamodules.recipe import Recipe

STATISTICS = ("users", "items", "interactions")
"""What `DatasetEntry.expected` may state."""


@dataclass(frozen=True)
class FileSource:
    """One way to get one of a dataset's files.

    Attributes:
        role: what the reader calls the file, such as "events". Sources of one role are
            alternatives, tried in order.
        path: where it is looked for, relative to a data root; or absolute.
        sha256: checksum of the file at `path`; None where nobody has published it.
        size: bytes of the file at `path`.
        url: where it can be had, see `datamodules.fetch.download`; None if only a person can.
        member: the file to take out of `path`, where that is a zip or tar archive.
        optional: the dataset can do without.
    """

    role: str
    path: str
    sha256: str | None = None
    size: int | None = None
    url: str | None = None
    member: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class DatasetEntry:
    """A dataset: its files, how they are read and prepared, and what then comes out.

    Attributes:
        name: its key.
        title: one line for people.
        reader: name of a reader, see `datamodules.readers.registry`.
        files: where its files come from; empty for generated data.
        options: arguments of the reader.
        recipe: filters and split.
        expected: users, items and interactions after preparation; what is stated is verified.
        licence: on what terms the data is to be had.
        redistributable: whether rows of it may be published.
        features: what there is beyond users and items, for people.
        notes: what a reader of results should know.
    """

    name: str
    title: str
    reader: str
    files: tuple[FileSource, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    expected: Mapping[str, int] = field(default_factory=dict)
    licence: str = "not stated"
    redistributable: bool = False
    features: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@cache
def catalog() -> dict[str, DatasetEntry]:
    """Every known dataset by name, in the order of `catalog.yaml`."""
    text = files("datamodules").joinpath("catalog.yaml").read_text(encoding="utf-8")
    return {
        name: _entry(name, mapping, f"catalog.yaml: {name}")
        for name, mapping in yaml.safe_load(text)["datasets"].items()
    }


def find_entry(name: str) -> DatasetEntry:
    """The entry of that name.

    Raises:
        DatasetNotFoundError: there is none; the message offers the closest names.
    """
    known = catalog()
    if name not in known:
        hint = did_you_mean(name, known)
        raise DatasetNotFoundError(f"unknown dataset {name!r}; {hint}known: {', '.join(known)}")
    return known[name]


def expand_home(path: str | Path, where: str) -> Path:
    """A path with `~` and `~user` replaced by the home folder; `where` is what errors call it.

    Raises:
        RequestError: there is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RequestError(
            f"{where}: {path}: no home folder is known for it; write the whole path"
        ) from None


def user_entry(name: str, mapping: Mapping[str, Any]) -> DatasetEntry:
    """An entry for a person's own data, as a spec states it.

    Args:
        name: the label it gets; must not be a name of the catalogue.
        mapping: `reader`, `files` and any other of `DatasetEntry`'s fields. A file is a path, a
            mapping of `FileSource`'s fields, or a list of those. Relative paths are looked for
            under the data root, then from the current folder.

    Raises:
        RequestError: a key or value is wrong, or the name is taken.
    """
    if name in catalog():
        raise RequestError(f"dataset {name!r} is in the catalogue already; choose another name")
    if isinstance(mapping, Mapping):
        mapping = {"title": name, **mapping}
    where = f"dataset {name!r}"
    entry = _entry(name, mapping, where)
    from_here = [
        replace(source, path=str(expand_home(source.path, where).absolute()), url=None)
        for source in entry.files
    ]
    return replace(entry, files=(*entry.files, *from_here))


def _entry(name: str, mapping: Any, where: str) -> DatasetEntry:
    rest = dict(_mapping(mapping, where))
    sources: list[FileSource] = []
    for role, stated in _mapping(rest.pop("files", {}), f"{where}: files").items():
        for source in stated if isinstance(stated, list) else [stated]:
            values = {"path": source} if isinstance(source, str) else source
            place = f"{where}: files: {role}"
            sources.append(FileSource(role, **_checked(FileSource, values, place, ("role",))))
    recipe = Recipe(**_checked(Recipe, rest.pop("recipe", {}), f"{where}: recipe"))
    values = _checked(DatasetEntry, rest, where, ("name", "files", "recipe"))
    if unknown := set(values.get("expected", {})) - set(STATISTICS):
        raise RequestError(f"{where}: expected: unknown key {min(unknown)!r}; known: {STATISTICS}")
    return DatasetEntry(name=name, files=tuple(sources), recipe=recipe, **values)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RequestError(f"{where}: expected keys and values, found {value!r}")
    return value


def _checked(cls: type, values: Any, where: str, given: Sequence[str] = ()) -> dict[str, Any]:
    """Values for the fields of a dataclass that a person may state: all but those `given`."""
    stated = {item.name: item for item in fields(cls) if item.name not in given}
    hints = get_type_hints(cls)
    checked: dict[str, Any] = {}
    for key, value in _mapping(values, where).items():
        if key not in stated:
            close = get_close_matches(str(key), stated, n=1) or list(stated)
            raise RequestError(f"{where}: unknown key {key!r}; known: {', '.join(close)}")
        if not _fits(value, hints[key]):
            expected = hints[key].__name__ if type(hints[key]) is type else str(hints[key])
            raise RequestError(f"{where}: {key}: expected {expected}, found {value!r}")
        checked[key] = tuple(value) if isinstance(value, list) else value
    for item in stated.values():
        if item.name not in checked and item.default is item.default_factory is MISSING:
            raise RequestError(f"{where}: {item.name!r} is missing")
    return checked


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from YAML has the type that a field is annotated with."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if kind is Literal:
        return value in arguments
    if kind is tuple:
        return isinstance(value, list) and all(_fits(part, arguments[0]) for part in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
