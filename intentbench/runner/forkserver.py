"""The process from which workers are forked; it has Lightning loaded, so that they start fast.

Loads no torch itself: `start_forkserver` can be the first thing that a command does, and the
server then imports while the command does.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

PRELOADED = ["intentbench.runner.preloaded"]
"""Imported in the server."""


def start_forkserver() -> ForkServerContext:
    """Start the server unless it runs, without waiting for it.

    Ctrl-C is kept from it and from its workers: the runner alone answers it, and ends them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _safe_path():
        resource_tracker.ensure_running()  # would lift the block below
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keep the current folder off the path of what is started: a `random.py` there is a person's.

    Both processes start by `python -c`, which would look there first, before Python's own library.
    What a worker is to find there, this process's path says, which it is sent.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
