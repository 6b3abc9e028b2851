"""How users are put into groups by activity: into so many, or at the cuts that were named."""

import re
from itertools import pairwise
from typing import Any

from datamodules.errors import RequestError

Grouping = int | tuple[int, ...]
"""A number of groups, 0 and 1 for none; or the largest number of interactions in each group but
the last, ascending."""


def shows_groups(grouping: Grouping) -> bool:
    """Whether there is more than one group."""
    return isinstance(grouping, tuple) or grouping > 1


def check_grouping(given: Any, where: str) -> Grouping:
    """A grouping as a file has it: a number or a list.

    Args:
        given: what stands there.
        where: it stands, for the error.

    Raises:
        RequestError: it is neither.
    """
    if type(given) is int and given >= 0:
        return given
    if isinstance(given, list | tuple):
        whole = all(type(cut) is int and cut > 0 for cut in given)
        if given and whole and all(low < high for low, high in pairwise(given)):
            return tuple(given)
    raise RequestError(
        f"{where}: expected a number of groups of users, or ascending numbers of interactions to "
        f"cut at, found {given!r}"
    )


def parse_grouping(text: str) -> Grouping:
    """A grouping as an option has it.

    >>> parse_grouping("4"), parse_grouping("5,8"), parse_grouping("5,")
    (4, (5, 8), (5,))

    Raises:
        RequestError: the text says none.
    """
    given: Any = text
    if re.fullmatch(r"\d+", text):
        given = int(text)
    elif re.fullmatch(r"\d+,[\d,]*", text):
        given = [int(part) for part in text.split(",") if part]
    return check_grouping(given, "--groups")
