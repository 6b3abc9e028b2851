import pytest

from datamodules.errors import RequestError
from intentbench.contracts.test_card import _check_figure
from intentbench.models.card import Published


def test_recall_may_be_published_of_sets_and_of_single_items() -> None:
    for dataset in ("yelp-cf", "beauty"):
        _check_figure(Published(dataset, "recall@20", 0.1, "A Paper, table 2"), set())


def test_figure_in_a_metric_that_its_page_does_not_have_is_refused() -> None:
    _check_figure(Published("beauty", "hit_rate@20", 0.1, "A Paper, table 2"), set())
    with pytest.raises(RequestError, match="recall@k"):
        _check_figure(Published("yelp-cf", "hit_rate@20", 0.1, "A Paper, table 2"), set())
