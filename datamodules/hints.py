"""What an error message offers in place of an unknown name."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """The nearest name as a question with a blank behind it, "" where none is near.

    >>> did_you_mean("sasrek", ["ease", "sasrec"])
    "did you mean 'sasrec'? "
    """
    close = get_close_matches(given, list(names), n=1)
    return f"did you mean {close[0]!r}? " if close else ""
