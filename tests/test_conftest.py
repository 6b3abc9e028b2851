"""The guards of `conftest.py` catch what they are there for."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

LEAKS = {
    "environment variable LEAKED": 'import os; os.environ["LEAKED"] = "1"',
    "a handler of signal 10": "import signal; signal.signal(10, signal.SIG_IGN)",
    "thread leaked": (
        'import threading;threading.Thread(target=ended.wait, name="leaked", daemon=True).start()'
    ),
    "process leaked": (
        "import multiprocessing, time;"
        'multiprocessing.get_context("fork").Process('
        'target=time.sleep, args=(60,), name="leaked").start()'
    ),
    "a process group": (
        "import torch.distributed as d; from tempfile import mktemp;"
        'd.init_process_group("gloo", "file://" + mktemp(), rank=0, world_size=1)'
    ),
    "torch's default type": "import torch; torch.set_default_dtype(torch.float64)",
    "torch's number of threads": "import torch; torch.set_num_threads(2)",
    "torch's determinism": "import torch; torch.use_deterministic_algorithms(True)",
}


def test_each_leak_fails_its_test_and_no_other(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    cases = "".join(
        f"def test_{number}():\n    {code}\ndef test_{number}_after():\n    pass\n"
        for number, code in enumerate(LEAKS.values())
    )
    pytester.makepyfile(
        f"import threading\nended = threading.Event()\n{cases}def test_end():\n    ended.set()\n"
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2 * len(LEAKS) + 1, errors=len(LEAKS))
    for leak in LEAKS:
        result.stdout.fnmatch_lines([f"*the test leaves behind: {leak}"])


def test_generators_start_equal_whatever_ran_before(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    draw = "(random.random(), np.random.rand(), torch.rand(()).item())"
    pytester.makepyfile(
        f"""
        import random
        import numpy as np
        import pytest
        import torch

        drawn = set()

        @pytest.fixture(scope="module")
        def shared():
            return {draw}

        def test_first(shared):
            drawn.add({draw})

        def test_second():
            drawn.add({draw})
            assert len(drawn) == 2

        def test_third():
            drawn.add({draw})
            assert len(drawn) == 2
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
