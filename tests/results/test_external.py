import pytest

from datamodules.errors import RequestError
from intentbench.results.external import DEPTH, EXTERNAL, gives_metric, require_metric
from intentbench.results.record import TrialRecord


def _record(method: str, card: dict[str, object]) -> TrialRecord:
    return TrialRecord("t", "done", "beauty", "f", "row", method, 0, card=card)


@pytest.mark.parametrize(
    ("metric", "known"),
    [("ndcg@10", True), ("hit_rate@20", True), ("recall@21", False), ("mrr", False)],
)
def test_lists_give_metrics_down_to_their_depth(metric: str, known: bool) -> None:
    assert gives_metric(_record(EXTERNAL, {DEPTH: 20}), metric) is known
    assert gives_metric(_record(EXTERNAL, {}), metric)
    assert gives_metric(_record("sasrec", {DEPTH: 20}), metric)


def test_a_metric_that_lists_do_not_give_is_refused_in_one_line() -> None:
    cut, whole = _record(EXTERNAL, {DEPTH: 20}), _record("sasrec", {})
    require_metric([whole, cut], "ndcg@20")
    line = "^beauty: row was imported from lists that are too short to give ndcg@21$"
    with pytest.raises(RequestError, match=line):
        require_metric([whole, cut], "ndcg@21")
