"""Each test that takes `subject` runs once a method."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from intentbench.contracts.subject import Subject
from intentbench.models import load_method, method_table
from intentbench.models.base import Recommender
from intentbench.runner.plugin import load_plugin


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise by method: those of the plugins where there are any, else all."""
    if "subject" in metafunc.fixturenames:
        keys = [*_plugin_methods(metafunc.config)] or [*method_table()]
        metafunc.parametrize("subject", keys, indirect=True)


def _plugin_methods(config: pytest.Config) -> dict[str, type[Recommender]]:
    files = config.getoption("--intentbench-plugin", [])  # [] where the plugin is not installed
    return {key: cls for file in files for key, cls in load_plugin(Path(file)).items()}


@pytest.fixture(scope="session")
def plugin_files(pytestconfig: pytest.Config) -> list[Path]:
    """The files named by `--intentbench-plugin`."""
    return [Path(file) for file in pytestconfig.getoption("--intentbench-plugin", [])]


@pytest.fixture(scope="session")
def method_targets(pytestconfig: pytest.Config) -> dict[str, str]:
    """Key to "module:Class" of each method that is checked."""
    plugin = _plugin_methods(pytestconfig)
    named = {key: f"{cls.__module__}:{cls.__qualname__}" for key, cls in plugin.items()}
    return named or method_table()


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic dataset of 64 users on disk."""
    return prepare("synthetic-tiny", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_data(prepared_folder: Path) -> PreparedDataset:
    """The synthetic dataset of 64 users."""
    return load_prepared(prepared_folder)


@pytest.fixture(scope="session")
def subjects() -> dict[str, Subject]:
    """Subjects by key, kept so that checks share what is trained."""
    return {}


@pytest.fixture
def subject(
    request: pytest.FixtureRequest, tiny_data: PreparedDataset, subjects: dict[str, Subject]
) -> Subject:
    """The method under test; a failure that its Card expects is marked so, strictly."""
    key: str = request.param
    if key not in subjects:
        cls = _plugin_methods(request.config).get(key) or load_method(key)
        subjects[key] = Subject(key, cls, tiny_data)
    marker = request.node.get_closest_marker("contract")
    expected = subjects[key].card.expected_failures
    if marker and (reason := expected.get(marker.args[0])):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return subjects[key]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, the same bits everywhere; the environment is put back."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # seeding sets both
    monkeypatch.delenv("PL_SEED_WORKERS", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
