"""The wheels that a machine lacks which has torch and Lightning alone."""

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from datamodules.errors import RequestError
from intentbench.results.fingerprint import ROOT

THERE = ("torch", "lightning", "torchmetrics", "numpy", "scipy", "pyarrow")
"""What the other machine has, with all that these need."""

AT_HOME = ("polars", "datasets", "matplotlib", "httpx2")
"""What only preparing, pages and language models need: that is done at home."""

PACKAGE = "intentbench"


def needed_requirements() -> list[str]:
    """What running trials needs, as the package's metadata states it."""
    found = [Requirement(line) for line in _declared()]
    kept = [need for need in found if canonicalize_name(need.name) not in AT_HOME]
    return sorted(str(need) for need in kept if need.marker is None or need.marker.evaluate())


def package_version() -> str:
    """Version of the code beside this file, which an installed copy's metadata may lag behind."""
    project = _project()
    return str(project["version"]) if project else version(PACKAGE)


def needed_wheels(python: str = "") -> dict[str, str]:
    """Distributions to carry and their versions here, in the order of their names.

    Args:
        python: version of the other machine's Python, "3.12"; "" for this one's.

    Raises:
        RequestError: one of them is not installed here, so that its version is not known.
    """
    there = _closure(THERE, python)
    wanted = _closure(needed_requirements(), python)
    return {name: _version(name) for name in sorted(wanted - there)}


def gather_wheels(source: str, needed: Mapping[str, str], folder: Path, python: str) -> list[Path]:
    """The wheels of distributions: from an index, or from a folder.

    Args:
        source: "auto" downloads those versions with pip; anything else is a folder, of which the
            newest wheel of each that fits the other machine's Python is taken.
        needed: name to version.
        folder: gets what is downloaded.
        python: as of `needed_wheels`; the other machine's system is taken to be like this one.

    Raises:
        RequestError: pip cannot get them, or the folder lacks some.
    """
    if source == "auto":
        _download(needed, folder, python)
        return sorted(folder.glob("*.whl"))
    place = Path(source)
    if not place.is_dir():
        raise RequestError(f"--wheels {source}: no such folder; or say auto to download them")
    tags = set(_tags(python))
    found: dict[str, tuple[object, Path]] = {}
    for path in sorted(place.glob("*.whl")):
        try:
            name, release, _, fits = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if tags & fits and (name not in found or release > found[name][0]):  # type: ignore[operator]  # both are versions
            found[name] = release, path
    if lacking := [f"{name}=={known}" for name, known in needed.items() if name not in found]:
        raise RequestError(
            f"--wheels {source}: no wheel for Python {python or _here()} of {', '.join(lacking)}; "
            "`pip download --no-deps` them into it"
        )
    return [found[name][1] for name in needed]


def _declared() -> list[str]:
    """Requirements without extras: of the checkout that the code lies in, else as installed."""
    if project := _project():
        return list(project["dependencies"])
    return [line for line in requires(PACKAGE) or [] if "extra ==" not in line]


def _project() -> dict[str, Any] | None:
    path = ROOT / "pyproject.toml"
    if not path.is_file():
        return None
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return project if project["name"] == PACKAGE else None


def _closure(requirements: Iterable[str], python: str) -> set[str]:
    """Distributions and all that they need on the other machine; of torch only what is here."""
    waiting, seen = [Requirement(line) for line in requirements], set[tuple[str, str]]()
    while waiting:
        need = waiting.pop()
        name = str(canonicalize_name(need.name))
        for extra in ["", *need.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            environment = {"extra": extra} | ({"python_version": python} if python else {})
            waiting += [
                further
                for further in map(Requirement, _requires(name))
                if further.marker is None or further.marker.evaluate(environment)
            ]
    return {name for name, _ in seen}


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:  # named for another system, as torch's CUDA libraries are
        return []


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        raise RequestError(f"--wheels: {name} is not installed here: pip install {name}") from None


def _download(needed: Mapping[str, str], folder: Path, python: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder)]
    if python:
        platforms = dict.fromkeys(tag.platform for tag in _tags(python))
        command += ["--python-version", python, "--implementation", "cp"]
        command += [part for platform in platforms for part in ("--platform", platform)]
    command += [f"{name}=={release}" for name, release in needed.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (fixed program; names and versions come from metadata)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no pip here"]
        raise RequestError(f"--wheels auto: {said[-1]}; or give a folder of wheels")


def _tags(python: str) -> list[Tag]:
    if not python:
        return list(sys_tags())
    try:
        major, minor = (int(part) for part in python.split("."))
    except ValueError:
        raise RequestError(f"--python {python}: expected a version such as 3.12") from None
    platforms = list(dict.fromkeys(tag.platform for tag in sys_tags() if tag.platform != "any"))
    ours = cpython_tags((major, minor), platforms=platforms)
    return [*ours, *compatible_tags((major, minor), f"cp{major}{minor}", platforms)]


def _here() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
