from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import yaml

from intentbench.spec import BenchmarkSpec, load_spec

if TYPE_CHECKING:
    from tests.runner.orders import Local

PLUGIN = Path(__file__).parent / "toy_plugin.py"


class MakeSpec(Protocol):
    def __call__(self, models: dict[str, Any], **more: Any) -> BenchmarkSpec: ...


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTENTBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make_spec(tmp_path_factory: pytest.TempPathFactory) -> MakeSpec:
    """Builds a checked spec on the tiny synthetic dataset."""

    def make(models: dict[str, Any], **more: Any) -> BenchmarkSpec:
        path = write_spec(tmp_path_factory.mktemp("spec"), models, **more)
        return load_spec(path, plugin=PLUGIN)

    return make


def write_spec(folder: Path, models: dict[str, Any], **more: Any) -> Path:
    raw = {
        "name": "toys",
        "datasets": ["synthetic-tiny"],
        "models": models,
        "seeds": [0, 1],
        "training": {"max_epochs": 2},
        "data": {"batch_size": 32},
        **more,
    }
    path = folder / "toys.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def local(make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> "Local":
    """The trials of `orders.MODELS`, done by the local executor."""
    from tests.runner.orders import MODELS, run_locally

    return run_locally(make_spec(MODELS, seeds=[0]), tmp_path_factory.mktemp("local"))


@pytest.fixture
def ray_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that Ray sets, put back after a test."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
