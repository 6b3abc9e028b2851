"""What holds for every test: own caches, one thread, equal seeds, and nothing left behind."""

import multiprocessing
import os
import random
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import distributed

settings.register_profile("intentbench", database=None, deadline=None, derandomize=True)
settings.load_profile("intentbench")

SET_BY_LIBRARIES = (
    "PYTEST_CURRENT_TEST",
    "PL_GLOBAL_SEED",  # Lightning's seed_everything sets these two
    "PL_SEED_WORKERS",
    "KMP_INIT_AT_FORK",  # as do torch and scikit-learn with these, when they are loaded
    "KMP_DUPLICATE_LIB_OK",
    "TORCHINDUCTOR_CACHE_DIR",  # torch's own determinism switch sets it
    "PYTORCH_NVML_BASED_CUDA_CHECK",  # Lightning, when it looks for devices
    "_RJEM_MALLOC_CONF",  # polars, when it is loaded
)
"""Variables that tests may change, as libraries do; they are put back in silence."""


def pytest_configure(config: pytest.Config) -> None:
    """Point all caches into a temporary folder before anything is imported that reads them."""
    caches = tempfile.TemporaryDirectory(prefix="intentbench-tests-")
    config.add_cleanup(caches.cleanup)
    environment = pytest.MonkeyPatch()
    config.add_cleanup(environment.undo)
    environment.setenv("INTENTBENCH_CACHE", str(Path(caches.name) / "intentbench"))
    environment.setenv("XDG_CACHE_HOME", caches.name)
    environment.setenv("HF_HOME", str(Path(caches.name) / "huggingface"))
    environment.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)  # the same sums everywhere, also beside other test runs


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed all generators before each test and its fixtures: the order of tests tells nothing."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global generator is what is guarded)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of published datasets that `$INTENTBENCH_DATA` names."""
    named = os.environ.get("INTENTBENCH_DATA")
    if not named:
        pytest.skip("needs the published datasets: set INTENTBENCH_DATA to their folder")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"INTENTBENCH_DATA is {named}, which is no folder")
    return folder


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a Trainer switches on, it may: the command has its process to itself."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaks, and undo the leak so that the next test does not suffer.

    Generators are only put back: training draws from them by design.
    """
    generators = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    guards = [guard() for guard in (_environment, _signals, _threads, _processes, _torch)]
    yield
    random.setstate(generators[0])
    np.random.set_state(generators[1])  # noqa: NPY002 (the global generator is what is guarded)
    torch.set_rng_state(generators[2])
    leaks = [leak for find_leaks in guards for leak in find_leaks()]
    if leaks:
        pytest.fail("the test leaves behind: " + "; ".join(leaks), pytrace=False)


def _environment() -> Callable[[], list[str]]:
    before = dict(os.environ)

    def find_leaks() -> list[str]:
        names = sorted(
            name
            for name in before.keys() | os.environ.keys()
            if before.get(name) != os.environ.get(name)
        )
        for name in names:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]
        return [f"environment variable {name}" for name in names if name not in SET_BY_LIBRARIES]

    return find_leaks


def _signals() -> Callable[[], list[str]]:
    catchable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    before = {number: signal.getsignal(number) for number in catchable}

    def find_leaks() -> list[str]:
        changed = [n for n, handler in before.items() if signal.getsignal(n) is not handler]
        for number in changed:
            signal.signal(number, before[number])
        return [f"a handler of signal {int(number)}" for number in changed]

    return find_leaks


def _threads() -> Callable[[], list[str]]:
    before = set(threading.enumerate())

    def find_leaks() -> list[str]:
        started = set(threading.enumerate()) - before
        for thread in started:
            thread.join(timeout=1)  # one that is just ending may do so
        return [f"thread {thread.name}" for thread in started if thread.is_alive()]

    return find_leaks


def _processes() -> Callable[[], list[str]]:
    before = set(multiprocessing.active_children())

    def find_leaks() -> list[str]:
        leaks = []
        for process in set(multiprocessing.active_children()) - before:
            process.join(timeout=1)
            if process.is_alive():
                process.kill()
                process.join()
                leaks.append(f"process {process.name}")
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
            leaks.append("a process group")
        return leaks

    return find_leaks


def _torch() -> Callable[[], list[str]]:
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()

    def find_leaks() -> list[str]:
        leaks = []
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
            leaks.append("torch's default type")
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
            leaks.append("torch's number of threads")
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
            leaks.append("torch's determinism")
        return leaks

    return find_leaks
