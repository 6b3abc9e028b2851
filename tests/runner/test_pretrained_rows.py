"""Rows that start from the trained model of another row."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from datamodules.errors import RequestError
from intentbench.results.record import TrialRecord
from intentbench.results.store import CHECKPOINT, read_record, write_record
from intentbench.runner.config import read_config
from intentbench.runner.grid import RunOptions, choose_jobs, plan_grid, run_grid
from intentbench.spec import BenchmarkSpec, load_spec
from tests.runner.conftest import PLUGIN, MakeSpec, write_spec

BASE = {"method": "sasrec", "width": 8, "heads": 1, "blocks": 1, "loss": "ce"}
MODELS = {"above": {"pretrained": "base"}, "base": BASE}  # the one that waits stands first


@pytest.fixture(scope="module")
def finished(
    make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BenchmarkSpec, RunOptions, list[tuple[Path, TrialRecord]]]:
    options = RunOptions(out=tmp_path_factory.mktemp("runs"), devices="cpu", trials_per_device=2)
    spec = make_spec(MODELS)
    result = run_grid(spec, options, Console(file=io.StringIO()))
    assert result.failed == []
    return spec, options, result.trials


Finished = tuple[BenchmarkSpec, RunOptions, list[tuple[Path, TrialRecord]]]


def test_each_seed_starts_from_the_base_of_its_own_seed(finished: Finished) -> None:
    _, _, trials = finished
    places = {(record.label, record.seed): folder for folder, record in trials}
    for seed in (0, 1):
        folder, base = places["above", seed], places["base", seed]
        assert read_config(folder)["trial"]["pretrained"] == f"base/{base.name}"
        states = [
            torch.load(place / CHECKPOINT, weights_only=True)["state_dict"]
            for place in (folder, base)
        ]
        for name, value in states[1].items():
            assert torch.equal(states[0][f"base.{name}"], value)
    different = [
        torch.load(places["base", seed] / CHECKPOINT, weights_only=True)["state_dict"]
        for seed in (0, 1)
    ]
    assert not torch.equal(
        different[0]["encoder.items.weight"], different[1]["encoder.items.weight"]
    )


def test_what_the_base_cost_is_part_of_the_cost(finished: Finished) -> None:
    trials = {(record.label, record.seed): record for _, record in finished[2]}
    for seed in (0, 1):
        above, base = trials["above", seed], trials["base", seed]
        assert above.cost.seconds > base.cost.seconds
        assert above.finished > base.finished
        assert above.arguments["encoder"] == "sasrec"
        assert above.arguments["encoder_arguments"]["width"] == 8


def test_choosing_the_row_chooses_what_it_starts_from(tmp_path: Path) -> None:
    path = write_spec(tmp_path, {**MODELS, "toy": {}})
    spec = load_spec(path, models=["above"], plugin=PLUGIN)
    assert [entrant.label for entrant in spec.entrants] == ["above", "base"]


def test_another_base_makes_another_trial(finished: Finished, make_spec: MakeSpec) -> None:
    spec, options, _ = finished
    names = {planned.job.trial.name for planned in plan_grid(spec, options)}
    changed = make_spec({**MODELS, "base": {**BASE, "dropout": 0.1}})
    assert names.isdisjoint(planned.job.trial.name for planned in plan_grid(changed, options))


def test_a_base_without_checkpoint_is_trained_again_only_where_it_is_needed(
    finished: Finished, tmp_path: Path
) -> None:
    spec, options, _ = finished
    copied = replace(options, out=tmp_path / "runs")
    shutil.copytree(options.out, copied.out)
    for checkpoint in copied.out.rglob(f"base/*/{CHECKPOINT}"):
        checkpoint.unlink()
    assert choose_jobs(plan_grid(spec, copied), rerun_stale=False) == []
    (above,) = [
        p for p in plan_grid(spec, copied) if (p.job.trial.label, p.job.trial.seed) == ("above", 1)
    ]
    shutil.rmtree(above.job.folder)
    jobs = choose_jobs(plan_grid(spec, copied), rerun_stale=False)
    assert [(job.trial.label, job.trial.seed) for job in jobs] == [("above", 1), ("base", 1)]


def test_a_base_of_other_code_is_trained_again_and_what_starts_from_it_follows(
    finished: Finished, tmp_path: Path
) -> None:
    spec, options, _ = finished
    copied = replace(options, out=tmp_path / "runs")
    shutil.copytree(options.out, copied.out)
    grid = plan_grid(spec, copied)
    base = next(p for p in grid if (p.job.trial.label, p.job.trial.seed) == ("base", 0))
    assert base.record is not None
    write_record(base.job.folder, replace(base.record, code="another"))
    grid = plan_grid(spec, copied)
    assert choose_jobs(grid, rerun_stale=False) == []
    both = [("above", 0), ("base", 0)]
    jobs = choose_jobs(grid, rerun_stale=True)
    assert [(job.trial.label, job.trial.seed) for job in jobs] == both
    shutil.rmtree(next(p.job.folder for p in grid if p.job.after == base.job.folder))
    jobs = choose_jobs(plan_grid(spec, copied), rerun_stale=False)
    assert [(job.trial.label, job.trial.seed) for job in jobs] == both


def test_a_base_that_failed_is_named(finished: Finished, tmp_path: Path) -> None:
    spec, options, _ = finished
    copied = replace(options, out=tmp_path / "runs", devices="cpu")
    shutil.copytree(options.out, copied.out)
    first = next(p for p in plan_grid(spec, copied) if p.job.trial.label == "above")
    assert first.job.after is not None
    base = read_record(first.job.after)
    assert base is not None
    shutil.rmtree(first.job.folder)
    write_record(first.job.after, replace(base, status="failed"))
    (first.job.after / CHECKPOINT).touch()
    only = replace(spec, entrants=tuple(e for e in spec.entrants if e.label == "above"))
    result = run_grid(only, copied, Console(file=io.StringIO()))
    (failed,) = result.failed
    assert "above: starts from base/" in failed.reason
    assert "has not finished" in failed.reason


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"above": {"pretrained": "bas"}, "base": BASE}, "unknown row 'bas'; did you mean 'base'?"),
        ({"toy": {"pretrained": "base"}, "base": BASE}, "'toy' starts from no other method"),
        ({"above": {"pretrained": ["base"]}, "base": BASE}, "unknown row \\['base'\\]"),
        ({"above": {"pretrained": "toy"}, "toy": {}}, "cannot read 'toy', only SASRec, GRU4Rec"),
        (
            {"above": {"pretrained": "base", "encoder": "gru4rec"}, "base": BASE},
            "above.encoder: follows from `pretrained`",
        ),
        (
            {
                "above": {
                    "pretrained": "base",
                    "noise": {"kinds": ["swap"], "rates": [0.2], "train": True},
                },
                "base": BASE,
            },
            "'base' is trained on clean data",
        ),
        (
            {**MODELS, "two": {"method": "above", "pretrained": "above"}},
            "'above' starts from another row itself",
        ),
        (
            {"above": {"pretrained": "base"}, "base": {**BASE, "data": {"window": 10}}},
            "'base' has a window of 10 items, 'above' of 50",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    models: dict[str, object], message: str, make_spec: MakeSpec
) -> None:
    with pytest.raises(RequestError, match=message.replace("?", r"\?")):
        make_spec(models)
