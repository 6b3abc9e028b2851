"""A published trial is built again from its record alone, down to its name."""

import io
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from rich.console import Console

from datamodules.errors import RequestError
from intentbench.reports.archive import read_archive
from intentbench.reports.cells import attach_ranks
from intentbench.reports.reproduction import compare_trials
from intentbench.results.record import TrialRecord, parse_record
from intentbench.runner.executors import run_local
from intentbench.runner.grid import RunOptions, plan_grid, run_grid
from intentbench.runner.progress import Progress
from intentbench.runner.reproduction import choose_slot, plan_reproduction
from tests.runner.conftest import PLUGIN, MakeSpec

BASE = {"method": "sasrec", "width": 8, "heads": 1, "blocks": 1, "loss": "ce"}
BOARDS = Path(__file__).parents[2] / "leaderboards" / "ranks"


def _from_disk(record: TrialRecord) -> TrialRecord:
    return parse_record(record.to_json())


@pytest.fixture
def records(make_spec: MakeSpec, tmp_path: Path) -> list[TrialRecord]:
    """Trials of every kind, as if they were done; none of them is run."""
    models = {
        "above": {"pretrained": "base"},
        "base": BASE,
        "other": {**BASE, "width": 16},
        "popularity": {},
        "noisy": {"method": "bpr_mf", "noise": {"kinds": ["swap", "delete"], "rates": [0.1, 0.2]}},
    }
    found = []
    for planned in plan_grid(make_spec(models), RunOptions(tmp_path)):
        trial = planned.job.trial
        noise = [
            {
                "protocol": "test",
                "kind": kind,
                "rate": rate,
                "rounding": trial.noise["rounding"],
                "seed": trial.noise["seed"],
            }
            for kind, rate in product(trial.noise.get("kinds", ()), trial.noise.get("rates", ()))
        ]
        record = replace(planned.job.blank, status="done", noise=noise)
        found.append(_from_disk(record))
    return found


def test_every_kind_of_trial_gets_its_name_again(
    records: list[TrialRecord], tmp_path: Path
) -> None:
    for record in records:
        jobs = plan_reproduction(record, records, RunOptions(tmp_path / "again"), PLUGIN)
        trial = jobs[-1].trial
        assert trial.name == record.trial
        assert (trial.label, trial.seed, trial.code) == (record.label, record.seed, record.code)
        assert trial.training.settings() == record.training
        starts = [job.trial.label for job in jobs[:-1]]
        assert starts == (["base"] if record.label == "above" else [])
        if starts:
            assert jobs[-1].after == jobs[0].folder
            (base,) = (r for r in records if (r.label, r.seed) == ("base", record.seed))
            assert jobs[0].trial.name == base.trial


def test_quickstart_is_built_again_as_it_was_published(tmp_path: Path) -> None:
    records = [record for record, _ in read_archive(BOARDS / "quickstart")[2]]
    methods = [record for record in records if record.method != "oracle"]
    for record in methods:
        (job,) = plan_reproduction(record, records, RunOptions(tmp_path))
        assert job.trial.name == record.trial


def test_what_a_trial_started_from_is_trained_first_and_gives_the_same_ranks(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    models = {"above": {"pretrained": "base"}, "base": BASE}
    spec = make_spec(models, seeds=[1])
    options = RunOptions(tmp_path / "runs", devices="cpu", trials_per_device=2)
    trials = run_grid(spec, options, Console(file=io.StringIO())).trials
    results = {record.label: (record, ranks) for record, ranks in attach_ranks(trials)}
    record = _from_disk(results["above"][0])
    board = [_from_disk(found) for found, _ in results.values()]

    jobs = plan_reproduction(record, board, RunOptions(tmp_path / "again"), PLUGIN)
    slot = choose_slot(record, "auto")
    assert (slot.device, slot.threads) == ("", record.environment["threads"])
    with Progress(Console(file=io.StringIO()), 2, 1) as progress:
        made = {job.trial.label: found for job, found in run_local(jobs, [slot], None, progress)}
    for label, job in zip(("base", "above"), jobs, strict=True):
        (again,) = attach_ranks([(job.folder, made[label])])
        assert compare_trials(results[label], again).equal
    with pytest.raises(RequestError, match="starts from a trained 'sasrec', of which its board"):
        plan_reproduction(record, [record], RunOptions(tmp_path / "none"), PLUGIN)


def test_another_version_is_seen_by_the_name(records: list[TrialRecord], tmp_path: Path) -> None:
    """A record whose values were changed no longer gives the name that it states."""
    (record,) = (r for r in records if (r.label, r.seed) == ("base", 0))
    changed = replace(record, arguments={**record.arguments, "width": 4})
    (job,) = plan_reproduction(changed, records, RunOptions(tmp_path), PLUGIN)
    assert job.trial.name != record.trial


def test_what_cannot_be_had_is_refused(records: list[TrialRecord], tmp_path: Path) -> None:
    record, options = next(r for r in records if r.label == "popularity"), RunOptions(tmp_path)
    for changes, words in (
        ({"dataset": "mine"}, "its data is in no catalogue"),
        ({"data_fingerprint": "f" * 64}, "was trained on data ffffffffffffffff, prepared here"),
        ({"method": "unheard"}, "unknown method 'unheard'"),
        ({"protocol": {"texts": "titles 1234"}}, "read titles 1234, here it would read none"),
        ({"training": {**record.training, "warmth": 1}}, "its training has 'warmth'"),
    ):
        with pytest.raises(RequestError, match=words):
            plan_reproduction(replace(record, **changes), records, options, PLUGIN)
    with pytest.raises(RequestError, match="unknown method"):
        plan_reproduction(next(r for r in records if r.label == "above"), records, options)
