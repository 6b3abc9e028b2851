"""Trials of methods that read texts are named for them, say so, and refuse others."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.console import plain_console
from datamodules.errors import RequestError
from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from intentbench.runner.config import Trial, read_config, write_config
from intentbench.runner.grid import RunOptions, plan_grid, run_grid
from intentbench.runner.trial import run_trial
from intentbench.text.features import TextFeatures, describe_features, offline_features
from tests.runner.conftest import MakeSpec

WIDTH = 8


@pytest.fixture
def dataset() -> PreparedDataset:
    return load_prepared(prepare("synthetic-tiny"))


@pytest.fixture
def features(dataset: PreparedDataset) -> TextFeatures:
    return offline_features(dataset, WIDTH)


def _plan(make_spec: MakeSpec, runs: Path, text: str) -> dict[str, Trial]:
    texts = {"text": text, "profile_width": WIDTH}
    rows = {
        "counts": {},
        "semantic": texts,
        "base": {"method": "sasrec_text", "width": 16, **texts},
        "above": {"method": "igr_sr_text", "pretrained": "base"},
    }
    grid = plan_grid(make_spec(rows, seeds=[0]), RunOptions(out=runs))
    return {planned.job.trial.label: planned.job.trial for planned in grid}


def test_a_folder_embedded_again_makes_other_trials_of_what_reads_it(
    make_spec: MakeSpec, features: TextFeatures, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    features.write(folder)
    first = _plan(make_spec, tmp_path, str(folder))
    again = _plan(make_spec, tmp_path, str(folder))
    assert again == first
    replace(features, item_profile=features.item_profile.flip(1)).write(folder)
    after = _plan(make_spec, tmp_path, str(folder))
    assert after["counts"].name == first["counts"].name
    for label in ("semantic", "base", "above"):
        assert after[label].name != first[label].name, label
        assert after[label].arguments == first[label].arguments
    assert after["above"].pretrained == f"base/{after['base'].name}"


def test_what_reads_nothing_has_a_name_without_it(
    make_spec: MakeSpec, dataset: PreparedDataset, tmp_path: Path
) -> None:
    plain = _plan(make_spec, tmp_path, "tfidf-svd")
    assert plain["counts"].reads == ""
    for label in ("semantic", "base", "above"):
        assert plain[label].reads.startswith("tfidf-svd-8 (offline texts, ")
        assert replace(plain[label], reads="").name != plain[label].name


def test_a_finished_trial_says_what_it_read_and_serves_no_other_texts(
    make_spec: MakeSpec, dataset: PreparedDataset, features: TextFeatures, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    features.write(folder)
    spec = make_spec({"semantic": {"text": str(folder), "profile_width": WIDTH}}, seeds=[0])
    said = io.StringIO()
    options = RunOptions(out=tmp_path / "runs", devices="cpu")
    ((place, record),) = run_grid(spec, options, plain_console(file=said)).trials
    trial = Trial.from_config(read_config(place))
    assert record.status == "done", record.reason
    assert record.protocol["texts"] == trial.reads == describe_features(str(folder), dataset)
    assert [planned.state for planned in plan_grid(spec, options)] == ["done"]
    replace(features, user_profile=features.user_profile.flip(1)).write(folder)
    assert [planned.state for planned in plan_grid(spec, options)] == ["missing"]


def test_texts_that_have_changed_since_the_trial_was_named_are_refused(
    make_spec: MakeSpec, features: TextFeatures, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    features.write(folder)
    trial = _plan(make_spec, tmp_path, str(folder))["semantic"]
    write_config(trial.folder(tmp_path), trial)
    replace(features, user_profile=features.user_profile.flip(1)).write(folder)
    with pytest.raises(RequestError, match=r"semantic: reads tfidf-svd-8 .*, the trial is about"):
        run_trial(trial.folder(tmp_path), accelerator="cpu")
    assert not (trial.folder(tmp_path) / "result.json").exists()
