"""Methods from a single file: `--plugin my_method.py`."""

import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from inspect import isclass
from pathlib import Path
from types import ModuleType

from datamodules.errors import RequestError
from intentbench.models import load_method, method_table
from intentbench.models.base import Recommender
from intentbench.models.card import Card
from intentbench.runner.arguments import allow_imports, suggest

_table, _load = cache(method_table), cache(load_method)  # each reads what is installed: 20 ms a row


def load_plugin(file: Path) -> dict[str, type[Recommender]]:
    """Import a file and take the methods it defines.

    One `Recommender` with a CARD goes by the file's stem; a file with several names them in a
    module-level `METHODS = {"key": Class}`.

    Args:
        file: a Python file; its stem becomes the module's name.

    Raises:
        RequestError: there is no such file, its name is taken by another module, it cannot be
            imported, it defines no method or unnamed ones, or a key is taken.
    """
    module = import_plugin(file)
    methods = getattr(module, "METHODS", None)
    if methods is None:
        defined = [value for value in vars(module).values() if _is_method(value, module)]
        if len(defined) != 1:
            raise RequestError(
                f"{file}: defines {len(defined)} methods (Recommender subclasses with a CARD), not "
                "one; name several in a module-level METHODS = {'key': Class}"
            )
        methods = {file.stem: defined[0]}
    if not isinstance(methods, Mapping):
        raise RequestError(f"{file}: METHODS: expected {{'key': Class}}, found {methods!r}")
    for key, method in methods.items():
        if not (isclass(method) and issubclass(method, Recommender)) or not isinstance(
            getattr(method, "CARD", None), Card
        ):
            raise RequestError(f"{file}: {key}: {method!r} is no Recommender with a CARD")
        if key in _table():
            raise RequestError(f"{file}: method {key!r} exists already; choose another key")
    return dict(methods)


def import_plugin(file: Path) -> ModuleType:
    """Import a plugin's file as the top-level module of its stem; once a process.

    Raises:
        RequestError: see `load_plugin`.
    """
    file = file.resolve()
    if not file.is_file():
        raise RequestError(f"{file}: no such Python file; --plugin takes the path of one")
    if file.suffix != ".py":
        raise RequestError(f"{file}: is no Python file; --plugin takes one whose name ends in .py")
    name = file.stem
    if not name.isidentifier():
        raise RequestError(f"{file}: {name!r} cannot name a module; use letters, digits and _")
    if (known := sys.modules.get(name)) is not None and known.__file__ == str(file):
        return known
    other = None if known else find_spec(name)  # its own, where the path has its folder
    if known is not None or (other is not None and other.origin != str(file)):
        raise RequestError(f"{file}: another module is called {name!r}; rename the file")
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RequestError(f"{file}: no importable Python file")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a stranger's file may raise
        del sys.modules[name]
        raise RequestError(
            f"{file}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
    allow_imports(name)
    return module


def find_method(key: str, plugin: Mapping[str, type[Recommender]], where: str) -> type[Recommender]:
    """The class of a method of the suite, of an installed distribution or of the plugin.

    Raises:
        RequestError: no method has that key.
    """
    if key in plugin:
        return plugin[key]
    if key not in _table():
        own = "" if plugin else "; methods of your own come with --plugin FILE.py"
        hint = suggest(key, [*_table(), *plugin])
        raise RequestError(f"{where}: unknown method {key!r}; {hint}{own}")
    return _load(key)


def _is_method(value: object, module: ModuleType) -> bool:
    return (
        isclass(value)
        and issubclass(value, Recommender)
        and value.__module__ == module.__name__
        and "CARD" in vars(value)
    )
