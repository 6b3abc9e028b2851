"""`run.py` of a bundle: checks the files, installs the wheels into `site/`, runs what is missing.

It is copied into every bundle, and needs Python's own library alone until all is in place.
Arguments go to `intentbench run`; the runs lie in `runs/`.
"""

from __future__ import annotations  # so that an older Python comes as far as saying that it is

import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

OLDEST = (3, 11)
"""Of the versions of Python that the code runs on."""


def check_files(here: Path, files: dict[str, dict[str, Any]]) -> list[str]:
    """Names of files that are missing, or not those that were packed."""
    wrong = []
    for name, facts in files.items():
        try:
            with (here / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                    wrong.append(name)
        except OSError:
            wrong.append(name)
    return wrong


def read_manifest(path: Path) -> dict[str, Any]:
    """What a bundle says of itself; leaves with 2 where that is missing or damaged."""
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in (("files", dict), ("needs", list), ("run", list)):
            if not isinstance(manifest[name], kind):
                raise TypeError(name)
    except (OSError, ValueError, KeyError, TypeError):
        _leave(f"not as packed: {path.name} is missing or damaged; unpack it again")
    return manifest


def install(here: Path, wheels: list[str]) -> None:
    """Put the wheels into `site/`, which is there whole or not at all."""
    site, part = here / "site", here / "site.part"
    if not wheels or site.exists():
        return
    shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-warn-script-location", "--target", str(part)]
    if subprocess.run([*command, *[str(here / wheel) for wheel in wheels]], check=False).returncode:  # noqa: S603 (fixed program, files of the bundle)
        _leave("the wheels cannot be installed, see above; pack again with --python or --wheels")
    part.rename(site)


def find_lacking(needs: list[str]) -> list[str]:
    """Requirements that nothing on the path meets."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        return ["packaging", *needs]
    lacking = []
    for line in needs:
        need = Requirement(line)
        try:
            if not need.specifier.contains(metadata.version(need.name), prereleases=True):
                lacking.append(f"{line} (found {metadata.version(need.name)})")
        except metadata.PackageNotFoundError:
            lacking.append(line)
    return lacking


def main(arguments: list[str]) -> int:
    """Check, install, run; 2 where the machine or the bundle is not as it must be."""
    if sys.version_info < OLDEST:
        oldest, found = (".".join(map(str, part)) for part in (OLDEST, sys.version_info[:3]))
        _leave(f"Python {oldest} or newer is needed, this is {found}")
    here = Path(__file__).resolve().parent
    manifest = read_manifest(here / "manifest.json")
    if wrong := check_files(here, manifest["files"]):
        _leave(f"not as packed: {', '.join(wrong[:5])} ({len(wrong)} in all); unpack it again")
    install(here, [name for name in manifest["files"] if name.endswith(".whl")])
    added = [str(here / "code"), str(here / "site")]
    sys.path[:0] = added
    if lacking := find_lacking(manifest["needs"]):
        _leave(f"this machine lacks {', '.join(lacking)}; install them, or pack --wheels auto")
    path = os.pathsep.join([*added, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}

    def start(*words: str) -> int:
        command = [sys.executable, "-m", "intentbench.cli", *words]
        return subprocess.run(command, cwd=here, env=environment, check=False).returncode  # noqa: S603 (fixed program)

    if (here / "done").exists() and not (here / "runs").exists():
        if start("merge", "done", "--into", "runs.part", "--checkpoints"):
            _leave("the trials in done/ cannot be taken, see above; mend them and pack again")
        (here / "runs.part").rename(here / "runs")  # merged whole, or merged again
    status = start("run", *manifest["run"], *arguments)
    sys.stdout.write(f"to bring home: {here / 'runs'} (intentbench merge)\n")
    return status


def _leave(line: str) -> NoReturn:
    sys.stderr.write(f"bundle: {line}\n")
    sys.exit(2)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
