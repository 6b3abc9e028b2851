"""Metrics looked up by rank are those of the definitions."""

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.metrics import users
from intentbench.metrics.users import SETS, metric_names
from intentbench.reports.values import check_metrics, mean_metrics, user_values


@pytest.mark.parametrize("history", ["", SETS])
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("several", [False, True])
def test_values_equal_the_definitions(history: str, dtype: str, several: bool) -> None:
    generator = np.random.default_rng(3)
    user = np.sort(generator.integers(0, 40, 90)) if several else np.arange(0, 180, 2)
    ranks = generator.integers(1, 60, (2, 3, 90)).astype(dtype)
    ranks[0, 0, :2] = 1, 2**16 - 1
    for metric in metric_names(history):
        expected = users.user_values(metric, user, ranks, history)
        np.testing.assert_array_equal(user_values(metric, user, ranks, history), expected)
        means = mean_metrics(user, ranks[0], history)[metric]
        assert means == pytest.approx(expected[0].mean(axis=-1), rel=1e-15)


def test_no_such_metric_is_refused() -> None:
    with pytest.raises(RequestError, match="no metric 'auc'"):
        user_values("auc", np.arange(3), np.ones(3, np.uint16), "")


def test_the_trial_that_recorded_something_else_is_named() -> None:
    found = {"mrr": np.array([0.5, 0.25]), "ndcg@5": np.array([0.1, 0.2])}
    check_metrics([{"mrr": 0.5}, {"ndcg@5": 0.2, "other": 9.0}], found, ["one", "two"])
    for wrong in (0.3, float("nan")):
        with pytest.raises(RequestError, match=r"two: recorded mrr .*, its ranks give 0\.250000"):
            check_metrics([{"mrr": 0.5}, {"mrr": wrong}], found, ["one", "two"])
