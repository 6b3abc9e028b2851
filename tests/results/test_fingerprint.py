from pathlib import Path

import pytest

from intentbench.results.fingerprint import ROOT, _imported_files, code_fingerprint

METHOD = '''"""Doc."""
from pack.block import layer
from . import other
CARD = "published figures"


def score():  # a comment
    """Doc."""
    return layer
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    (folder / "sub").mkdir(parents=True)
    for name in ("__init__.py", "sub/__init__.py", "other.py", "unrelated.py"):
        (folder / name).write_text("")
    (folder / "block.py").write_text("from pack.sub import deep\nlayer = 1\n")
    (folder / "sub" / "deep.py").write_text("from ..block import layer\nwidth = 2\n")
    (folder / "method.py").write_text(METHOD)
    return folder


@pytest.mark.parametrize("file", ["method.py", "block.py", "other.py", "sub/deep.py"])
def test_change_of_a_used_file_shows(package: Path, file: str) -> None:
    before = code_fingerprint([package / "method.py"])
    changed = package.with_name("after") / "pack"
    changed.parent.mkdir()
    package.rename(changed)
    with (changed / file).open("a") as stream:
        stream.write("\nadded = 3\n")
    assert code_fingerprint([changed / "method.py"]) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doc."""', '"""Other words."""'),
        ("  # a comment", ""),
        ("published figures", "corrected figures"),
        ("\n\n\ndef", "\ndef"),
    ],
)
def test_prose_and_card_do_not_show(package: Path, old: str, new: str) -> None:
    before = code_fingerprint([package / "method.py"])
    changed = package.with_name("after") / "pack"
    changed.parent.mkdir()
    package.rename(changed)
    (changed / "method.py").write_text(METHOD.replace(old, new))
    assert code_fingerprint([changed / "method.py"]) == before


def test_unused_file_does_not_show(package: Path) -> None:
    before = code_fingerprint([package / "method.py"])
    (package / "unrelated.py").write_text("anything = 1\n")
    assert code_fingerprint([package / "method.py"]) == before


def test_imports_of_the_suite_are_followed_from_anywhere(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("import numpy\nfrom intentbench.models.base import Recommender\n")
    found = {path.relative_to(ROOT).as_posix() for path in _imported_files(plugin)}
    assert found == {"intentbench/models/base.py"}
