"""Work aside: the same result wherever it is done, and errors that are told."""

import os
import signal
import threading

import pytest

from intentbench.reports.aside import start_aside


def test_work_is_done_in_another_process_with_what_is_in_memory_here() -> None:
    here = object()
    found = start_aside(lambda: (os.getpid(), id(here), {"page.svg": b"<svg/>" * 100_000}))()
    assert found[0] != os.getpid()
    assert found[1:] == (id(here), {"page.svg": b"<svg/>" * 100_000})


def test_what_the_work_raises_is_raised_where_the_result_is_asked_for() -> None:
    def fail() -> None:
        raise ValueError("no such picture")

    result = start_aside(fail)
    with pytest.raises(ValueError, match="no such picture"):
        result()


def test_work_whose_process_is_killed_is_done_here() -> None:
    here = os.getpid()

    def work() -> str:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    assert start_aside(work)() == "done"


def test_beside_other_threads_nothing_is_forked() -> None:
    going = threading.Event()
    other = threading.Thread(target=going.wait)
    other.start()
    try:
        assert start_aside(os.getpid)() == os.getpid()
    finally:
        going.set()
        other.join()
