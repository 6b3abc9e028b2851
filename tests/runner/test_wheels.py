"""What a machine with torch and Lightning alone lacks."""

import importlib.metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from datamodules.errors import RequestError
from intentbench.runner import wheels
from intentbench.runner.wheels import (
    AT_HOME,
    THERE,
    gather_wheels,
    needed_requirements,
    needed_wheels,
)


def _brings(name: str) -> set[str]:
    """A distribution and, one after another, all that it needs here."""
    found, before = {name}, set[str]()
    while found != before:
        before = set(found)
        for known in before:
            try:
                lines = importlib.metadata.requires(known) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            for need in map(Requirement, lines):
                if need.marker is None or need.marker.evaluate({"extra": ""}):
                    found.add(str(canonicalize_name(need.name)))
    return found


def test_with_what_is_there_the_wheels_meet_every_need() -> None:
    carried = needed_wheels()
    there = set().union(*map(_brings, THERE))
    assert not there & carried.keys()
    for line in needed_requirements():
        for name in _brings(canonicalize_name(Requirement(line).name)):
            assert name in carried or name in there, f"{line} needs {name}"
    assert carried == {name: importlib.metadata.version(name) for name in carried}


def test_nothing_comes_that_only_home_needs() -> None:
    assert not set(AT_HOME) & needed_wheels().keys()
    assert {"pandas", "huggingface-hub", "fonttools"}.isdisjoint(needed_wheels())
    assert {"jsonargparse", "rich", "safetensors", "tensorboard"} <= needed_wheels().keys()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "wheels"
    place.mkdir()
    return place


def test_the_newest_wheel_that_fits_is_taken(folder: Path) -> None:
    names = (
        "Some_Thing-1.9-py3-none-any.whl",
        "some_thing-1.10-py3-none-any.whl",
        "some_thing-2.0-cp27-cp27m-win32.whl",
        "other-1.0-py3-none-any.whl",
        "no wheel.whl",
    )
    for name in names:
        (folder / name).write_bytes(b"")
    assert gather_wheels(str(folder), {"some-thing": "1.9"}, folder, "") == [folder / names[1]]


def test_wheels_are_chosen_for_the_other_python(folder: Path) -> None:
    for version in ("311", "312"):
        (folder / f"thing-1.0-cp{version}-cp{version}-linux_x86_64.whl").write_bytes(b"")
        (folder / f"thing-1.0-cp{version}-cp{version}-linux_aarch64.whl").write_bytes(b"")
    (found,) = gather_wheels(str(folder), {"thing": "1.0"}, folder, "3.12")
    assert "cp312" in found.name


@pytest.mark.parametrize(
    ("source", "python", "words"),
    [
        ("nowhere", "", ["nowhere", "no such folder", "auto"]),
        ("wheels", "", ["other==2.0, thing==1.0", "pip download"]),
        ("wheels", "three", ["--python three", "3.12"]),
    ],
)
def test_what_cannot_be_had_is_one_line(
    source: str,
    python: str,
    words: list[str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as raised:
        gather_wheels(source, {"other": "2.0", "thing": "1.0"}, folder, python)
    for word in words:
        assert word in str(raised.value)


def test_what_pip_cannot_get_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RequestError, match=r"--wheels auto: .*no-such-thing"):
        gather_wheels("auto", {"no-such-thing": "1.0"}, folder, "")


def test_what_is_not_installed_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "needed_requirements", lambda: ["no-such-thing>=1"])
    with pytest.raises(RequestError, match="no-such-thing is not installed here"):
        needed_wheels()
