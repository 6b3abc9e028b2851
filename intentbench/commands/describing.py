"""`intentbench list METHOD`: what a row may say of a method, from its signature and docstring."""

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

from docstring_parser import DocstringStyle, parse

from intentbench.models.base import Recommender
from intentbench.runner.entrants import FROM_DATASET
from intentbench.runner.plugin import find_method, load_plugin
from intentbench.runner.presets import load_settings

WIDTH = 100
"""Columns that texts are folded to."""


def describe_method(key: str, plugin: Path | None = None) -> str:
    """Its Card and its arguments with their defaults, as plain text.

    Args:
        key: of a method of the suite or the plug-in.
        plugin: a file with further methods.

    Raises:
        RequestError: there is no such method.
    """
    methods = load_plugin(plugin) if plugin else {}
    method = find_method(key, methods, "list")
    card = method.CARD
    facts = {
        "paper": card.paper,
        "code": card.code,
        "layout": method.layout,
        "needs of the data": ", ".join(card.needs),
    }
    lines = [f"{key}: {card.title}", *(f"{name}: {text}" for name, text in facts.items() if text)]
    for text in card.deviations:
        lines += textwrap.wrap(f"departure: {text}", WIDTH, subsequent_indent="  ")
    lines += ["", f"arguments of a row, `{key}: {{NAME: VALUE}}`:", *_arguments(method)]
    return "\n".join([*lines, *_presets(key)]) + "\n"


def _arguments(method: type[Recommender]) -> Iterator[str]:
    """Each argument with its type, default and what the docstring says of it."""
    said = {}
    for param in parse(inspect.getdoc(method) or "", DocstringStyle.GOOGLE).params:
        for name in param.arg_name.split(","):  # several may share a line
            said[name.strip()] = " ".join((param.description or "").split())
    for name, argument in inspect.signature(method).parameters.items():
        if name in FROM_DATASET:
            continue
        kind = inspect.formatannotation(argument.annotation).replace("typing.", "")
        default = "" if argument.default is argument.empty else f" = {argument.default!r}"
        yield from textwrap.wrap(
            f"  {name}: {kind}{default}", WIDTH, subsequent_indent=" " * 6, break_long_words=False
        )
        yield from textwrap.wrap(
            said.get(name, ""), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
        )


def _presets(key: str) -> list[str]:
    """Those of the benchmarks in the current folder, where there are some."""
    settings = load_settings(Path("benchmarks") / "any.yaml", key)
    path = settings.path.relative_to(Path.cwd())
    lines = []
    if settings.presets:
        lines += ["", f"presets of {path}, `{key}: {{preset: NAME}}`:"]
        for name, preset in settings.presets.items():
            values = ", ".join(f"{part} {value}" for part, value in preset.arguments.items())
            lines += textwrap.wrap(
                f"  {name}: {values}", WIDTH, subsequent_indent=" " * 6, break_long_words=False
            )
    if settings.datasets:
        names = ", ".join(settings.datasets)
        lines += ["", *textwrap.wrap(f"{path} has values of its own for {names}", WIDTH)]
    return lines
