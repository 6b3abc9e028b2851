from pathlib import Path

import pytest

from datamodules.errors import RequestError
from intentbench.runner.plugin import find_method, import_plugin, load_plugin

METHOD = """
from intentbench.models.base import Recommender
from intentbench.models.card import Card
class {name}(Recommender):
    CARD = Card(title="x", paper="x", code="", tiny={{}})
"""


def write(folder: Path, stem: str, *names: str) -> Path:
    path = folder / f"{stem}.py"
    path.write_text("".join(METHOD.format(name=name) for name in names))
    return path


def test_one_method_goes_by_the_name_of_its_file(tmp_path: Path) -> None:
    file = write(tmp_path, "my_first", "MyFirst")
    methods = load_plugin(file)
    assert [(key, cls.__name__) for key, cls in methods.items()] == [("my_first", "MyFirst")]
    assert import_plugin(file) is import_plugin(file)
    assert find_method("my_first", methods, "spec") is methods["my_first"]


def test_several_methods_are_named_by_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "my_several", "A", "B")
    with pytest.raises(RequestError, match="defines 2 methods"):
        load_plugin(file)
    file = write(tmp_path, "my_named", "A", "B")
    file.write_text(file.read_text() + "METHODS = {'first': A, 'second': B}\n")
    assert list(load_plugin(file)) == ["first", "second"]


@pytest.mark.parametrize(
    ("stem", "text", "part"),
    [
        ("my_empty", "", "defines 0 methods"),
        ("my_exit", "raise SystemExit(0)", "cannot be imported: SystemExit: 0"),
        ("my_number", "METHODS = 5", "METHODS: expected .*, found 5"),
        ("my_type", "METHODS = {'mine': int}", "mine: <class 'int'> is no Recommender with a CARD"),
        ("my file", "", "'my file' cannot name a module"),
        ("my_broken", "1 / 0", "cannot be imported: ZeroDivisionError"),
        ("json", "", "another module is called 'json'"),
        ("my_taken", METHOD.format(name="A") + "METHODS = {'ease': A}", "exists already"),
    ],
)
def test_useless_file_is_a_request_error(tmp_path: Path, stem: str, text: str, part: str) -> None:
    file = tmp_path / f"{stem}.py"
    file.write_text(text)
    with pytest.raises(RequestError, match=part):
        load_plugin(file)


def test_missing_file_is_a_request_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such Python file"):
        load_plugin(tmp_path / "none.py")


def test_unknown_method_suggests_a_known_one() -> None:
    with pytest.raises(RequestError, match=r"spec: unknown method 'eas'; did you mean 'ease'\?"):
        find_method("eas", {}, "spec")
