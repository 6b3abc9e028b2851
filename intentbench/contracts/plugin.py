"""The pytest plugin of the contract suite: its option and its markers.

It is installed as an entry point (group pytest11), because pytest reads the conftest of a package
named by `--pyargs` too late for options. It is loaded in every run of pytest, so it imports torch
only on request.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from datamodules.errors import RequestError

if TYPE_CHECKING:
    from intentbench.models.base import Recommender

PLUGIN_METHODS: "pytest.StashKey[dict[str, type[Recommender]]]" = pytest.StashKey()
"""Where the methods of the file are kept, key to class."""

MARKERS = (
    "contract(check): the check of the contract suite that a test belongs to",
    "slow: takes a minute or more; run by hand with -m slow",
    "ddp: starts two processes that talk over gloo",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--intentbench-plugin`; the long name keeps clear of other plugins' options."""
    parser.getgroup("intentbench").addoption(
        "--intentbench-plugin",
        type=Path,
        metavar="FILE",
        help="check the methods that this Python file defines, and no others",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, for authors who have none of them, and load the file."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if file := config.getoption("--intentbench-plugin"):
        from intentbench.runner.plugin import load_plugin

        try:
            config.stash[PLUGIN_METHODS] = load_plugin(file)
        except RequestError as error:
            raise pytest.UsageError(str(error)) from None
