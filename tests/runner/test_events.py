"""What TensorBoard shows of trials, read with its own reader and its own HPARAMS code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as Experiment
from tensorboard.plugins.hparams.list_session_groups import Handler as Sessions

from datamodules.prepare import prepare
from datamodules.prepared import load_prepared
from intentbench.results.record import TrialRecord
from intentbench.runner.config import Training, Trial, write_config
from intentbench.runner.events import EVENTS, flat_hyperparameters, log_outcome
from intentbench.runner.trial import run_trial

ROWS: dict[str, dict[str, Any]] = {
    "toy": {"window": 8, "width": 4, "scales": [0.5, 0.5]},
    "counts": {},
}
CLASSES = {"toy": "Toy", "counts": "Counts"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def records(runs: Path) -> dict[str, TrialRecord]:
    """One trial each of two methods with different arguments; the first was tried before."""
    prepared = prepare("synthetic-tiny")
    data = load_prepared(prepared)
    found = {}
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it, too
        for label, arguments in ROWS.items():
            folder = runs / label
            (folder / EVENTS).mkdir(parents=True)
            (folder / EVENTS / "events.out.tfevents.1.of.an.earlier.attempt").touch()
            trial = Trial(
                dataset="synthetic-tiny",
                source="synthetic-tiny",
                fingerprint=data.fingerprint,
                label=label,
                method=label,
                class_path=f"tests.runner.toy_plugin.{CLASSES[label]}",
                arguments={"n_items": data.n_items, "n_users": data.n_users, **arguments},
                data={
                    "layout": "all",
                    "window": 8,
                    "batch_size": 32,
                    "targets": "last",
                    "mask_history": True,
                },
                training=Training(max_epochs=2),
                seed=3,
            )
            write_config(folder, trial)
            found[label] = run_trial(folder, prepared, "cpu")
    torch.use_deterministic_algorithms(deterministic)  # a trial has its process to itself
    return found


def read_tab(runs: Path) -> tuple[set[str], set[str], dict[str, dict[str, Any]]]:
    """The HPARAMS tab: names of hyperparameters and of metrics, and each row's values."""
    events = EventMultiplexer().AddRunsFromDirectory(str(runs))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(runs))
    context = Context(TBContext(data_provider=provider, logdir=str(runs), multiplexer=events))
    request = RequestContext()
    experiment = Experiment(
        request, context, "", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    names = {info.name for info in experiment.hparam_infos}
    metrics = {info.name.tag for info in experiment.metric_infos}
    asked = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[0, 1, 2, 3], slice_size=99, include_metrics=True
    )
    rows = {}
    for group in Sessions(request, context, "", asked).run().session_groups:
        values: dict[str, Any] = {
            name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()
        }
        values |= {value.name.tag: value.value for value in group.metric_values}
        rows[values["label"]] = values
    return names, metrics, rows


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_trials_of_different_methods_compare_in_one_table(
    runs: Path, records: dict[str, TrialRecord]
) -> None:
    names, metrics, rows = read_tab(runs)
    assert set(rows) == set(ROWS)
    assert {"label", "seed", "arguments/width", "data/window", "training/patience"} <= names
    assert "hp_metric" not in metrics
    assert {"test/ndcg@10", "test/hit_rate@10", "test/mrr", "cost/seconds"} <= metrics
    for label, record in records.items():
        row = rows[label]
        for name, value in record.metrics.items():
            assert row[f"test/{name}"] == pytest.approx(value, rel=1e-6)
        for name, value in vars(record.cost).items():
            assert row[f"cost/{name}"] == pytest.approx(value, rel=1e-6)
        for name, expected in flat_hyperparameters(record).items():
            assert row[name] == expected
    assert rows["toy"]["arguments/width"] == 4
    assert rows["toy"]["arguments/scales"] == "[0.5, 0.5]"
    assert "arguments/width" not in rows["counts"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_events_are_of_this_attempt_and_each_outcome_is_there_once(
    runs: Path, records: dict[str, TrialRecord]
) -> None:
    files = [path.name for path in (runs / "toy" / EVENTS).iterdir()]
    assert not [name for name in files if "earlier" in name]
    assert len([name for name in files if "tfevents" in name]) == 2  # training, outcome
    events = EventAccumulator(str(runs / "toy" / EVENTS)).Reload()
    tags = events.Tags()["scalars"]
    assert {"train/total", "val/ndcg@10"} <= set(tags)
    outcome = [tag for tag in tags if tag.startswith(("test/", "cost/"))]
    assert len(outcome) == len(records["toy"].metrics) + len(vars(records["toy"].cost))
    for tag in outcome:
        assert len(events.Scalars(tag)) == 1


def test_hyperparameters_are_flat_and_plain() -> None:
    record = TrialRecord(
        trial="a",
        status="done",
        dataset="tiny",
        data_fingerprint="",
        label="row",
        method="toy",
        seed=1,
        arguments={"encoder": {"width": 8, "loss": "ce"}, "scales": (1.0, 2.0), "prior": None},
        data={"mask_history": True},
        training={"patience": 3},
    )
    assert flat_hyperparameters(record) == {
        "dataset": "tiny",
        "label": "row",
        "method": "toy",
        "seed": 1,
        "arguments/encoder/width": 8,
        "arguments/encoder/loss": "ce",
        "arguments/scales": json.dumps([1.0, 2.0]),
        "arguments/prior": "null",
        "data/mask_history": True,
        "training/patience": 3,
    }
    log_outcome(None, record, 0)  # a trial without TensorBoard
