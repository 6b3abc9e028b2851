"""One trial: fit, take the best epoch, rank, measure, record."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import instantiate_class
from torch import distributed

from datamodules.errors import RequestError
from datamodules.noise_training import NoisySequenceDataModule
from datamodules.prepared import PreparedDataset, load_prepared
from datamodules.sequence import SequenceDataModule
from intentbench.metrics.collection import RankTable
from intentbench.metrics.users import mean_metric, metric_names
from intentbench.models.base import Recommender
from intentbench.models.events import EventRecommender
from intentbench.models.pretrained import PretrainedRecommender
from intentbench.models.takes import TakesDataset
from intentbench.results.environment import describe_environment
from intentbench.results.record import Cost, TrialRecord
from intentbench.results.store import (
    CHECKPOINT,
    read_record,
    save_noise_ranks,
    save_ranks,
    write_record,
)
from intentbench.runner.arguments import construct
from intentbench.runner.callbacks import EpochWatch, validation_metrics
from intentbench.runner.config import DATA_MODULES, Trial, read_config
from intentbench.runner.costs import (
    device_name,
    measure_latency,
    peak_device_memory,
    peak_memory,
)
from intentbench.runner.distributed import check_launched, run_in_processes
from intentbench.runner.events import EVENTS, begin_attempt, log_outcome
from intentbench.runner.noise import Ranker, rank_under_noise, read_plan
from intentbench.runner.plugin import import_plugin
from intentbench.runner.signs import SignWatch

_log = logging.getLogger(__name__)


def build_model(config: Mapping[str, Any]) -> Recommender:
    """The method that a configuration describes, untrained.

    Raises:
        RequestError: the class path names no method, or an argument does not fit.
    """
    if plugin := config.get("trial", {}).get("plugin"):
        import_plugin(Path(plugin))
    path = config["model"]["class_path"]
    module, _, name = path.rpartition(".")
    method = getattr(import_module(module), name, None)
    if not (isinstance(method, type) and issubclass(method, Recommender)):
        raise RequestError(f"{path}: no method; a method subclasses Recommender")
    model: Recommender = construct(method, config["model"]["init_args"])
    return model


def build_data(
    config: Mapping[str, Any], prepared: PreparedDataset | None = None
) -> SequenceDataModule:
    """The data module that a configuration describes.

    Args:
        config: of a trial.
        prepared: the dataset if it is open already; otherwise it is found by its name.
    """
    arguments = config["data"]["init_args"]
    module = DATA_MODULES[arguments["layout"]]
    return module(**{**arguments, "dataset": prepared or arguments["dataset"]})


def build_trainer(config: Mapping[str, Any], folder: Path, accelerator: str = "auto") -> Trainer:
    """The Trainer that a configuration describes, writing into a trial's folder.

    Args:
        config: of a trial.
        folder: gets events and the best checkpoint.
        accelerator: "cpu", "gpu" or "auto"; where a trial runs is no part of what it is.
    """
    settings = dict(config["trainer"])
    callbacks = [instantiate_class((), block) for block in settings.pop("callbacks")]
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = str(folder)
    logger = settings.pop("logger")
    events = {"save_dir": str(folder), "name": "", "version": EVENTS, "default_hp_metric": False}
    monitor = config["trial"]["training"]["monitor"]
    watches = [EpochWatch(folder, monitor), SignWatch(monitor)]
    plugins = [instantiate_class((), block) for block in settings.pop("plugins")]
    if strategy := settings.get("strategy"):
        check_launched()
        settings["strategy"] = instantiate_class((), strategy)
    return Trainer(
        **{**settings, "accelerator": accelerator},
        callbacks=[*callbacks, *watches],
        logger=instantiate_class((), {**logger, "init_args": {**logger["init_args"], **events}}),
        plugins=plugins,
        default_root_dir=folder,
    )


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained trial, at its best epoch; the test part has not been looked at.

    Attributes:
        trial: what it is.
        config: as read.
        data: its data module.
        model: trained.
        trainer: that trained it.
        validation: the best epoch's validation means.
        earlier: seconds that the model took that it started from.
    """

    trial: Trial
    config: dict[str, Any]
    data: SequenceDataModule
    model: Recommender
    trainer: Trainer
    validation: dict[str, float]
    earlier: float


def fit_trial(
    folder: Path,
    prepared: Path | None = None,
    accelerator: str = "auto",
    base: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """Train the trial whose `config.yaml` lies in a folder, up to its best epoch.

    Args:
        folder: of the trial.
        prepared: folder of the prepared dataset; None looks it up by name.
        accelerator: "cpu", "gpu" or "auto".
        base: folder of the trial that it starts from; None finds it among the runs.
        callbacks: called after those of every trial.

    Raises:
        RequestError: the dataset, or a text, is not the one that the trial is named for.
        Exception: whatever the method raises.
    """
    begin_attempt(folder)
    config = read_config(folder)
    trial = Trial.from_config(config)
    seed_everything(trial.seed, workers=True, verbose=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
    data = build_data(config, load_prepared(prepared) if prepared else None)
    if data.dataset.fingerprint != trial.fingerprint:
        raise RequestError(
            f"{trial.dataset}: prepared data has fingerprint {data.dataset.fingerprint[:16]}, the "
            f"trial is about {trial.fingerprint[:16]}; run the benchmark again to make new trials"
        )
    model = build_model(config)
    if isinstance(model, TakesDataset):
        _check_reads(model, trial, data.dataset)
    earlier = 0.0
    if trial.pretrained:
        earlier = _load_pretrained(model, trial, base or folder.parents[1] / trial.pretrained)
    elif isinstance(model, PretrainedRecommender) and model.frozen:
        _log.warning("no `pretrained` row: the encoder stays as it was drawn, at random")
    trainer = build_trainer(config, folder, accelerator)
    trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]  # set by Lightning
    validation = _fit(trainer, model, data, folder, _watches(trainer)[0])
    return Fitted(trial, config, data, model, trainer, validation, earlier)


def run_trial(folder: Path, prepared: Path | None = None, accelerator: str = "auto") -> TrialRecord:
    """Run the trial whose `config.yaml` lies in a folder; `result.json` is written last.

    Args:
        folder: of the trial.
        prepared: folder of the prepared dataset; None looks it up by name.
        accelerator: "cpu", "gpu" or "auto".

    Returns:
        The record, as written.

    Raises:
        RequestError: the dataset, or a text, is not the one that the trial is named for.
        Exception: whatever the method raises; the caller records it.
    """
    started = time.perf_counter()
    processes = Trial.from_config(read_config(folder)).training.processes
    if processes > 1 and not distributed.is_initialized():
        return run_in_processes(folder, prepared, accelerator, processes)
    fitted = fit_trial(folder, prepared, accelerator)
    trial, data, model, trainer = fitted.trial, fitted.data, fitted.model, fitted.trainer
    watch, signs = _watches(trainer)
    logger, trainer.logger = trainer.logger, None  # all that the test came to is logged below
    table = _test(trainer, model, data)
    save_ranks(folder, table.user, table.key, table.rank)
    latency_1, latency_256 = measure_latency(trainer, model, data)
    history = data.dataset.meta.history
    cost = Cost(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=time.perf_counter() - started + fitted.earlier,
        seconds_per_epoch=watch.seconds / watch.epochs if model.CARD.gradient else 0.0,
        epochs=watch.epochs if model.CARD.gradient else 0,
        latency_1=latency_1,
        latency_256=latency_256,
        peak_memory_mb=peak_memory(),
        peak_device_memory_mb=peak_device_memory(model.device),
    )
    record = replace(
        describe_trial(trial, data.dataset, type(model)),
        status="done",
        metrics={
            name: mean_metric(name, table.user, table.rank, history)
            for name in metric_names(history)
        },
        validation=fitted.validation,
        best_epoch=watch.best_epoch if model.CARD.gradient else -1,
        curve=[round(value, 6) for value in watch.curve],
        cost=cost,
        signs=signs.signs,
        intents=model.intent_metrics if isinstance(model, EventRecommender) else {},
        environment=describe_environment(device_name(model.device), torch.get_num_threads()),
        finished=utc_now(),
    )
    if trial.noise:
        noise = _measure_noise(trial, fitted.config, folder, data, table, trainer, model)
        record = replace(record, noise=noise, finished=utc_now())
    log_outcome(logger, record, trainer.global_step)
    write_record(folder, record)
    return record


def describe_trial(
    trial: Trial, dataset: PreparedDataset, method: type[Recommender]
) -> TrialRecord:
    """What is known of a trial before it has run: a record with status "failed" and no reason."""
    meta = dataset.meta
    return TrialRecord(
        trial=trial.name,
        status="failed",
        dataset=trial.dataset,
        data_fingerprint=trial.fingerprint,
        label=trial.label,
        method=trial.method,
        seed=trial.seed,
        benchmark=trial.benchmark,
        arguments=trial.arguments,
        data=trial.data,
        training=trial.training.settings(),
        code=trial.code,
        card=method.CARD.snapshot(),
        statistics=meta.statistics,
        protocol={
            "split": meta.recipe.get("split"),
            "history": meta.history,
            "mask_history": trial.data["mask_history"],
            "window": trial.data["window"],
            "targets": trial.data["targets"],
            "candidates": "all items",
            "ties": "count half",
            "notes": list(meta.notes),
            **({"texts": trial.reads} if trial.reads else {}),
        },
    )


def utc_now() -> str:
    """The time, as records state it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _check_reads(model: TakesDataset, trial: Trial, dataset: PreparedDataset) -> None:
    """Refuse texts that have changed since the trial got its name."""
    found = model.reads(dataset, trial.arguments)
    if trial.reads not in ("", found):
        raise RequestError(
            f"{trial.label}: reads {found}, the trial is about {trial.reads}; run the benchmark "
            "again to make new trials"
        )


def _load_pretrained(model: Recommender, trial: Trial, place: Path) -> float:
    """Give the method the checkpoint that it starts from; the seconds that making it took."""
    record = read_record(place)
    if record is None or record.status != "done" or not (place / CHECKPOINT).exists():
        raise RequestError(f"{trial.label}: starts from {trial.pretrained}, which has not finished")
    if not isinstance(model, PretrainedRecommender):
        raise RequestError(f"{trial.label}: {trial.method} starts from no other method")
    state = torch.load(place / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
    model.load_encoder(state)
    return record.cost.seconds


def _watches(trainer: Trainer) -> tuple[EpochWatch, SignWatch]:
    callbacks: list[object] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning
    epochs = next(c for c in callbacks if isinstance(c, EpochWatch))
    signs = next(c for c in callbacks if isinstance(c, SignWatch))
    return epochs, signs


def _fit(
    trainer: Trainer, model: Recommender, data: SequenceDataModule, folder: Path, watch: EpochWatch
) -> dict[str, float]:
    """Train, return to the best epoch, and give its validation metrics."""
    trainer.fit(model, data)
    checkpoint = folder / CHECKPOINT
    if watch.best:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["state_dict"])
        return watch.best
    # A method without gradient steps ends its only epoch before Lightning would validate.
    trainer.validate(model, data, verbose=False)
    trainer.save_checkpoint(checkpoint, weights_only=True)
    return validation_metrics(trainer.callback_metrics)


def _test(trainer: Trainer, model: Recommender, data: SequenceDataModule) -> RankTable:
    """The ranks of all test targets."""
    trainer.test(model, data, verbose=False)
    if model.table is None:
        raise RequestError(
            f"{type(model).__name__}: its test kept no ranks; keep Recommender's test steps"
        )
    return model.table


def _measure_noise(
    trial: Trial,
    config: Mapping[str, Any],
    folder: Path,
    data: SequenceDataModule,
    clean: RankTable,
    trainer: Trainer,
    model: Recommender,
) -> list[dict[str, Any]]:
    """Rank under noise with the trained method, and where asked for with one trained on noise.

    Ranks go into the trial's folder, and what is trained into folders below it.

    Returns:
        Entries of the record.
    """

    def ranker(trainer: Trainer, model: Recommender) -> Ranker:
        trainer.logger = None  # events stay those of the trial
        return lambda noisy: _test(trainer, model, build_data(config, noisy))

    def train(rows: NoisySequenceDataModule) -> Ranker:
        place = folder / "noise" / f"{rows.noise.kind}-{rows.noise.rate:g}"
        place.mkdir(parents=True, exist_ok=True)
        seed_everything(trial.seed, workers=True, verbose=False)
        other = build_model(config)  # starts from nothing: a spec with both is refused
        kind = "gpu" if model.device.type == "cuda" else "cpu"
        fresh = build_trainer(config, place, kind)
        _fit(fresh, other, rows, place, _watches(fresh)[0])
        return ranker(fresh, other)

    plan = read_plan(trial.noise)
    entries, ranks = rank_under_noise(plan, data, clean, ranker(trainer, model), train)
    save_noise_ranks(folder, ranks)
    return entries
