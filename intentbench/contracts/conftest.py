"""Each test that takes `subject` runs once a method."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from datamodules.prepare import prepare
from datamodules.prepared import PreparedDataset, load_prepared
from intentbench.contracts.plugin import PLUGIN_METHODS
from intentbench.contracts.subject import Subject
from intentbench.models import method_table
from intentbench.models.base import Recommender
from intentbench.runner.plugin import find_method


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise by method: those of the plugin where there is one, else all."""
    if "subject" in metafunc.fixturenames:
        keys = [*_plugin_methods(metafunc.config)] or [*method_table()]
        metafunc.parametrize("subject", keys, indirect=True)


def _plugin_methods(config: pytest.Config) -> dict[str, type[Recommender]]:
    return config.stash.get(PLUGIN_METHODS, {})


@pytest.fixture(scope="session")
def plugin_file(pytestconfig: pytest.Config) -> Path | None:
    """The file named by `--intentbench-plugin`."""
    file: Path | None = pytestconfig.getoption("--intentbench-plugin", None)
    return file.resolve() if file else None


@pytest.fixture(scope="session")
def method_targets(pytestconfig: pytest.Config) -> dict[str, str]:
    """Key to "module:Class" of each method that is checked."""
    plugin = _plugin_methods(pytestconfig)
    named = {key: f"{cls.__module__}:{cls.__qualname__}" for key, cls in plugin.items()}
    return named or method_table()


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The synthetic dataset of 64 users, in a cache of this test run's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTENTBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield prepare("synthetic-tiny")


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
        cls = find_method(key, _plugin_methods(request.config), "contract suite")
        subjects[key] = Subject(key, cls, tiny_data)
    check = request.node.get_closest_marker("contract").args[0]
    if reason := subjects[key].card.expected_failures.get(check):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return subjects[key]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, the same bits everywhere; what seeding leaves in the environment is put back."""
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(variable, "0")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
