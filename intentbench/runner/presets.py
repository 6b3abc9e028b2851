"""Named blocks of a method's arguments, from `models/<method>.yaml` beside a spec or one folder up.

    presets:                 # chosen by a row: {method: indirec, preset: code}
      code:
        retrieval: batch
        datasets:            # what the preset changes for a dataset
          toys: {steps: 20}
    datasets:                # what the authors changed for a dataset; applied without asking
      beauty: {steps: 50}
    search:                  # what `intentbench tune` searches; see `intentbench.runner.spaces`
      steps: [20, 50]

A row's own arguments win over values that were tuned for it (`intentbench.runner.tuned`), these
over its preset's for the dataset, these over the preset's, those over the dataset's, and all of
them over the defaults of the signature. Values replace one another whole: of an argument that is a
mapping, nothing is merged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.catalog import catalog
from datamodules.errors import RequestError
from intentbench.runner.arguments import suggest
from intentbench.runner.values import read_yaml

Blocks = Mapping[str, Mapping[str, Any]]
"""Names to arguments."""

KEYS = ("presets", "datasets", "search")
"""Keys of a method's file."""


@dataclass(frozen=True)
class Preset:
    """A named block of arguments.

    Attributes:
        where: file and key path, the beginning of messages.
        arguments: on any dataset.
        datasets: catalogue key to what differs there.
    """

    where: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    datasets: Blocks = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What a method's file says.

    Attributes:
        path: of the file.
        presets: by name.
        datasets: catalogue key to arguments.
        search: argument to where it is searched, as written; None where the file does not say.
    """

    path: Path
    presets: Mapping[str, Preset] = field(default_factory=dict)
    datasets: Blocks = field(default_factory=dict)
    search: Mapping[str, Any] | None = None

    def preset(self, name: str | None, where: str) -> Preset:
        """A preset; an empty one without a name.

        Raises:
            RequestError: the file has no such preset.
        """
        if name is None:
            return Preset()
        if not isinstance(name, str) or name not in self.presets:
            hint = suggest(str(name), self.presets) if self.presets else "there is none"
            raise RequestError(f"{where}.preset: {self.path} has no preset {name!r}; {hint}")
        return self.presets[name]

    def departures(self, preset: Preset) -> dict[str, tuple[str, dict[str, Any]]]:
        """Of each dataset of which the file or the preset says something: where, and all of it."""
        found = {}
        for name in {**self.datasets, **preset.datasets}:
            owner = preset.where if name in preset.datasets else self.path
            common, own = self.datasets.get(name, {}), preset.datasets.get(name, {})
            found[name] = f"{owner}: datasets.{name}", {**common, **preset.arguments, **own}
        return found


def load_settings(spec: Path, method: str) -> Settings:
    """Read a method's file; nothing is set where there is none.

    Args:
        spec: file of the benchmark.
        method: key of the method.

    Raises:
        RequestError: it is no such file; one line with file, key and what is allowed.
    """
    places = [folder / "models" / f"{method}.yaml" for folder in spec.absolute().parents[:2]]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return Settings(places[0])
    blocks = _blocks(read_yaml(path) or {}, str(path))
    for key in blocks:
        if key not in KEYS:
            raise RequestError(f"{path}: unknown key {key!r}; {suggest(key, KEYS)}")
    presets = {
        name: _preset(block, f"{path}: presets.{name}")
        for name, block in _blocks(blocks.get("presets", {}), f"{path}: presets").items()
    }
    datasets = _datasets(blocks.get("datasets", {}), f"{path}: datasets")
    return Settings(path, presets, datasets, blocks.get("search"))


def _preset(block: dict[str, Any], where: str) -> Preset:
    datasets = _datasets(block.pop("datasets", {}), f"{where}: datasets")
    return Preset(where, block, datasets)


def _datasets(given: Any, where: str) -> dict[str, dict[str, Any]]:
    blocks = _blocks(given, where)
    for name, arguments in blocks.items():
        if name not in catalog():
            raise RequestError(f"{where}: unknown dataset {name!r}; {suggest(name, catalog())}")
        if "layout" in arguments:
            raise RequestError(f"{where}.{name}: the layout is chosen by a row or preset")
    return blocks


def _blocks(given: Any, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(given, Mapping):
        raise RequestError(f"{where}: expected keys and values, found {given!r}")
    for key, block in given.items():
        if block is not None and not isinstance(block, Mapping):
            raise RequestError(f"{where}.{key}: expected keys and values, found {block!r}")
    return {str(key): dict(block or {}) for key, block in given.items()}
