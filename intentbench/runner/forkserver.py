"""The process from which workers are forked; it has Lightning loaded, so that they start fast.

Loads no torch itself: `start_forkserver` can be the first thing that a command does, and the
server then imports while the command does.
"""

import multiprocessing
import signal
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
    resource_tracker.ensure_running()  # would lift the block below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context
