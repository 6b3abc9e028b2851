"""Rows of a benchmark: a method with its arguments, read from a spec and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from datamodules.errors import RequestError
from intentbench.models.base import MONITORED, Recommender
from intentbench.models.graph_text import find_base
from intentbench.models.pretrained import PretrainedRecommender
from intentbench.results.record import ORACLE
from intentbench.runner.arguments import resolve_arguments, suggest
from intentbench.runner.callbacks import RECALLS
from intentbench.runner.config import DATA_MODULES, PRECISIONS, Training
from intentbench.runner.distributed import check_processes
from intentbench.runner.noise import resolve_noise
from intentbench.runner.plugin import find_method
from intentbench.runner.presets import load_settings
from intentbench.runner.spaces import find_space
from intentbench.runner.tuned import Tuned, load_tuned, tuned_path
from intentbench.runner.values import check_keys, read_mapping, read_name

COMMON = ("data", "training", "noise", "per_dataset")
"""Keys of a spec that say something of all rows."""

FROM_DATASET = {"n_items": 1, "n_users": 1, "window": 1}
"""Arguments of a method that the data module gives; the values only stand in while checking."""

FROM_TRIAL = {
    "dataset": "",
    "data_root": None,
    "layout": "all",
    "pad_to_window": False,
    "seed": 0,
    "device_resident": True,
}
"""Arguments of the data module that follow from the trial and its method."""


@dataclass(frozen=True)
class Entrant:
    """A row of the leaderboard: a method with its arguments.

    Attributes:
        label: name of the row.
        method: key of the method.
        cls: its class.
        arguments: all its arguments, but for those that come from the dataset.
        departures: the same for datasets where the method's file says otherwise, by dataset.
        data_departures: `data` of datasets for which the spec says otherwise, by dataset.
        pretrained: the row whose trained model of the same seed the method starts from.
        data: arguments of the data module, but for dataset and seed.
        training: epochs and early stopping.
        noise: what it is measured under; see `intentbench.runner.noise.NoisePlan`. {} for none.
        own: names of the arguments that the row itself gives.
        search: the block `search` of the method's file, None where there is none.
        tuned: what a search chose for the row, by dataset; it is part of `arguments_on`.
        settings: the method's file.
    """

    label: str
    method: str
    cls: type[Recommender]
    arguments: dict[str, Any] = field(hash=False)
    data: dict[str, Any] = field(hash=False)
    training: Training
    departures: dict[str, dict[str, Any]] = field(default_factory=dict, hash=False)
    data_departures: dict[str, dict[str, Any]] = field(default_factory=dict, hash=False)
    pretrained: "Entrant | None" = None
    noise: dict[str, Any] = field(default_factory=dict, hash=False)
    own: frozenset[str] = frozenset()
    search: Mapping[str, Any] | None = field(default=None, hash=False)
    tuned: dict[str, Tuned] = field(default_factory=dict, hash=False)
    settings: Path = Path()

    def arguments_on(self, dataset: str) -> dict[str, Any]:
        """Its arguments on a dataset."""
        arguments = self.departures.get(dataset, self.arguments)
        if dataset in self.tuned:
            arguments = {**arguments, **self.tuned[dataset].arguments}
        if self.pretrained is None:
            return arguments
        base = {
            "encoder": self.pretrained.method,
            "encoder_arguments": self.pretrained.arguments_on(dataset),
        }
        return {**arguments, **base}

    def data_on(self, dataset: str) -> dict[str, Any]:
        """Arguments of the data module on a dataset."""
        return self.data_departures.get(dataset, self.data)


@dataclass(frozen=True)
class Common:
    """What a spec says of all rows; a row's own words win over it.

    Attributes:
        data: arguments of the data module.
        training: epochs and early stopping.
        noise: what is measured under noise.
        per_dataset: dataset to what holds there: `data`, over the common one.
    """

    data: dict[str, Any]
    training: dict[str, Any]
    noise: dict[str, Any]
    per_dataset: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: Path) -> Self:
        """Of the keys `data`, `training`, `noise` and `per_dataset` of a spec."""
        data, training, noise, chosen = (
            read_mapping(raw.get(key, {}), f"{path}: {key}") for key in COMMON
        )
        _training(training, f"{path}: training")  # here, so that no row is blamed
        per_dataset = {}
        for name, block in chosen.items():
            where = f"{path}: per_dataset.{name}"
            block = read_mapping(block, where)
            check_keys(block, ("data",), where)
            per_dataset[str(name)] = read_mapping(block.get("data", {}), f"{where}.data")
        return cls(data, training, noise, per_dataset)


def read_entrants(
    rows: Mapping[str, Any],
    common: Common,
    methods: Mapping[str, type[Recommender]],
    path: Path,
    board: str,
) -> tuple[Entrant, ...]:
    """The rows of a spec.

    Args:
        rows: label to what stands there.
        common: what holds for all.
        methods: further methods, of a plugin.
        path: of the spec.
        board: its name, under which tuned values are kept.

    Raises:
        RequestError: a row that could not run.
    """
    given = {
        str(label): dict(read_mapping({} if row is None else row, f"{path}: models.{label}"))
        for label, row in rows.items()
    }
    sources = {label: row.pop("pretrained") for label, row in given.items() if "pretrained" in row}
    for label in sources:
        for name in ("encoder", "encoder_arguments"):
            if name in given[label]:
                where = f"{path}: models.{label}.{name}"
                raise RequestError(f"{where}: follows from `pretrained`; leave one of them out")
    entrants = [_entrant(label, row, common, methods, path, board) for label, row in given.items()]
    for row in entrants:
        sizes = [data["batch_size"] for data in (row.data, *row.data_departures.values())]
        where = f"{path}: models.{row.label}"
        check_processes(row.method, row.cls, row.training, sizes, bool(row.noise), where)
    return _linked(entrants, sources, path)


def describe_tuning(
    entrants: Sequence[Entrant], datasets: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """How the arguments of rows were chosen, for the page of a board.

    Args:
        entrants: all rows.
        datasets: names of all datasets.

    Returns:
        Dataset to label to `arguments` and `search` of tuned values, or to what stands `instead`
        of these; without datasets of which no row is tuned.
    """

    def describe(entrant: Entrant, dataset: str) -> dict[str, Any]:
        if tuned := entrant.tuned.get(dataset):
            return {"arguments": tuned.arguments, "search": asdict(tuned.budget)}
        if not find_space(entrant.method, entrant.cls, entrant.search, str(entrant.settings)):
            return {"instead": "nothing to tune"}
        if entrant.own:
            return {"instead": "values of the spec"}
        return {"instead": "published settings" if dataset in entrant.departures else "defaults"}

    return {
        dataset: {entrant.label: describe(entrant, dataset) for entrant in entrants}
        for dataset in datasets
        if any(dataset in entrant.tuned for entrant in entrants)
    }


def _entrant(
    label: str,
    arguments: dict[str, Any],
    common: Common,
    methods: Mapping[str, type[Recommender]],
    path: Path,
    board: str,
) -> Entrant:
    where = f"{path}: models.{label}"
    method = str(arguments.pop("method", label))
    own, training, noise = (
        read_mapping(arguments.pop(key, {}), f"{where}.{key}")
        for key in ("data", "training", "noise")
    )
    if label == ORACLE:
        raise RequestError(f"{where}: the label of the ceiling of synthetic data; choose another")
    cls = find_method(method, methods, where)
    file = load_settings(path, method)
    preset = file.preset(arguments.pop("preset", None), where)
    resolved = _resolve(cls, {**preset.arguments, **arguments}, where)
    layout = resolved.get("layout", cls.layout)

    def data_settings(*blocks: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
        for place, block in blocks:  # each alone, so that an error names where it stands
            resolve_arguments(DATA_MODULES[layout], block, place, FROM_TRIAL)
        given = {name: value for _, block in blocks for name, value in block.items()}
        settings = resolve_arguments(DATA_MODULES[layout], given, f"{where}.data", FROM_TRIAL)
        if not settings.get("added_pairs"):
            settings.pop("added_pairs", None)  # names of trials without any stay
        settings |= {"layout": layout, "pad_to_window": cls.CARD.fixed_window}
        for name in ("window", "batch_size", "evaluation_batch_size"):
            if (settings[name] or 0) < 1:
                place = next(place for place, block in reversed(blocks) if name in block)
                raise RequestError(f"{place}: {name}: must be at least 1, not {settings[name]}")
        unsaid = ("dataset", "data_root", "seed", "device_resident")
        return {name: value for name, value in settings.items() if name not in unsaid}

    for_all = f"{path}: data, for models.{label}", common.data
    for_row = f"{where}.data", own
    return Entrant(
        label=read_name(label, where),
        method=method,
        cls=cls,
        arguments=resolved,
        data=data_settings(for_all, for_row),
        training=_training({**common.training, **training}, f"{where}.training"),
        departures={
            name: _resolve(cls, {**given, **arguments}, place)
            for name, (place, given) in file.departures(preset).items()
        },
        data_departures={
            name: data_settings(
                for_all, (f"{path}: per_dataset.{name}.data, for models.{label}", block), for_row
            )
            for name, block in common.per_dataset.items()
        },
        noise=resolve_noise({**common.noise, **noise}, cls, layout, f"{where}.noise"),
        own=frozenset(arguments),
        search=file.search,
        tuned=_tuned(load_tuned(tuned_path(file.path, method), board, label), cls, arguments),
        settings=file.path,
    )


def _tuned(
    found: Mapping[str, Tuned], cls: type[Recommender], own: Mapping[str, Any]
) -> dict[str, Tuned]:
    """Tuned values by dataset, checked; what the row gives itself wins over them."""
    tuned = {}
    for dataset, chosen in found.items():
        if "layout" in chosen.arguments:
            raise RequestError(f"{chosen.where}: the layout is chosen by a row or preset")
        resolved = _resolve(cls, chosen.arguments, chosen.where)
        values = {name: resolved[name] for name in chosen.arguments if name not in own}
        tuned[dataset] = replace(chosen, arguments=values)
    return {dataset: chosen for dataset, chosen in tuned.items() if chosen.arguments}


def _linked(
    entrants: Sequence[Entrant], sources: Mapping[str, Any], path: Path
) -> tuple[Entrant, ...]:
    """The rows, each with the row that it starts from."""
    table = {entrant.label: entrant for entrant in entrants}
    for label, source in sources.items():
        where = f"{path}: models.{label}.pretrained"
        if not isinstance(source, str) or source not in table:
            raise RequestError(f"{where}: unknown row {source!r}; {suggest(str(source), table)}")
        if source in sources:
            raise RequestError(f"{where}: {source!r} starts from another row itself")
        row, base = table[label], table[source]
        _check_start(row, base, where)
        table[label] = replace(row, pretrained=base)
    return tuple(table.values())


def _check_start(row: Entrant, base: Entrant, where: str) -> None:
    """Whether a row can start from another one."""
    if not issubclass(row.cls, PretrainedRecommender):
        raise RequestError(f"{where}: {row.method!r} starts from no other method")
    if not issubclass(base.cls, row.cls.READABLE):
        readable = ", ".join(cls.__name__ for cls in row.cls.READABLE)
        raise RequestError(f"{where}: {row.method!r} cannot read {base.method!r}, only {readable}")
    if base.data["window"] < row.data["window"]:
        raise RequestError(
            f"{where}: {base.label!r} has a window of {base.data['window']} items, "
            f"{row.label!r} of {row.data['window']}"
        )
    if row.noise.get("train"):
        raise RequestError(
            f"{where}: {base.label!r} is trained on clean data, so that noise in training would "
            "leave half of the method out; give the row noise: {train: false}"
        )


def _resolve(cls: type[Recommender], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All arguments, but for those that come from the dataset."""
    resolved = resolve_arguments(cls, given, where, FROM_DATASET)
    if nested := resolved.get("base_arguments"):  # of the method that this one is added to
        base = find_base(resolved["base"], nested)
        resolve_arguments(base, nested, f"{where}.base_arguments", FROM_DATASET)
    return {name: value for name, value in resolved.items() if name not in FROM_DATASET}


def _training(given: Mapping[str, Any], where: str) -> Training:
    training = Training(**resolve_arguments(Training, given, where))
    validated = (*MONITORED, *RECALLS)
    if training.monitor not in validated:
        hint = suggest(str(training.monitor), validated)
        raise RequestError(f"{where}.monitor: unknown metric {training.monitor!r}; {hint}")
    if training.precision not in PRECISIONS:
        hint = suggest(training.precision, PRECISIONS)
        raise RequestError(f"{where}.precision: unknown {training.precision!r}; {hint}")
    for name in ("max_epochs", "patience", "validate_every", "processes", "accumulate"):
        if (asdict(training)[name] or 0) < 1:
            raise RequestError(f"{where}.{name}: must be at least 1")
    return training
