"""C14: a method works in Lightning's own Trainer, and in a benchmark."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from intentbench.cli import main
from intentbench.contracts.subject import FILLED, WINDOW, Subject
from intentbench.metrics.formulas import compute_metric
from intentbench.models.card import Card
from intentbench.results.store import load_ranks, load_records
from intentbench.runner.plugin import find_method, load_plugin


@pytest.mark.contract("C14a")
def test_plain_trainer_does_it_all(subject: Subject, tmp_path: Path) -> None:
    model = subject.build()
    batches = subject.batches(model)
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, log_every_n_steps=1, default_root_dir=tmp_path
    )
    trainer.fit(model, batches)
    (valid,) = trainer.validate(model, batches, verbose=False)
    assert 0 <= valid["val/ndcg@10"] <= valid["val/hit_rate@10"] <= 1
    (test,) = trainer.test(model, batches, verbose=False)
    assert 0 <= test["test/ndcg@10"] <= test["test/hit_rate@10"] <= 1
    pages: Any = trainer.predict(model, batches)
    assert sum(len(page["users"]) for page in pages) == subject.data.n_users


@pytest.fixture(scope="session")
def benchmark(
    tmp_path_factory: pytest.TempPathFactory,
    prepared_folder: Path,  # sets the cache that the command looks into
    method_targets: dict[str, str],
    plugin_file: Path | None,
) -> Path:
    """The folder where `intentbench run` has run every method, once."""
    folder = tmp_path_factory.mktemp("benchmark")
    plugin = load_plugin(plugin_file) if plugin_file else {}
    spec = {
        "name": "contract",
        "datasets": ["synthetic-tiny"],
        "models": {key: _entry(find_method(key, plugin, key).CARD) for key in method_targets},
        "seeds": [0],
        "data": {"window": WINDOW, "batch_size": 128},
        "training": {"max_epochs": 2},
    }
    file = folder / "contract.yaml"
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    outputs = ["--out", str(folder / "runs"), "--leaderboards", str(folder)]
    given = ["--plugin", str(plugin_file)] if plugin_file else []
    main(["run", str(file), "--devices", "cpu", *outputs, *given])  # the records tell what failed
    return folder


def _entry(card: Card) -> dict[str, Any]:
    """The row of a spec that has the arguments of `tiny`."""
    given = {name: value for name, value in card.tiny.items() if name not in FILLED}
    return given | ({"data": {"window": card.tiny["window"]}} if "window" in card.tiny else {})


@pytest.mark.contract("C14b")
def test_benchmark_writes_a_record_and_a_row(subject: Subject, benchmark: Path) -> None:
    ((folder, record),) = [
        found for found in load_records(benchmark / "runs") if found[1].label == subject.key
    ]
    assert record.status == "done", record.reason
    ranks = load_ranks(folder)
    assert ranks["user"].tolist() == list(range(subject.data.n_users))
    assert record.metrics["ndcg@10"] == compute_metric("ndcg@10", ranks["rank"]).mean()
    assert (folder / "best.ckpt").exists()
    with (benchmark / "contract.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == subject.key]
    means = {row["metric"]: float(row["mean"]) for row in rows}
    assert means["ndcg@10"] == pytest.approx(record.metrics["ndcg@10"], abs=1e-5)
