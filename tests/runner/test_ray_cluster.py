"""How a cluster is found and divided."""

import sys
from typing import Any

import pytest

from datamodules.errors import RequestError
from intentbench.runner.ray_cluster import ClusterOptions, Share, connected, plan_share
from tests.runner.orders import NOWHERE

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'intentbench[ray]'")
pytestmark = pytest.mark.usefixtures("ray_variables")


def cluster_options(**more: Any) -> ClusterOptions:
    given = {"address": "auto", "out": NOWHERE, "devices": "auto", "trials_per_device": None}
    return ClusterOptions(**{**given, "trials": 100, **more})


@pytest.mark.parametrize(
    ("nodes", "options", "share"),
    [
        ([{"CPU": 4}, {"CPU": 8}], {}, Share(threads=1, gpus=0, slots=12)),
        ([{"CPU": 4}, {"CPU": 8}], {"trials": 3}, Share(threads=4, gpus=0, slots=3)),
        ([{"CPU": 4}, {"CPU": 8}], {"trials_per_device": 2}, Share(threads=2, gpus=0, slots=6)),
        ([{}, {"CPU": 2}], {"trials": 1}, Share(threads=2, gpus=0, slots=1)),
        ([{"memory": 1e9}], {}, Share(threads=1, gpus=0, slots=1)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 64}], {}, Share(threads=4, gpus=1, slots=4)),
        (
            [{"CPU": 16, "GPU": 4}, {"CPU": 8, "GPU": 1}],
            {"trials_per_device": 2},
            Share(threads=2, gpus=0.5, slots=10),
        ),
        ([{"CPU": 2, "GPU": 4}], {"devices": "cpu"}, Share(threads=1, gpus=0, slots=2)),
        ([{"CPU": 2, "GPU": 4}], {}, Share(threads=1, gpus=1, slots=4)),
    ],
)
def test_cluster_is_divided(
    nodes: list[dict[str, float]], options: dict[str, Any], share: Share
) -> None:
    assert plan_share(nodes, cluster_options(**options)) == share


@pytest.mark.parametrize(
    ("options", "words"),
    [({"devices": "0,1"}, "Ray chooses them"), ({"trials_per_device": 0}, "at least 1")],
)
def test_shares_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        plan_share([{"CPU": 4}], cluster_options(**options))


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"pip install 'intentbench\[ray\]'"), connected("auto"):
        pass


def test_clusters_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(RequestError, match=r"--address auto: .*instance\.; start a cluster"),
        connected("auto"),
    ):
        pass
