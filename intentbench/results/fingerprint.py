"""Fingerprint of code: has a method changed since its results were made?

The source is read, not run: the import graph is walked from the syntax trees. Comments, layout,
docstrings and a method's CARD (its citation, the figures of others) change no result and are left
out of the hash.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The folder that holds both packages."""

PACKAGES = ("intentbench", "datamodules")

APART = "datamodules.prepare"
"""Not followed: what preparation makes has a fingerprint of its own, of its content."""

TABLE = "intentbench.models"
"""Not followed: the table of methods, where another line changes no result. What a method takes
from another one it imports from that one's file."""


def code_fingerprint(sources: Iterable[Path]) -> str:
    """sha256 (16 hex digits) of files and of everything they import, directly or not.

    Args:
        sources: the method's file, the data module's file. Imports are followed inside the two
            packages of the suite and, for a file of another package, inside that package.
    """
    waiting, seen = [path.resolve() for path in sources], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += _imported_files(path)
    digests = sorted(_digest(path) for path in seen)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _digest(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))  # its own copy: it is cut down below
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_prose(line)] or [ast.Pass()]  # type: ignore[attr-defined]  # checked above
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _is_prose(node: ast.AST) -> bool:
    """Whether a statement is a docstring or the assignment of a CARD."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return any(isinstance(target, ast.Name) and target.id == "CARD" for target in targets)


def _imported_files(path: Path) -> list[Path]:
    root, package = _package_root(path)
    found = []
    for name in _imported_names(path):
        if name in (APART, TABLE) or name.startswith(f"{APART}."):
            continue
        top = name.split(".", 1)[0]
        base = ROOT if top in PACKAGES else root if top == package else None
        if base is not None and (file := _module_file(base, name)):
            found.append(file)
    return found


def _imported_names(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file may import ("from a import b" yields a and a.b)."""
    parent = _module_name(path).rpartition(".")[0]
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = parent.split(".")[: len(parent.split(".")) - node.level + 1]
                origin = ".".join([*above, *([origin] if origin else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _package_root(path: Path) -> tuple[Path, str]:
    """The folder above the outermost package of a file, and that package's name."""
    folder = path.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder, path.relative_to(folder).parts[0].removesuffix(".py")


def _module_name(path: Path) -> str:
    root, _ = _package_root(path)
    return ".".join(path.relative_to(root).with_suffix("").parts)


def _module_file(base: Path, name: str) -> Path | None:
    stem = base.joinpath(*name.split("."))
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path.resolve() for path in candidates if path.is_file()), None)
