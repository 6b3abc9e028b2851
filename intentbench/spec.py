"""A benchmark: what is compared, on what, how. Read from YAML, and checked before anything runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from datamodules.catalog import DatasetEntry, catalog, find_entry, user_entry
from datamodules.errors import RequestError
from intentbench.results.grouping import Grouping, check_grouping
from intentbench.runner.arguments import suggest
from intentbench.runner.entrants import COMMON, Common, Entrant, describe_tuning, read_entrants
from intentbench.runner.plugin import load_plugin
from intentbench.runner.values import check_keys, read_mapping, read_name, read_yaml

KEYS = (
    "name",
    "title",
    "datasets",
    "models",
    "seeds",
    "reference",
    "timeout",
    "memory",
    "groups",
    "family",
    "correction",
    *COMMON,
)
"""Keys of a spec."""


SEEDS = 2**32
"""The first number that is no seed of NumPy's any more."""

UNITS = {"MiB": 2**20, "GiB": 2**30}
"""Of sizes of memory, in bytes."""


@dataclass(frozen=True)
class Stated:
    """What a spec states before a person picks parts of it.

    Attributes:
        rows: all of them.
        datasets: names of all datasets.
        seeds: of stochastic methods.
        reference: label that differences are taken against; "" for none.
        tuning: how arguments were chosen; see `intentbench.runner.entrants.describe_tuning`.
    """

    rows: tuple[Entrant, ...] = ()
    datasets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    reference: str = ""
    tuning: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict, hash=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of all rows."""
        return tuple(row.label for row in self.rows)


@dataclass(frozen=True)
class BenchmarkSpec:
    """A checked benchmark.

    Attributes:
        name: of its leaderboard.
        title: heading of its leaderboard.
        datasets: entries of the catalogue, or of a person's own data.
        entrants: rows.
        seeds: of stochastic methods; deterministic ones run once, with seed 0.
        reference: label that differences are taken against; "" for none.
        timeout: seconds that a trial may take; None for no limit.
        memory: bytes that the processes of a trial may hold together; None for no limit.
        plugin: file with further methods, "" for none.
        groups: of users by activity that its page shows: how many, or where they are cut.
        family: what its page tests: "pairs" of rows, or each against the "reference" alone.
        correction: of p-values, "holm" or, for exploring, "bh".
        stated: what the file states, of which the fields above may be a part: rows, datasets,
            seeds and reference of the page.
    """

    name: str
    title: str
    datasets: tuple[DatasetEntry, ...]
    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    reference: str = ""
    timeout: float | None = None
    memory: int | None = None
    plugin: str = ""
    groups: Grouping = 0
    family: str = "pairs"
    correction: Literal["holm", "bh"] = "holm"
    stated: Stated = field(default_factory=Stated)

    @property
    def size(self) -> int:
        """How many trials there are."""
        return len(self.datasets) * sum(len(self.seeds_of(entrant)) for entrant in self.entrants)

    def seeds_of(self, entrant: Entrant) -> tuple[int, ...]:
        """The seeds that a row is run with."""
        return (0,) if entrant.cls.CARD.deterministic else self.seeds


def load_spec(
    path: Path,
    overrides: Sequence[str] = (),
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    plugin: Path | None = None,
) -> BenchmarkSpec:
    """Read and check a spec.

    Args:
        path: a YAML file.
        overrides: "key=value" each, the key dotted ("models.sasrec.loss"), the value YAML.
        models: labels to keep; all when None.
        datasets: names to keep; all when None.
        seeds: in place of those in the file.
        plugin: a Python file with further methods; see `intentbench.runner.plugin`.

    Raises:
        RequestError: anything in it that could not run; one line with file, key and what is
            allowed.
    """
    raw = _read(path)
    for override in overrides:
        _override(raw, override)
    check_keys(raw, KEYS, str(path))
    methods = load_plugin(plugin) if plugin else {}
    common = Common.read(raw, path)
    entries = _entries(raw.get("datasets"), str(path))
    rows = raw.get("models")
    if not isinstance(rows, Mapping) or not rows:
        example = "{popularity: {}, sasrec: {layers: 2}}"
        raise RequestError(f"{path}: models: expected rows, as in {example}, found {rows!r}")
    rows = read_mapping(rows, f"{path}: models")
    name = read_name(path.stem if raw.get("name") is None else raw["name"], f"{path}: name")
    entrants = read_entrants(rows, common, methods, path, name)
    labels = [entrant.label for entrant in entrants]
    reference = raw.get("reference", "")
    if reference and reference not in labels:
        raise RequestError(
            f"{path}: reference: unknown row {reference!r}; {suggest(str(reference), labels)}"
        )
    family = _choice(raw, "family", ("pairs", "reference"), path)
    if family == "reference" and not reference:
        raise RequestError(f"{path}: family: reference: name a row as reference, or test all pairs")
    kept = _selection("--models", models, labels)
    kept |= {row.pretrained.label for row in entrants if row.label in kept and row.pretrained}
    names = [entry.name for entry in entries]
    _selection(f"{path}: per_dataset", [*common.per_dataset] or None, names)
    kept_data = _selection("--datasets", datasets, names)
    stated_seeds = _seeds(raw.get("seeds", BenchmarkSpec.seeds), None, f"{path}: seeds")
    return BenchmarkSpec(
        name=name,
        title=str(raw.get("title") or name),
        datasets=tuple(entry for entry in entries if entry.name in kept_data),
        entrants=tuple(entrant for entrant in entrants if entrant.label in kept),
        seeds=stated_seeds if seeds is None else _seeds(stated_seeds, seeds, "--seeds"),
        reference=reference if reference in kept else "",
        timeout=_timeout(raw.get("timeout"), f"{path}: timeout"),
        memory=_memory(raw.get("memory"), f"{path}: memory"),
        plugin=str(plugin.resolve()) if plugin else "",
        groups=check_grouping(raw.get("groups", 0), f"{path}: groups"),
        family=family,
        correction=_choice(raw, "correction", ("holm", "bh"), path),
        stated=Stated(
            entrants, tuple(names), stated_seeds, reference, describe_tuning(entrants, names)
        ),
    )


def read_datasets(path: Path) -> tuple[DatasetEntry, ...]:
    """The datasets that a spec names or describes; the rest of it is not looked at.

    Raises:
        RequestError: it cannot be read, or a dataset could not be had.
    """
    return _entries(_read(path).get("datasets"), str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = read_yaml(path)
    except FileNotFoundError:
        raise RequestError(
            f"{path}: no such file; `intentbench list benchmarks` shows those in the current "
            "folder's benchmarks/"
        ) from None
    return read_mapping(raw, str(path), empty=False)


def _override(raw: dict[str, Any], override: str) -> None:
    """Set one value by its dotted path; mappings on the way are made."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RequestError(f"--set {override}: expected key=value, as in training.max_epochs=3")
    *parents, last = key.split(".")
    block = raw
    for parent in parents:
        if block.get(parent) is None:
            block[parent] = {}
        block = read_mapping(block[parent], f"--set {key}: {parent}")
    try:
        block[last] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RequestError(f"--set {override}: the value is no YAML; quote it") from None


def _entries(given: Any, where: str) -> tuple[DatasetEntry, ...]:
    """Entries of the catalogue by name, and people's own by description, in the given order."""
    where = f"{where}: datasets"
    if isinstance(given, Mapping):
        given = [{name: described} for name, described in given.items()]
    if not isinstance(given, list) or not given:
        raise RequestError(f"{where}: expected a list of names, or {{name: {{reader, files, …}}}}")
    entries: list[DatasetEntry] = []
    for item in given:
        if isinstance(item, str):
            if item not in catalog():
                raise RequestError(
                    f"{where}: unknown dataset {item!r}; {suggest(str(item), catalog())}"
                )
            entries.append(find_entry(item))
        elif isinstance(item, Mapping):
            for name, described in item.items():
                described = read_mapping(described, f"{where}.{name}")
                entries.append(_own_entry(read_name(name, where), described, f"{where}.{name}"))
        else:
            raise RequestError(f"{where}: expected a name, found {item!r}")
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RequestError(f"{where}: listed twice: {', '.join(sorted(twice))}")
    return tuple(entries)


def _own_entry(name: str, described: Mapping[str, Any], where: str) -> DatasetEntry:
    try:
        return user_entry(name, described)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None


def _seeds(stated: Any, chosen: Sequence[int] | None, where: str) -> tuple[int, ...]:
    seeds = stated if chosen is None else chosen
    whole = isinstance(seeds, Sequence) and all(
        type(seed) is int and 0 <= seed < SEEDS for seed in seeds
    )
    if not whole or not seeds:
        raise RequestError(
            f"{where}: expected at least one whole number from 0 to 2^32 - 1, as in [0, 1, 2], "
            f"found {seeds!r}"
        )
    return tuple(dict.fromkeys(seeds))


def _choice(raw: dict[str, Any], key: str, allowed: tuple[str, ...], path: Path) -> Any:
    """One of several words; the first where nothing is said."""
    given = raw.get(key, allowed[0])
    if given not in allowed:
        raise RequestError(f"{path}: {key}: expected {' or '.join(allowed)}, found {given!r}")
    return given


def _timeout(given: Any, where: str) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise RequestError(f"{where}: expected seconds, found {given!r}")
    return float(given)


def _memory(given: Any, where: str) -> int | None:
    """Bytes of a size such as "4GiB"; None for no limit."""
    if given is None:
        return None
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?(MiB|GiB)", str(given))
    if size is None or float(size[1]) * UNITS[size[2]] < 1:
        raise RequestError(f"{where}: expected a size such as 4GiB or 512MiB, found {given!r}")
    if not Path("/proc/self/stat").exists():
        raise RequestError(f"{where}: memory is watched on Linux only; leave it out")
    return int(float(size[1]) * UNITS[size[2]])


def _selection(option: str, chosen: Sequence[str] | None, known: Sequence[str]) -> set[str]:
    if chosen is not None and not chosen:
        raise RequestError(f"{option}: nothing is chosen; {suggest('', known)}")
    for name in chosen or ():
        if name not in known:
            raise RequestError(
                f"{option}: {name!r} is not in this benchmark; {suggest(str(name), known)}"
            )
    return set(known if chosen is None else chosen)
