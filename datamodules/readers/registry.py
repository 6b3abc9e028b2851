"""The table of readers, each loaded on use."""

from collections.abc import Mapping
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from datamodules.errors import RequestError
from datamodules.hints import did_you_mean
from datamodules.readers.base import EventTable

READERS = {
    "sequence_text": "datamodules.readers.sequence_text",
    "pair_text": "datamodules.readers.pair_text",
    "movielens": "datamodules.readers.movielens",
    "amazon": "datamodules.readers.amazon",
    "steam": "datamodules.readers.steam",
    "table": "datamodules.readers.table",
    "synthetic": "datamodules.readers.synthetic",
}
"""Name of a reader to its module, which has `read(files, **options) -> EventTable`."""


def read_events(reader: str, files: Mapping[str, Path], options: Mapping[str, Any]) -> EventTable:
    """Read files with the reader of that name.

    Args:
        reader: a key of `READERS`.
        files: what the reader calls the file, such as "events", to where it lies.
        options: keyword arguments of the reader.

    Raises:
        RequestError: no such reader, or it takes no such option, or not of that type, or needs
            one that is not given.
        FormatError: a file is not in the reader's format; the message names file and line.
    """
    if reader not in READERS:
        hint = did_you_mean(reader, READERS)
        raise RequestError(f"unknown reader {reader!r}; {hint}known: {', '.join(sorted(READERS))}")
    read = import_module(READERS[reader]).read
    parameters = dict(signature(read).parameters)
    known = [name for name in parameters if name != "files"]
    takes_any = any(value.kind is value.VAR_KEYWORD for value in parameters.values())
    if not takes_any:
        if unknown := sorted(set(options) - set(known), key=str):
            names = ", ".join(known) or "none"
            raise RequestError(f"reader {reader!r} has no option {unknown[0]!r}; it has: {names}")
        hints = get_type_hints(read)
        for name in known:
            _check_option(reader, name, options, hints[name], parameters[name].default)
    table: EventTable = read(dict(files), **options)
    return table


def _check_option(
    reader: str, name: str, options: Mapping[str, Any], hint: Any, default: Any
) -> None:
    """Refuse the lack of an option that has no default, and a value of another type.

    Raises:
        RequestError: it lacks, or its value does not fit.
    """
    expected = hint.__name__ if type(hint) is type else str(hint).replace("typing.", "")
    if name not in options:
        if default is Parameter.empty:
            raise RequestError(f"reader {reader!r} needs the option {name!r}: {expected}")
    elif not _fits(options[name], hint):
        raise RequestError(
            f"reader {reader!r}: option {name!r}: expected {expected}, found {options[name]!r}"
        )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from YAML has the type that an option is annotated with.

    Of a `Literal` the type alone: which values there are, the reader says better.
    """
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if kind is Literal:
        return any(type(value) is type(one) for one in arguments)
    if kind is list:
        return isinstance(value, list) and all(_fits(one, arguments[0]) for one in value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
