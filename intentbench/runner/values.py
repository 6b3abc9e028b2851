"""Reading values of a spec: what is wrong is said in one line, with file and key."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from datamodules.errors import RequestError
from intentbench.runner.arguments import suggest


class _UniqueLoader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML itself would take the last one and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise ComposerError(
                        None, None, f"key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return node


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, read by the safe loader.

    Raises:
        FileNotFoundError: there is none.
        RequestError: it cannot be read, is no YAML, or has a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueLoader)  # noqa: S506 (a safe one)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: cannot be read: {error}") from None
    except RecursionError:
        raise RequestError(f"{path}: no YAML: is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: of a date that is none
        raise RequestError(f"{path}: no YAML: {_fault(error)}") from None


def _fault(error: Exception) -> str:
    """What is wrong and where, on one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    problem = getattr(error, "problem", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def read_name(given: Any, where: str) -> str:
    """A name that is also a folder's.

    Raises:
        RequestError: it is not.
    """
    name = str(given)
    if not name or name.startswith(".") or any(sign in name for sign in "/\\:\0"):
        raise RequestError(f"{where}: {name!r} cannot name a folder; use letters and digits")
    return name


def read_mapping(given: Any, where: str, empty: bool = True) -> dict[str, Any]:
    """Keys and values.

    Args:
        given: what stands in the file.
        where: file and key, the beginning of a message.
        empty: whether there may be none.

    Raises:
        RequestError: it is something else.
    """
    if not isinstance(given, Mapping) or not (given or empty):
        raise RequestError(f"{where}: expected keys and values, found {given!r}")
    for key in given:
        if not isinstance(key, str):
            raise RequestError(f"{where}: key {key!r} is no text; put it in quotes")
    return given if isinstance(given, dict) else dict(given)


def check_keys(given: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Refuse a key that means nothing.

    Raises:
        RequestError: there is one.
    """
    for key in given:
        if key not in allowed:
            raise RequestError(f"{where}: unknown key {key!r}; {suggest(str(key), allowed)}")
