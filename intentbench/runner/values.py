"""Reading values of a spec: what is wrong is said in one line, with file and key."""

from collections.abc import Iterable, Mapping
from typing import Any

from datamodules.errors import RequestError
from intentbench.runner.arguments import suggest


def read_name(given: Any, where: str) -> str:
    """A name that is also a folder's.

    Raises:
        RequestError: it is not.
    """
    name = str(given)
    if not name or name.startswith(".") or any(sign in name for sign in "/\\:\0"):
        raise RequestError(f"{where}: {name!r} cannot name a folder; use letters and digits")
    return name


def read_mapping(given: Any, where: str, empty: bool = True) -> dict[str, Any]:
    """Keys and values.

    Args:
        given: what stands in the file.
        where: file and key, the beginning of a message.
        empty: whether there may be none.

    Raises:
        RequestError: it is something else.
    """
    if not isinstance(given, Mapping) or not (given or empty):
        raise RequestError(f"{where}: expected keys and values, found {given!r}")
    return given if isinstance(given, dict) else dict(given)


def check_keys(given: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Refuse a key that means nothing.

    Raises:
        RequestError: there is one.
    """
    for key in given:
        if key not in allowed:
            raise RequestError(f"{where}: unknown key {key!r}; {suggest(str(key), allowed)}")
