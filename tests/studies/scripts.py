"""Scripts of benchmarks/studies, whose folder is no package."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


def load_script(name: str) -> Any:
    """A script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks/studies")
        return import_module(name)
