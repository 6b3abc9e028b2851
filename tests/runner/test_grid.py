import dataclasses
import io
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.console import plain_console
from datamodules.errors import RequestError
from intentbench.results.store import (
    LOG,
    RANKS,
    RESULT,
    load_ranks,
    load_records,
    read_record,
    write_record,
)
from intentbench.runner import grid
from intentbench.runner.grid import GridResult, RunOptions, plan_grid, run_grid
from tests.runner.conftest import MakeSpec
from tests.runner.toy_plugin import Toy

MODELS = {"counts": {}, "toy": {"scales": [1, 2]}}


def run(make_spec: MakeSpec, options: RunOptions) -> tuple[GridResult, str]:
    text = io.StringIO()
    result = run_grid(make_spec(MODELS), options, plain_console(file=text))
    return result, text.getvalue()


@pytest.fixture(scope="module")
def finished(
    make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunOptions, GridResult, str]:
    options = RunOptions(out=tmp_path_factory.mktemp("runs"), devices="cpu")
    return options, *run(make_spec, options)


def test_grid_of_two_methods_and_two_seeds_is_recorded(
    finished: tuple[RunOptions, GridResult, str],
) -> None:
    options, result, text = finished
    assert result.failed == []
    cells = [(record.label, record.seed, record.status) for _, record in result.trials]
    # The deterministic method runs once.
    assert cells == [("counts", 0, "done"), ("toy", 0, "done"), ("toy", 1, "done")]
    assert dict(load_records(options.out)) == dict(result.trials)
    assert "3 trials (3 missing)" in text
    assert text.count("done   ") == 3


def test_record_says_what_ran_and_what_it_cost(
    finished: tuple[RunOptions, GridResult, str],
) -> None:
    _, result, _ = finished
    (_, counts), (_, toy), _ = result.trials
    assert toy.arguments == {
        "n_items": toy.statistics["items"],
        "n_users": 64,
        "window": 50,
        "width": 8,
        "scales": [1.0, 2.0],
        "fault": "",
    }
    assert toy.card["title"] == "Toy"
    assert toy.protocol["split"] == "leave_one_out"
    assert (toy.cost.epochs, counts.cost.epochs, counts.best_epoch) == (2, 0, -1)
    assert toy.best_epoch in (0, 1)
    assert toy.cost.parameters == 2 * 8 * (toy.arguments["n_items"] + 1)
    assert toy.cost.seconds > toy.cost.seconds_per_epoch > 0
    assert min(toy.cost.latency_1, toy.cost.latency_256, toy.cost.peak_memory_mb) > 0
    assert toy.environment["packages"]["torch"] == torch.__version__
    assert toy.code
    assert toy.finished > "2025"


def test_metrics_follow_from_the_stored_ranks(
    finished: tuple[RunOptions, GridResult, str],
) -> None:
    _, result, _ = finished
    for folder, record in result.trials:
        ranks = load_ranks(folder)["rank"].tolist()
        assert len(ranks) == 64
        ndcg = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 10) / len(ranks)
        assert record.metrics["ndcg@10"] == pytest.approx(ndcg, abs=1e-12)
        assert record.metrics["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / 64)


def test_folder_holds_all_that_a_trial_leaves(
    finished: tuple[RunOptions, GridResult, str],
) -> None:
    _, result, _ = finished
    for folder, record in result.trials:
        assert folder.name == record.trial
        assert folder.parts[-3:-1] == ("synthetic-tiny", record.label)
        assert list((folder / "events").glob("events.out.tfevents.*"))
        state = torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]
        if record.label == "toy":
            model = Toy(record.arguments["n_items"], 64, 50, scales=(1.0, 2.0))
            model.load_state_dict(state)


def test_second_run_does_nothing(
    make_spec: MakeSpec, finished: tuple[RunOptions, GridResult, str]
) -> None:
    options, first, _ = finished
    before = {folder: (folder / "result.json").stat().st_mtime_ns for folder, _ in first.trials}
    again, text = run(make_spec, options)
    assert "nothing to do" in text
    assert again.trials == first.trials
    for folder, time in before.items():
        assert (folder / "result.json").stat().st_mtime_ns == time


def test_same_seed_gives_the_same_ranks_in_another_place(
    make_spec: MakeSpec, finished: tuple[RunOptions, GridResult, str], tmp_path: Path
) -> None:
    again, _ = run(make_spec, RunOptions(out=tmp_path, devices="cpu"))
    for (old, _), (new, _) in zip(finished[1].trials, again.trials, strict=True):
        np.testing.assert_array_equal(load_ranks(old)["rank"], load_ranks(new)["rank"])
    _, (first, _), (second, _) = again.trials
    assert (load_ranks(first)["rank"] != load_ranks(second)["rank"]).any()


def test_changed_code_is_shown_and_rerun_only_on_request(
    make_spec: MakeSpec,
    finished: tuple[RunOptions, GridResult, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options, first, _ = finished
    monkeypatch.setattr(grid, "code_fingerprint", lambda _: "other")
    shown, text = run(make_spec, options)
    assert "3 stale" in text
    assert "--rerun-stale" in text
    assert "nothing to do" in text
    assert shown.trials == first.trials
    rerun, _ = run(make_spec, dataclasses.replace(options, rerun_stale=True))
    assert [record.code for _, record in rerun.trials] == ["other"] * 3
    for (_, old), (_, new) in zip(first.trials, rerun.trials, strict=True):
        assert new.finished > old.finished
        assert new.metrics == old.metrics


def test_dry_run_only_lists(make_spec: MakeSpec, tmp_path: Path) -> None:
    result, text = run(make_spec, RunOptions(out=tmp_path, devices="cpu", dry_run=True))
    assert result.trials == []
    assert list(tmp_path.iterdir()) == []
    assert "missing synthetic-tiny toy seed 1  no past" in text
    assert "and what 3 without a past take" in text


def test_dry_run_estimates_from_what_there_is(
    make_spec: MakeSpec, finished: tuple[RunOptions, GridResult, str], tmp_path: Path
) -> None:
    options = RunOptions(out=tmp_path / "runs", devices="cpu", dry_run=True)
    shutil.copytree(finished[0].out, options.out)
    first, second = (
        options.out / folder.relative_to(finished[0].out) for folder, _ in finished[1].trials[1:]
    )
    (first / RESULT).unlink()
    record = read_record(second)  # another test may have run it again
    assert record is not None
    _, text = run(make_spec, options)
    assert f"missing synthetic-tiny toy seed 0  about {record.cost.seconds:.1f} s" in text
    assert "done" not in text.split("\n", 1)[1]


def test_damaged_trials_are_set_aside_and_made_anew(
    make_spec: MakeSpec, finished: tuple[RunOptions, GridResult, str], tmp_path: Path
) -> None:
    options = dataclasses.replace(finished[0], out=tmp_path / "runs")
    shutil.copytree(finished[0].out, options.out)
    counts, first, second = [
        options.out / folder.relative_to(finished[0].out) for folder, _ in finished[1].trials
    ]
    ranks = {folder: load_ranks(folder)["rank"] for folder in (counts, first, second)}
    text = (counts / RESULT).read_text()
    (counts / RESULT).write_text(text[: len(text) // 2])
    whole = (first / RANKS).read_bytes()
    (first / RANKS).write_bytes(whole[: len(whole) // 2])
    (second / RESULT).write_text((first / RESULT).read_text())
    dry, plan = run(make_spec, dataclasses.replace(options, dry_run=True))
    assert dry.trials == []
    assert "3 trials (3 damaged)" in plan
    assert plan.count("damaged, set aside and run again: ") == 3
    assert not list(options.out.rglob("*.damaged"))
    again, _ = run(make_spec, options)
    assert [record.status for _, record in again.trials] == ["done"] * 3
    for folder in (counts, first, second):
        np.testing.assert_array_equal(load_ranks(folder)["rank"], ranks[folder])
        assert (folder / f"{RESULT}.damaged").exists()
    assert (counts / f"{RESULT}.damaged").read_text() == text[: len(text) // 2]
    assert (first / f"{RANKS}.damaged").read_bytes() == whole[: len(whole) // 2]
    assert "nothing to do" in run(make_spec, options)[1]


def test_clock_that_was_set_back_loses_and_repeats_nothing(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    options = RunOptions(out=tmp_path, devices="cpu")
    spec = make_spec({"toy": {"fault": "clock"}}, seeds=[0])
    (planned,) = plan_grid(spec, options)
    ahead = dataclasses.replace(planned.job.failed("lost"), finished="2999-01-01T00:00:00")
    write_record(planned.job.folder, ahead)
    for _ in range(2):
        result = run_grid(spec, options, plain_console(file=io.StringIO()))
        ((_, record),) = result.trials
        assert (record.status, record.finished[:4]) == ("done", "1999")
    assert (planned.job.folder / LOG).read_text().count("--- attempt") == 1


def test_plan_says_what_is_there(make_spec: MakeSpec, tmp_path: Path) -> None:
    planned = plan_grid(make_spec(MODELS), RunOptions(out=tmp_path))
    assert [cell.state for cell in planned] == ["missing"] * 3
    assert all(read_record(cell.job.folder) is None for cell in planned)


def test_feature_that_the_data_lacks_is_a_request_error(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(MODELS)
    cls = spec.entrants[1].cls
    monkeypatch.setattr(cls, "CARD", dataclasses.replace(cls.CARD, needs=("item.colour",)))
    with pytest.raises(RequestError, match=r"toy: needs item\.colour"):
        plan_grid(spec, RunOptions(out=tmp_path))


def test_a_row_that_cannot_be_built_is_refused_before_any_trains(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec({"counts": {}, "toy": {"width": -1}})
    with pytest.raises(RequestError, match=r"^toy on \S+ cannot be built: RuntimeError: .*-1"):
        run_grid(spec, RunOptions(out=tmp_path, devices="cpu"), plain_console(file=io.StringIO()))
    assert list(tmp_path.rglob(RESULT)) == []
