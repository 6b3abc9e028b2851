"""Work beside this process, in one forked of it, which begins with all that is in memory here."""

import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

T = TypeVar("T")


def start_aside(work: Callable[[], T]) -> Callable[[], T]:
    """Begin a work that computes and writes nothing.

    It runs in a forked process on Linux, unless another thread of Python could hold a lock there
    that nobody would open; elsewhere it runs when its result is asked for.

    Args:
        work: what to do; its result must be picklable.

    Returns:
        What waits for the work and gives its result, or raises what the work raised; to be called
        once.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        return work
    context = get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_do, args=(work, send), daemon=True)
    with warnings.catch_warnings():  # from Python 3.12 on of threads: BLAS's, which bear a fork
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    send.close()

    def result() -> T:
        try:
            found: T = receive.recv()
        except (EOFError, OSError):  # it failed, or was killed: done here, and an error is raised
            found = work()
        finally:
            receive.close()
            child.join()
        return found

    return result


def _do(work: Callable[[], T], send: Connection) -> None:
    with suppress(Exception, KeyboardInterrupt):  # told by whoever does it again, or is interrupted
        send.send(work())
