"""Where plain lines for people go: what they name is printed as it is written."""

from typing import Any

from rich.console import Console


def plain_console(**options: Any) -> Console:
    """A console whose text is never read as anything but text.

    Names of files and rows are people's own: rich would take `[red]` in one for a colour, `[/x]`
    for a mistake, `:ok:` for a picture, and would break a long path where a terminal ends. Bars,
    tables, and styles that are asked for as objects, work as on any console.

    Args:
        options: others of rich's `Console`, such as `stderr=True`.
    """
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)
