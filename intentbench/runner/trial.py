"""One trial: fit, take the best epoch, rank, measure, record."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import distributed

from datamodules.errors import RequestError
from datamodules.noise_training import NoisySequenceDataModule
from datamodules.prepared import PreparedDataset
from datamodules.sequence import SequenceDataModule
from intentbench.metrics.collection import RankTable
from intentbench.metrics.users import mean_metric, metric_names
from intentbench.models.base import Recommender
from intentbench.models.events import EventRecommender
from intentbench.results.environment import describe_environment
from intentbench.results.record import Cost, TrialRecord
from intentbench.results.store import (
    save_noise_ranks,
    save_ranks,
    write_record,
)
from intentbench.runner.build import build_data, build_model, build_trainer
from intentbench.runner.config import Trial, read_config
from intentbench.runner.costs import (
    device_name,
    measure_latency,
    peak_device_memory,
    peak_memory,
)
from intentbench.runner.distributed import run_in_processes
from intentbench.runner.events import log_outcome
from intentbench.runner.fit import find_watches, fit_trial, train_to_best
from intentbench.runner.noise import Ranker, rank_under_noise, read_plan
from intentbench.runner.resuming import forget_last
from intentbench.runner.signs import UNVALIDATED


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
    # the checkpoint holds the random numbers of one process
    fitted = fit_trial(folder, prepared, accelerator, resume=processes == 1)
    trial, data, model, trainer = fitted.trial, fitted.data, fitted.model, fitted.trainer
    watch, signs = find_watches(trainer)
    logger, trainer.logger = trainer.logger, None  # all that the test came to is logged below
    table = _test(trainer, model, data)
    save_ranks(folder, table.user, table.key, table.rank)
    latency_1, latency_256 = measure_latency(trainer, model, data)
    history = data.dataset.meta.history
    cost = Cost(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=time.perf_counter() - started + fitted.earlier + watch.before,
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
        signs=signs.signs + [UNVALIDATED] * (model.CARD.gradient and not fitted.validation),
        intents=model.intent_metrics if isinstance(model, EventRecommender) else {},
        environment=describe_environment(device_name(model.device), torch.get_num_threads()),
        finished=utc_now(),
    )
    if trial.noise:
        noise = _measure_noise(trial, fitted.config, folder, data, table, trainer, model)
        record = replace(record, noise=noise, finished=utc_now())
    log_outcome(logger, record, trainer.global_step)
    write_record(folder, record)
    forget_last(folder)
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
        train_to_best(fresh, other, rows, place)
        return ranker(fresh, other)

    plan = read_plan(trial.noise)
    entries, ranks = rank_under_noise(plan, data, clean, ranker(trainer, model), train)
    save_noise_ranks(folder, ranks)
    return entries
