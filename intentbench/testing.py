"""For a team's own tests: assert that runs are no worse than the baseline that was accepted."""

from pathlib import Path

from intentbench.reports.gate import check_runs
from intentbench.reports.gate_text import render_text
from intentbench.stats.gate import MARGIN, Verdict


def assert_no_worse(
    runs: str | Path, baseline: str | Path, margin: float = MARGIN, metric: str | None = None
) -> None:
    """Fail unless every row of the baseline passes the regression gate.

    A test of a team's own, on runs that an earlier step has made with `intentbench run`:

        from intentbench.testing import assert_no_worse

        def test_recommender_is_no_worse() -> None:
            assert_no_worse("runs", "baseline.npz", margin=0.05)

    Args:
        runs: folder of runs, or of published ranks.
        baseline: file that `intentbench check --update` wrote, or folder of published ranks.
        margin: share of the baseline's mean that may be lost.
        metric: such as "hit_rate@10"; None for that which a page tests.

    Raises:
        AssertionError: a row is worse, or the runs cannot tell; the message says which and why.
        RequestError: see `intentbench.reports.gate.check_runs`.
    """
    __tracebackhide__ = True  # pytest then points at the test
    report = check_runs(Path(runs), Path(baseline), margin, metric)
    if report.verdict is not Verdict.PASS:
        raise AssertionError(render_text(report))
