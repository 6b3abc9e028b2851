"""A folder of runs that looks like a real one, from a fixed generator and in no time.

Users have a common difficulty, models a strength, each seed of a stochastic model a small shift.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.users import metric_names
from intentbench.results.record import Cost, TrialRecord
from intentbench.results.store import save_ranks, trial_folder, write_record


@dataclass(frozen=True)
class FakeModel:
    """A row: how strong, how much its seeds differ, and what others published of it."""

    label: str
    strength: float
    seed_spread: float = 0.05
    method: str = ""
    deterministic: bool = False
    published: tuple[dict[str, Any], ...] = ()
    deviations: tuple[str, ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()
    window: int = 50


POPULARITY = FakeModel("popularity", 0.0, 0.0, deterministic=True)
KNN = FakeModel("item_knn", 1.2, 0.0, deterministic=True, window=200)
SASREC = FakeModel(
    "sasrec_ce_all",
    1.6,
    method="sasrec",
    arguments=(("loss", "ce"), ("layout", "all")),
    published=(
        {
            "dataset": "beauty",
            "metric": "ndcg@10",
            "value": 0.3,
            "source": "A Paper (2020), table 2",
            "when": {},
        },
        {
            "dataset": "beauty",
            "metric": "ndcg@10",
            "value": 0.415,
            "source": "Another Paper (2023), table 4",
            "when": {"loss": "ce"},
        },
        {
            "dataset": "beauty",
            "metric": "hit_rate@10",
            "value": 0.55,
            "source": "Another Paper (2023), table 4",
            "when": {"loss": "ce"},
        },
    ),
    deviations=("Padding is on the right.", "Dropout after the sum of embeddings."),
)
SASREC_BCE = FakeModel(
    "sasrec_bce1",
    1.35,
    method="sasrec",
    arguments=(("loss", "bce1"), ("layout", "all")),
    published=SASREC.published,
)
GRU = FakeModel("gru4rec", 1.3)
ORACLE = FakeModel("oracle", 2.6, 0.0, deterministic=True)

N_ITEMS = 400


def fake_ranks(
    model: FakeModel, dataset: str, seed: int, n_users: int, targets_per_user: int = 1
) -> dict[str, NDArray[np.int64]]:
    """Ranks of a trial; the users are the same for all models."""
    shared = np.random.default_rng(list(dataset.encode()))
    user = np.repeat(np.arange(n_users), targets_per_user)
    difficulty = shared.normal(0, 2, len(user))
    key = shared.integers(2, 9, n_users)[user] + np.tile(np.arange(targets_per_user), n_users)
    own = np.random.default_rng([seed, *f"{dataset} {model.label}".encode()])
    shift = model.seed_spread * own.normal()
    noise = 0.5 if model.deterministic else 1.0
    margin = model.strength + shift - difficulty + noise * own.normal(size=len(user))
    rank = 1 + np.floor((N_ITEMS - 1) / (1 + np.exp(1.2 * margin + 2))).astype(np.int64)
    return {"user": user, "key": key, "rank": rank}


def fake_record(model: FakeModel, dataset: str, seed: int, rank: NDArray[np.int64]) -> TrialRecord:
    """The record that goes with ranks."""
    gradient = not model.deterministic
    return TrialRecord(
        trial=f"{hash_text(f'{dataset} {model.label} {seed}'):016x}",
        status="done",
        dataset=dataset,
        data_fingerprint=f"{hash_text(dataset):016x}" * 4,
        label=model.label,
        method=model.method or model.label,
        seed=seed,
        benchmark="fake",
        arguments=dict(model.arguments),
        data={"window": model.window},
        training={"max_epochs": 200},
        metrics={name: float(compute_metric(name, rank).mean()) for name in metric_names("")},
        cost=Cost(
            parameters=1_234_567 if gradient else 0,
            seconds=700.0 + seed if gradient else 3.5,
            seconds_per_epoch=16.25 if gradient else 0.0,
            epochs=40 + seed if gradient else 0,
            latency_1=1.5,
            latency_256=0.0875,
            peak_memory_mb=812.0,
        ),
        environment={
            "python": "3.11.9",
            "platform": "Linux-6.1-x86_64",
            "packages": {"torch": "2.13.0", "lightning": "2.6.6", "numpy": "2.4.6"},
            "commit": "0123456789abcdef",
            "dirty": False,
            "cpu": "Some CPU",
            "cores": 2,
            "device": "cpu",
            "threads": 1,
        },
        code="c0de",
        card={
            "title": model.label,
            "deterministic": model.deterministic,
            "published": list(model.published),
            "deviations": list(model.deviations),
        },
        statistics={"users": 300.0, "items": float(N_ITEMS), "density": 0.0734},
        protocol={
            "split": "leave_one_out",
            "mask_history": True,
            "candidates": "all items",
            "window": model.window,
            "targets": "last",
        },
        finished=f"2026-03-0{1 + seed % 9}T10:00:00.000000+00:00",
    )


def hash_text(text: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(np.random.default_rng(list(text.encode())).bytes(8), "big")


def write_trial(
    root: Path,
    model: FakeModel,
    dataset: str,
    seed: int,
    n_users: int = 300,
    targets_per_user: int = 1,
    **changes: Any,
) -> TrialRecord:
    """Put a finished trial into a folder of runs."""
    ranks = fake_ranks(model, dataset, seed, n_users, targets_per_user)
    record = replace(fake_record(model, dataset, seed, ranks["rank"]), **changes)
    folder = trial_folder(root, record.dataset, record.label, record.trial)
    save_ranks(folder, ranks["user"], ranks["key"], ranks["rank"])
    write_record(folder, record)
    return record


def write_failure(
    root: Path, model: FakeModel, dataset: str, seed: int, reason: str
) -> TrialRecord:
    """Put a failed trial into a folder of runs."""
    blank = fake_record(model, dataset, seed, np.ones(2, dtype=np.int64))
    record = replace(blank, status="failed", reason=reason, metrics={}, environment={}, cost=Cost())
    write_record(trial_folder(root, dataset, model.label, record.trial), record)
    return record


def write_runs(
    root: Path,
    models: Sequence[FakeModel],
    datasets: Sequence[str] = ("beauty",),
    seeds: Sequence[int] = (0, 1, 2),
    n_users: int = 300,
) -> None:
    """Put a whole grid into a folder of runs; deterministic models once."""
    for dataset in datasets:
        for model in models:
            for seed in (0,) if model.deterministic else seeds:
                write_trial(root, model, dataset, seed, n_users)
