"""What a person sees of many requests: a bar on a terminal, else a line now and then."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

LINES = 10
"""Lines that a log gets, at most."""


@contextmanager
def follow(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how many of `total` are done; the function that it gives counts one more.

    Args:
        console: a terminal gets a bar, anything else a line each tenth.
        what: is done.
        total: how many there are; with none, nothing is shown.
    """
    if total and console.is_terminal:
        from rich.progress import Progress

        with Progress(console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
        return
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done * LINES // total > (done - 1) * LINES // total:
            console.print(f"{what}: {done} of {total}", highlight=False)

    yield advance
