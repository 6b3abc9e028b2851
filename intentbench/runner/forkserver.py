"""The process from which workers are forked; it has Lightning loaded, so that they start fast.

Loads no torch itself: `start_forkserver` can be the first thing that a command does, and the
server then imports while the command does.
"""

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

PRELOADED = ["intentbench.runner.executors", "torch.utils.tensorboard"]
"""Imported in the server. Nothing of it may touch CUDA, which does not survive a fork."""


def start_forkserver() -> ForkServerContext:
    """Start the server unless it runs, without waiting for it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()
    return context
