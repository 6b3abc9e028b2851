"""Names of pages: safe as files, in addresses and beside one another."""

import hashlib
import re

_PLAIN = re.compile(r"(?=.{1,100}$)[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*")
_LONGEST = 60  # characters kept of a name that is no safe file name itself


def slug(name: str) -> str:
    """A file name without its ending.

    Small letters, digits, `_`, `-` and dots inside stay. Anything else is replaced, and a hash of
    the name is added, so that different names get different files; capitals too, for some file
    systems do not tell them from small letters.

    >>> slug("beauty-first"), slug("ml-100k-cf")
    ('beauty-first', 'ml-100k-cf')
    >>> slug("../a b")
    'a-b-2c2c791a'
    """
    if _PLAIN.fullmatch(name):
        return name
    kept = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:_LONGEST]
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def board_page(board: str) -> str:
    """The page of a leaderboard, from the root of the site."""
    return f"boards/{slug(board)}.html"


def method_page(method: str) -> str:
    """The page of a method."""
    return f"methods/{slug(method)}.html"


def dataset_page(dataset: str) -> str:
    """The page of a dataset."""
    return f"datasets/{slug(dataset)}.html"


def compare_page(board: str, dataset: str) -> str:
    """The page that compares two rows of a table."""
    return f"compare/{slug(board)}/{slug(dataset)}.html"


def row_anchor(dataset: str, label: str) -> str:
    """The place of a row on its leaderboard's page."""
    return f"{slug(dataset)}--{slug(label)}"
