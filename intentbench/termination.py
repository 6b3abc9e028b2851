"""SIGTERM as an exception, so that whoever is stopped cleans up."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Leave with status 143 at SIGTERM, as with 130 at Ctrl-C: workers end, no traceback.

    Raises:
        SystemExit: at SIGTERM, wherever the main thread is then.
    """

    def leave(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():  # none else may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
