"""The pytest plugin of the contract suite: its option and its markers.

It is installed as an entry point (group pytest11), because pytest reads the conftest of a package
named by `--pyargs` too late for options. It is loaded in every run of pytest, so it imports nothing.
"""

import pytest

MARKERS = (
    "contract(check): the check of the contract suite that a test belongs to",
    "slow: takes a minute or more; run by hand with -m slow",
    "ddp: starts two processes that talk over gloo",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--intentbench-plugin`; the long name keeps clear of other plugins' options."""
    parser.getgroup("intentbench").addoption(
        "--intentbench-plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="check the methods that this Python file defines, and no others",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, for authors who have none of them."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
