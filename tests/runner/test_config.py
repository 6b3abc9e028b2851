from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from intentbench.models.base import Recommender
from intentbench.reports.archive import read_archive
from intentbench.runner.build import build_data, build_model, build_trainer
from intentbench.runner.callbacks import UserRecall
from intentbench.runner.config import Training, Trial, read_config, write_config
from intentbench.runner.grid import RunOptions, plan_grid
from intentbench.runner.lightning_cli import SuiteCLI
from intentbench.runner.trial import run_trial
from tests.runner.conftest import MakeSpec

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "ranks" / "quickstart"


@pytest.fixture(scope="module")
def trial(make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    spec = make_spec({"toy": {"scales": [1, 2]}}, seeds=[3])
    (planned,) = plan_grid(spec, RunOptions(out=tmp_path_factory.mktemp("runs")))
    return planned.job.trial


def test_configuration_survives_the_round_trip(trial: Trial, tmp_path: Path) -> None:
    write_config(tmp_path, trial)
    again = Trial.from_config(read_config(tmp_path))
    assert again == trial
    assert hash(again) == hash(trial)
    assert read_config(tmp_path)["trial"]["name"] == trial.name == again.name


@pytest.mark.parametrize(
    "change",
    [
        {"method": "other"},
        {"arguments": {"width": 9}},
        {"data": {"window": 9}},
        {"fingerprint": "0"},
        {"training": Training(max_epochs=9)},
        {"seed": 9},
        {"reads": "tfidf-svd-128 (offline texts, 01)"},
    ],
)
def test_name_changes_with_what_determines_the_result(trial: Trial, change: dict[str, Any]) -> None:
    assert replace(trial, **change).name != trial.name


@pytest.mark.parametrize("key", ["label", "benchmark", "code", "source", "plugin"])
def test_name_does_not_depend_on_the_rest(trial: Trial, key: str) -> None:
    other: dict[str, Any] = {key: "other"}
    assert replace(trial, **other).name == trial.name


def test_published_trials_are_still_named_as_they_were() -> None:
    """What the Trainer is built with is no part of the name."""
    _, _, results = read_archive(PUBLISHED)
    records = [record for record, _ in results if record.method != "oracle"]
    assert len({record.label for record in records}) == 7
    for record in records:
        trial = Trial(
            dataset=record.dataset,
            source=record.dataset,
            fingerprint=record.data_fingerprint,
            label=record.label,
            method=record.method,
            class_path="",
            arguments=record.arguments,
            data=record.data,
            training=Training(**record.training),
            seed=record.seed,
        )
        assert trial.name == record.trial
        blocks = trial.config()["trainer"]["callbacks"]
        assert [block["class_path"].rpartition(".")[2] for block in blocks] == [
            "UserRecall",
            "EarlyStopping",
            "ModelCheckpoint",
        ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning calls old jsonargparse
def test_lightning_cli_builds_the_same_from_it(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["intentbench"])
    write_config(tmp_path, trial)
    config = read_config(tmp_path)
    config["trainer"]["deterministic"] = False  # a global switch, not for other tests
    cli = SuiteCLI(
        Recommender,
        SequenceDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        args={**config, "seed_everything": False},
        run=False,
    )
    model, data = build_model(config), build_data(config)
    trainer = build_trainer(config, tmp_path, "cpu")
    assert type(cli.model) is type(model)
    assert cli.model.scales == model.scales == (1.0, 2.0)
    assert {k: v.shape for k, v in cli.model.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert vars(cli.datamodule)["window"] == data.window
    assert vars(cli.datamodule)["seed"] == data.seed == 3
    assert _describe(cli.trainer) == _describe(trainer)
    assert _describe(trainer)["recalls"] == 1


def _describe(trainer: Trainer) -> dict[str, Any]:
    stop, best = trainer.early_stopping_callback, trainer.checkpoint_callback
    callbacks: list[object] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning
    assert stop is not None
    assert best is not None
    return {
        "epochs": trainer.max_epochs,
        "precision": trainer.precision,
        "patience": stop.patience,
        "stop": stop.monitor,
        "best": getattr(best, "monitor", None),
        "every": trainer.check_val_every_n_epoch,
        "recalls": sum(isinstance(callback, UserRecall) for callback in callbacks),
    }


def test_other_data_than_the_trial_is_named_for_is_refused(trial: Trial, tmp_path: Path) -> None:
    write_config(tmp_path, replace(trial, fingerprint="0" * 64))
    with pytest.raises(RequestError, match="has fingerprint"):
        run_trial(tmp_path, accelerator="cpu")
    assert not (tmp_path / "result.json").exists()
