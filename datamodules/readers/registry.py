"""The table of readers, each loaded on use."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from datamodules.errors import RequestError
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
        RequestError: no such reader, or it takes no such option.
        FormatError: a file is not in the reader's format; the message names file and line.
    """
    if reader not in READERS:
        close = get_close_matches(reader, READERS) or sorted(READERS)
        raise RequestError(f"unknown reader {reader!r}; known: {', '.join(close)}")
    read = import_module(READERS[reader]).read
    parameters = dict(signature(read).parameters)
    known = [name for name in parameters if name != "files"]
    takes_any = any(value.kind is value.VAR_KEYWORD for value in parameters.values())
    if not takes_any and (unknown := sorted(set(options) - set(known))):
        raise RequestError(
            f"reader {reader!r} has no option {unknown[0]!r}; it has: {', '.join(known) or 'none'}"
        )
    table: EventTable = read(dict(files), **options)
    return table
