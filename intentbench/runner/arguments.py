"""Arguments are what a signature says: checked, completed with defaults, and built from."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import NoneType
from typing import Any, get_args

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from datamodules.errors import RequestError
from datamodules.hints import did_you_mean
from intentbench.runner.ranges import check_ranges

IMPORTABLE = ["intentbench", "datamodules", "lightning", "torch.optim"]


def allow_imports(*modules: str) -> None:
    """Refuse every class path in a value except the suite's, Lightning's and these modules'.

    A class path is code that runs: jsonargparse would import anything that a file names.
    """
    IMPORTABLE.extend(module for module in modules if module not in IMPORTABLE)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=IMPORTABLE)


allow_imports()

_dumped: dict[tuple[Callable[..., Any], str], str] = {}
"""Resolved arguments as JSON: rows of a spec share most of theirs, and resolving takes 20 ms."""


def suggest(given: str, allowed: Iterable[str]) -> str:
    """The end of a message about an unknown name.

    >>> suggest("sasrek", ["ease", "sasrec"])
    "did you mean 'sasrec'? allowed: ease, sasrec"
    """
    names = sorted(allowed)
    return f"{did_you_mean(given, names)}allowed: {', '.join(names)}"


def resolve_arguments(
    target: Callable[..., Any],
    given: Mapping[str, Any],
    where: str,
    filled: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All arguments of a class as plain types: those given, and the signature's defaults.

    Args:
        target: a class with a typed `__init__`.
        given: what a person wrote.
        where: file and key path, the beginning of messages.
        filled: what the program fills in; a person may not give these.

    Raises:
        RequestError: an unknown name, one that is filled in, a value of another type, or a
            method's number outside its range.
    """
    filled = filled or {}
    parser = _parser(target)
    types = {
        action.dest.removeprefix("a."): getattr(action, "_typehint", None)
        for action in parser._actions
        if not action.dest.endswith("help")  # of the parser, of an argument that is a class
    }
    names = types.keys() - {"a"}
    allowed = names - filled.keys()
    for name, value in given.items():
        if name not in allowed:
            raise RequestError(f"{where}: unknown argument {name!r}; {suggest(name, allowed)}")
        if value is None and NoneType not in get_args(types[name]):  # jsonargparse lets it pass
            raise RequestError(f"{where}: {name}: found null; leave it out for its default")
    whole = {**given, **{name: value for name, value in filled.items() if name in names}}
    key = target, repr(whole)
    if key not in _dumped:
        parsed = _parse(parser, whole, where)
        dumped = parser.dump(parsed, format="json", skip_unset=False)
        check_ranges(target, json.loads(dumped)["a"], where)
        _dumped[key] = dumped
    plain: dict[str, Any] = json.loads(_dumped[key])["a"]
    return plain


def construct(target: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Build an object from plain arguments, converted as the signature says (lists to tuples).

    Raises:
        RequestError: an argument is missing, unknown or of another type.
    """
    parser = _parser(target)
    parsed = _parse(parser, arguments, target.__name__)
    return parser.instantiate(parsed)["a"]


@cache
def _parser(target: Callable[..., Any]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(target, "a")
    except ValueError as error:  # of an argument without a type
        raise RequestError(f"{target.__name__}: {' '.join(str(error).split())}") from None
    return parser


def _parse(parser: ArgumentParser, arguments: Mapping[str, Any], where: str) -> Any:
    try:
        return parser.parse_object({"a": dict(arguments)})
    except ArgumentError as error:
        text = " ".join(str(error).split())
        text = re.sub(r'Parser key "a\.?([^"]*)": ', r"\1: ", text)
        text = re.sub(r"<class '([^']*)'>", r"\1", text).replace("typing.", "")
        raise RequestError(f"{where}: {text.replace(' a.', ' ')}") from None
