"""Many requests at once, a bounded number in flight; what comes back is counted and kept."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from intentbench.text.endpoint import AnswerError, Endpoint

GIVE_UP = 20
"""After so many failures with no success between, nothing more is sent: the service is down."""


def ask_all(
    endpoint: Endpoint,
    requests: Mapping[int, Any],
    ask: Callable[[Any], None],
    concurrency: int,
    advance: Callable[[], None],
) -> dict[int, str]:
    """Ask for everything; what succeeds stays, whatever happens to the rest.

    Args:
        endpoint: is told to stop where going on is no use.
        requests: by number.
        ask: sends one and keeps the answer; runs in threads.
        concurrency: how many are in flight at most.
        advance: is called after each.

    Returns:
        The reasons of those that failed, by number.

    Raises:
        RequestError: one failed in a way in which all would.
        OSError: an answer cannot be kept.
    """
    failures: dict[int, str] = {}
    in_a_row = 0
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        running = {pool.submit(ask, request): number for number, request in requests.items()}
        try:
            for future in as_completed(running):
                try:
                    future.result()
                    in_a_row = 0
                except AnswerError as error:
                    failures[running[future]] = str(error)
                    in_a_row += 1
                    if in_a_row >= GIVE_UP:
                        endpoint.stop()
                advance()
        except BaseException:  # a wrong key, a full disk, an interrupt: let the threads end
            endpoint.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return dict(sorted(failures.items()))
