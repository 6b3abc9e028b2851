"""`intentbench list`: what there is to run; imports no torch, but to describe one method."""

import argparse
import ast
import sys
from importlib.util import find_spec
from pathlib import Path

import yaml

from datamodules.catalog import catalog
from datamodules.errors import RequestError
from intentbench.models import method_table

PARTS = ("models", "datasets", "benchmarks")
"""What can be listed as a whole."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to list."""
    parser.add_argument(
        "what",
        nargs="?",
        metavar="WHAT",
        help=f"{', '.join(PARTS)}, or a method: its Card, arguments and presets; default: all",
    )
    parser.add_argument("--plugin", type=Path, help="a Python file with methods of your own")


def run(options: argparse.Namespace) -> int:
    """Print the list, or what a row may say of a method."""
    if options.what in (None, *PARTS):
        sys.stdout.write(describe_all(options.what))
    elif options.what in catalog():
        raise RequestError(
            f"list: {options.what!r} is a dataset: `intentbench data prepare {options.what}` "
            "prepares and describes it"
        )
    else:
        from intentbench.commands.describing import describe_method  # it imports torch

        sys.stdout.write(describe_method(options.what, options.plugin))
    return 0


def describe_all(what: str | None = None) -> str:
    """Methods, datasets and benchmarks, one a line; imports no torch.

    Args:
        what: "models", "datasets" or "benchmarks"; all when None.
    """
    parts = {
        "models": lambda: [(key, _summary(path)) for key, path in method_table().items()],
        "datasets": lambda: [(name, entry.title) for name, entry in catalog().items()],
        "benchmarks": _benchmarks,
    }
    lines = []
    for name in [what] if what else parts:
        rows = parts[name]()
        width = max((len(key) for key, _ in rows), default=0)
        lines += [f"{name}:", *(f"  {key:{width}}  {text}".rstrip() for key, text in rows), ""]
    return "\n".join(lines[:-1]) + "\n"


def _benchmarks() -> list[tuple[str, str]]:
    """File and title of each benchmark; where there is none, where it was looked for."""
    found = [
        (str(p), _title(p))
        for folder in ("benchmarks", "benchmarks/studies")
        for p in sorted(Path(folder).glob("*.yaml"))
    ]
    return found or [
        (f"none: looked for in {Path('benchmarks').resolve()}, below the current folder", "")
    ]


def _summary(path: str) -> str:
    """First line of the docstring of a method's module, read without importing it."""
    found = find_spec(path.split(":")[0])
    if found is None or found.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]


def _title(path: Path) -> str:
    """The title of a benchmark, "" for none; of a file that is none, what is wrong with it."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # one file must not hide the others
        return "(cannot be read as YAML)"
    return str(found.get("title") or "") if isinstance(found, dict) else "(no benchmark)"
