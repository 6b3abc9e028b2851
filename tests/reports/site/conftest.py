from dataclasses import replace
from pathlib import Path

import pytest

from intentbench.reports.archive import write_archive
from intentbench.reports.cells import build_tables, read_results
from intentbench.reports.plan import Plan
from intentbench.reports.site.build import write_site
from tests.reports.fake_runs import (
    GRU,
    KNN,
    ORACLE,
    POPULARITY,
    SASREC,
    SASREC_BCE,
    FakeModel,
    write_failure,
    write_runs,
    write_trial,
)

HOSTILE = '<script>alert("x")<&script>`|*__'
"""A label that would like to be HTML, Markdown, a table and an address."""

USERS = 120


@pytest.fixture(scope="session")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two leaderboards: many rows with gaps, a failure, groups and a sweep; and a hostile one."""
    root = tmp_path_factory.mktemp("boards")
    wide = root / "runs" / "wide"
    weak = [
        replace(SASREC, label=f"width_{n}", strength=1.0 + n / 50, arguments=(("width", n),))
        for n in (8, 16, 32, 64)
    ]
    write_runs(wide, [POPULARITY, KNN, SASREC, SASREC_BCE, *weak], ["beauty"], n_users=USERS)
    write_trial(wide, GRU, "beauty", 0, USERS, curve=[0.1, 0.3, 0.2])
    write_failure(wide, GRU, "beauty", 1, "NonFiniteScoresError: <nan>")
    write_runs(wide, [POPULARITY, KNN, SASREC, ORACLE], ["synthetic"], n_users=USERS)
    plan = Plan(
        title="A board & more",
        reference="sasrec_ce_all",
        datasets=("beauty", "synthetic", "toys"),
        labels=("never_run",),
        seeds=(0, 1, 2),
        command="intentbench run benchmarks/wide.yaml",
        groups=3,
    )
    ranks = root / "leaderboards" / "ranks"
    write_archive(ranks / "wide", "wide", plan, build_tables(read_results(wide)))
    odd = root / "runs" / "odd"
    evil = FakeModel(
        HOSTILE,
        1.4,
        method="../<i>evil",
        deviations=("<img src=x onerror=alert(1)> & [a](javascript:alert(1))",),
        published=(
            {
                "dataset": "</script><script>alert(2)</script>",
                "metric": "ndcg@10",
                "value": 0.2,
                "source": "doi:10.1/<b>, arXiv:2501.00001",
                "when": {},
            },
        ),
    )
    write_runs(odd, [KNN, evil], ["beauty"], n_users=USERS)
    plan = Plan(title="</title><b>odd")
    write_archive(ranks / "odd", "odd", plan, build_tables(read_results(odd)))
    return root / "leaderboards"


@pytest.fixture(scope="session")
def site(boards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of these leaderboards."""
    out = tmp_path_factory.mktemp("site")
    write_site([boards], out)
    return out
