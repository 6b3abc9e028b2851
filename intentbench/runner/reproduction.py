"""A published trial again, from its record alone."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from datamodules.catalog import DatasetEntry, catalog
from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from intentbench.models.base import Recommender
from intentbench.models.pretrained import PretrainedRecommender
from intentbench.results.record import TrialRecord
from intentbench.runner.config import Training
from intentbench.runner.entrants import FROM_DATASET, Entrant
from intentbench.runner.executors import plan_slots
from intentbench.runner.grid import RunOptions, build_trial, plan_grid
from intentbench.runner.jobs import Job, Slot
from intentbench.runner.noise import TRAINING_NOISE
from intentbench.runner.plugin import find_method, load_plugin
from intentbench.spec import BenchmarkSpec


def plan_reproduction(
    record: TrialRecord,
    board: Sequence[TrialRecord],
    options: RunOptions,
    plugin: Path | None = None,
    own: Mapping[str, DatasetEntry] | None = None,
) -> list[Job]:
    """What has to be trained, in this order; the last is the trial itself.

    A method that starts from another trained one needs that one first: among the board's trials of
    the same dataset and seed it is the one with which the trial's own name comes out.

    Args:
        record: of a trial that is done.
        board: every trial of its board.
        options: where to, and where data is.
        plugin: a file with further methods.
        own: datasets of a spec, by name, looked at before the catalogue.

    Raises:
        RequestError: the method, the data or the texts are not to be had as the trial had them.
    """
    where = f"{record.dataset} {record.label} seed {record.seed}"
    entry = {**catalog(), **(own or {})}.get(record.dataset)
    if entry is None:
        raise RequestError(f"{where}: its data is in no catalogue; give its spec, too")
    dataset = load_prepared(prepare(entry, options.data_root))
    if dataset.fingerprint != record.data_fingerprint:
        raise RequestError(
            f"{where}: was trained on data {record.data_fingerprint[:16]}, prepared here is "
            f"{dataset.fingerprint[:16]}; nothing can be reproduced on other data"
        )
    methods = load_plugin(plugin) if plugin else {}
    rows = _candidates(record, board, methods, where)
    file = str(plugin.resolve()) if plugin else ""
    specs = [_spec(record, entrants, entry, file) for entrants in rows]
    trials = [build_trial(spec, spec.entrants[-1], entry, dataset, record.seed) for spec in specs]
    names = [trial.name for trial in trials]
    unknown = record.trial not in names
    if unknown and len(rows) == 1 and issubclass(rows[0][-1].cls, PretrainedRecommender):
        raise RequestError(
            f"{where}: starts from a trained {record.arguments['encoder']!r}, of which its board "
            f"has none of seed {record.seed} and these arguments"
        )
    chosen = 0 if unknown else names.index(record.trial)
    texts = record.protocol.get("texts", "")
    if trials[chosen].reads != texts:
        raise RequestError(
            f"{where}: read {texts or 'no texts'}, here it would read "
            f"{trials[chosen].reads or 'none'}; nothing can be reproduced from other texts"
        )
    return [planned.job for planned in plan_grid(specs[chosen], options)]


def choose_slot(record: TrialRecord, devices: str) -> Slot:
    """Where a trial runs: with as many threads as it had, on a CPU where it ran on one.

    Raises:
        RequestError: no such device.
    """
    environment = record.environment
    on_cpu = devices == "auto" and environment.get("device") == "cpu"
    slot = plan_slots("cpu" if on_cpu else devices, 1, 1)[0]
    return Slot(0, slot.device, int(environment.get("threads") or slot.threads))


def _candidates(
    record: TrialRecord,
    board: Sequence[TrialRecord],
    methods: Mapping[str, type[Recommender]],
    where: str,
) -> list[tuple[Entrant, ...]]:
    """The row after each that it may have started from, and the row alone."""
    row = _entrant(record, methods, where)
    if not issubclass(row.cls, PretrainedRecommender):
        return [(row,)]
    encoder = record.arguments["encoder"], record.arguments["encoder_arguments"] or {}
    starts = [
        _entrant(other, methods, where)
        for other in board
        if (other.dataset, other.seed, other.status) == (record.dataset, record.seed, "done")
        and (other.method, _chosen_arguments(other)) == encoder
    ]
    return [*((base, replace(row, pretrained=base)) for base in starts), (row,)]


def _entrant(record: TrialRecord, methods: Mapping[str, type[Recommender]], where: str) -> Entrant:
    """The row of a record, its values resolved already."""
    known = {field.name for field in fields(Training)}
    if unknown := record.training.keys() - known:
        raise RequestError(f"{where}: its training has {min(unknown)!r}, which this version lacks")
    return Entrant(
        label=record.label,
        method=record.method,
        cls=find_method(record.method, methods, where),
        arguments=_chosen_arguments(record),
        data=record.data,
        training=Training(**record.training),
        noise=_noise(record),
    )


def _chosen_arguments(record: TrialRecord) -> dict[str, Any]:
    """Its arguments, but for those that come from the dataset."""
    return {name: value for name, value in record.arguments.items() if name not in FROM_DATASET}


def _noise(record: TrialRecord) -> dict[str, Any]:
    """The plan of which the record holds the entries; {} without any."""
    if not record.noise:
        return {}
    first = record.noise[0]
    return {
        "kinds": list(dict.fromkeys(entry["kind"] for entry in record.noise)),
        "rates": list(dict.fromkeys(entry["rate"] for entry in record.noise)),
        "rounding": first["rounding"],
        "seed": first["seed"],
        "train": any(entry["protocol"] == TRAINING_NOISE for entry in record.noise),
    }


def _spec(
    record: TrialRecord, entrants: tuple[Entrant, ...], entry: DatasetEntry, plugin: str
) -> BenchmarkSpec:
    """A benchmark of one trial, and of the one that it starts from."""
    return BenchmarkSpec(
        name=record.benchmark,
        title=record.benchmark,
        datasets=(entry,),
        entrants=entrants,
        seeds=(record.seed,),
        plugin=plugin,
    )
