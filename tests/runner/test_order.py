import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from intentbench.results.record import Cost, TrialRecord
from intentbench.results.store import write_record
from intentbench.runner.jobs import Job
from intentbench.runner.order import Row, describe_order, order_jobs, past_seconds

DONE = TrialRecord("t", "done", "data", "f", "row", "toy", 0)


def make_job(label: str, seed: int = 0, after: Job | None = None, root: Path = Path()) -> Job:
    trial = SimpleNamespace(dataset="data", label=label, seed=seed)
    folder = root / "data" / label / f"{label}{seed}"
    return cast(
        "Job", SimpleNamespace(trial=trial, folder=folder, after=after.folder if after else None)
    )


def leave_record(root: Path, label: str, name: str, **parts: Any) -> None:
    record = replace(DONE, trial=name, label=label, **parts)
    write_record(root / "data" / label / name, record)


def names(jobs: list[Job]) -> list[str]:
    return [job.folder.name for job in jobs]


def past(**seconds: float) -> dict[Row, float]:
    return {("data", label): value for label, value in seconds.items()}


def test_the_longest_goes_first_and_equals_keep_their_order() -> None:
    jobs = [make_job(label, seed) for label in ("short", "long") for seed in (1, 0)]
    ordered = order_jobs(jobs, past(short=1, long=9))
    assert names(ordered) == ["long1", "long0", "short1", "short0"]


def test_a_row_without_a_past_goes_before_all_others() -> None:
    jobs = [make_job("long"), make_job("new"), make_job("newer")]
    assert names(order_jobs(jobs, past(long=999))) == ["new0", "newer0", "long0"]


def test_what_others_start_from_counts_with_what_follows_it() -> None:
    base = make_job("base")
    jobs = [make_job("long"), make_job("above", after=base), make_job("short"), base]
    # 1 + 9 hang on base, more than long takes; above itself is shorter than long
    ordered = order_jobs(jobs, past(long=9.5, above=9, short=0.5, base=1))
    assert names(ordered) == ["base0", "long0", "above0", "short0"]


def test_a_base_precedes_what_starts_from_it_whatever_is_known() -> None:
    base = make_job("base")
    above = make_job("above", after=base)
    for known in ({}, past(base=1), past(above=1), past(base=1, above=0), past(base=0, above=0)):
        assert names(order_jobs([above, base], known)) == ["base0", "above0"]


def test_order_is_by_the_length_of_the_chain_on_random_grids() -> None:
    draw = random.Random(0)
    for _ in range(50):
        bases = [make_job(f"b{n}") for n in range(4)]
        above = [make_job(f"a{n}", after=draw.choice([*bases, None])) for n in range(8)]
        jobs = [*bases, *above]
        draw.shuffle(jobs)
        cost = {job.folder: draw.randrange(5) for job in jobs}
        known = {("data", job.folder.parent.name): float(cost[job.folder]) for job in jobs}

        def length(job: Job, jobs: list[Job] = jobs, cost: dict[Path, int] = cost) -> float:
            after = [length(other, jobs, cost) for other in jobs if other.after == job.folder]
            return cost[job.folder] + max(after, default=0)

        ordered = order_jobs(jobs, known)
        assert sorted(names(ordered)) == sorted(names(jobs))
        assert all(length(one) >= length(two) for one, two in pairwise(ordered))
        place = {job.folder: number for number, job in enumerate(ordered)}
        assert all(place[job.after] < place[job.folder] for job in jobs if job.after)
        assert names(order_jobs(jobs, known)) == names(ordered)


def test_the_past_of_a_row_is_its_newest_trial(tmp_path: Path) -> None:
    leave_record(tmp_path, "row", "old", cost=Cost(seconds=5), finished="2026-01-01")
    leave_record(tmp_path, "row", "new", cost=Cost(seconds=7), finished="2026-01-02")
    leave_record(tmp_path, "row", "bad", cost=Cost(), finished="2026-01-03", status="failed")
    (tmp_path / "data" / "row" / "torn").mkdir()
    (tmp_path / "data" / "row" / "torn" / "result.json").write_text('{"sch')
    jobs = [make_job("row", root=tmp_path), make_job("other", root=tmp_path)]
    assert past_seconds(jobs) == past(row=7)


def test_the_past_leaves_out_what_the_base_took(tmp_path: Path) -> None:
    base = make_job("base", root=tmp_path)
    above = make_job("above", after=base, root=tmp_path)
    leave_record(tmp_path, "above", "one", cost=Cost(seconds=10))
    assert past_seconds([above]) == past(above=10)
    leave_record(tmp_path, "base", "one", cost=Cost(seconds=8))
    assert past_seconds([above]) == past(above=2, base=8)
    leave_record(tmp_path, "base", "two", cost=Cost(seconds=12), finished="2026")
    assert past_seconds([above, base]) == past(above=0, base=12)


def test_order_is_told_with_its_estimates() -> None:
    jobs = [make_job("new"), make_job("long"), make_job("short")]
    states = {job.folder: "missing" for job in jobs}
    lines = list(describe_order(jobs, states, past(long=100, short=20.04), 2))
    assert lines == [
        "missing data new seed 0  no past  data/new/new0",
        "missing data long seed 0  about 100.0 s  data/long/long0",
        "missing data short seed 0  about 20.0 s  data/short/short0",
        "3 trials in 2 slots: about 0:01:00, and what 1 without a past take",
    ]
    assert next(describe_order(jobs[1:2], states, past(long=1), 4)).endswith("data/long/long0")


@pytest.mark.parametrize("count", [0, 1])
def test_few_trials_are_no_special_case(count: int) -> None:
    assert len(order_jobs([make_job("row")][:count], {})) == count
