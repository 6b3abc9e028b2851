"""A bundle: a benchmark with all that a machine needs to run it that has torch and Lightning alone.

Layout, below a folder of the benchmark's name: `run.py` (see `intentbench.runner.bundle_start`),
`manifest.json`, `benchmarks/` (the spec and `models/*.yaml` beside it), `models/` (those one folder
up), `code/` (both packages), `data/` (prepared datasets), `done/` (trials that exist already),
`plugin/`, `wheels/`. The same input gives the same bytes.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from datamodules.errors import RequestError
from intentbench.results.environment import COMMIT, describe_environment
from intentbench.results.fingerprint import PACKAGES, ROOT
from intentbench.results.store import (
    CHECKPOINT,
    CONFIG,
    NOISE_RANKS,
    RANKS,
    RESULT,
    atomic_file,
)
from intentbench.runner import bundle_start
from intentbench.runner.grid import Planned, RunOptions, choose_jobs, plan_grid
from intentbench.runner.wheels import needed_requirements, package_version
from intentbench.spec import BenchmarkSpec
from intentbench.text.nodes import SHUFFLED

FORMAT = 1
"""Version of the layout."""


@dataclass(frozen=True)
class Bundle:
    """What goes into a bundle.

    Attributes:
        name: its folder.
        files: name in the bundle to a file, or to the bytes themselves.
        manifest: all of it, but for "files", which writing adds.
    """

    name: str
    files: Mapping[str, Path | bytes]
    manifest: Mapping[str, Any]

    def with_wheels(self, wheels: list[Path]) -> "Bundle":
        """The same with wheels."""
        return replace(
            self, files={**self.files, **{f"wheels/{path.name}": path for path in wheels}}
        )


def collect(
    spec: BenchmarkSpec, file: Path, options: RunOptions, arguments: Sequence[str] = ()
) -> Bundle:
    """Prepare the data, and say what goes into the bundle; nothing is written but prepared data.

    Args:
        spec: the benchmark, with the chosen rows, datasets and seeds.
        file: where it was read from.
        options: `out` is the root of the runs that exist, `data_root` where data lies.
        arguments: options of `intentbench run` that chose them, such as "--models=a,b".

    Raises:
        RequestError: data cannot be had, or a method, a plugin or texts cannot be carried.
    """
    grid = plan_grid(spec, options)
    _check_methods(spec)
    files: dict[str, Path | bytes] = {"run.py": Path(bundle_start.__file__)}
    words = [f"benchmarks/{file.name}", "--data-root", "data", "--out", "runs", "--no-page"]
    files[f"benchmarks/{file.name}"] = file
    places = ("benchmarks/models", "models")  # as at home: a method's files belong together
    for name, folder in zip(places, file.absolute().parents, strict=False):
        files |= {f"{name}/{path.name}": path for path in folder.glob("models/*.yaml")}
    if spec.plugin:
        name = f"plugin/{Path(spec.plugin).name}"
        files[name] = Path(spec.plugin)
        words += ["--plugin", name]
    words += arguments
    files |= _code()
    datasets = {}
    for planned in grid:
        place = planned.job.prepared
        datasets[planned.job.trial.dataset] = {
            "folder": f"data/prepared/{place.name}",
            "fingerprint": planned.job.trial.fingerprint,
        }
        files |= {f"data/prepared/{place.name}/{p.name}": p for p in _files(place)}
        files |= _texts(planned)
    done = dict(_finished(grid))
    manifest = {
        "format": FORMAT,
        "name": spec.name,
        "run": words,
        "needs": needed_requirements(),
        "made_with": _made_with(),
        "datasets": datasets,
        "trials": {"all": len(grid), "done": sum(name.endswith(RESULT) for name in done)},
    }
    return Bundle(spec.name, {**files, **done}, manifest)


def write_bundle(bundle: Bundle, path: Path) -> int:
    """Write the tar archive, whole or not at all; entries are sorted and carry no time or owner.

    Returns:
        Its bytes.

    Raises:
        OSError: the disk is full or may not be written; an older file stays as it was.
    """
    with (
        atomic_file(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tape,
    ):
        facts = {
            name: _add(tape, f"{bundle.name}/{name}", bundle.files[name])
            for name in sorted(bundle.files)
        }
        text = json.dumps({**bundle.manifest, "files": facts}, indent=1, sort_keys=True)
        _add(tape, f"{bundle.name}/manifest.json", f"{text}\n".encode())
    return path.stat().st_size


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.digest.update(block)
        return block


def _add(tape: tarfile.TarFile, name: str, source: Path | bytes) -> dict[str, Any]:
    """Add a file; its checksum is that of the bytes that went in."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        entry = tarfile.TarInfo(name)
        entry.size = file.seek(0, os.SEEK_END)
        file.seek(0)
        hashed = _Hashed(file)
        tape.addfile(entry, hashed)
    return {"bytes": entry.size, "sha256": hashed.digest.hexdigest()}


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


def _code() -> Iterator[tuple[str, Path | bytes]]:
    """Both packages, with the metadata that an installed one would have."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            inside = path.relative_to(ROOT)
            if path.is_file() and not any(p == "__pycache__" or p[0] == "." for p in inside.parts):
                yield f"code/{inside.as_posix()}", path
    version = package_version()
    lines = ["Metadata-Version: 2.1", "Name: intentbench", f"Version: {version}"]
    lines += [f"Requires-Dist: {need}" for need in needed_requirements()]
    text = "\n".join(lines) + "\n"
    yield f"code/intentbench-{version}.dist-info/METADATA", text.encode()
    here = describe_environment("", 0)
    commit = {"commit": here["commit"], "dirty": here["dirty"]}
    yield f"code/{COMMIT}", (json.dumps(commit) + "\n").encode()


def _made_with() -> dict[str, Any]:
    here = describe_environment("", 0)
    return {name: here[name] for name in ("commit", "dirty", "python", "packages")}


def _check_methods(spec: BenchmarkSpec) -> None:
    """Refuse methods whose code would stay behind."""
    for entrant in spec.entrants:
        module = entrant.cls.__module__
        if module.partition(".")[0] not in PACKAGES and module != Path(spec.plugin).stem:
            raise RequestError(
                f"{entrant.label}: {module} is another installed package, which a bundle does not "
                "carry; give its file with --plugin"
            )


def _texts(planned: Planned) -> Iterator[tuple[str, Path]]:
    """Folders of text features that a row names, at the place that it names."""
    trial = planned.job.trial
    if not trial.reads:
        return
    for source in _named(trial.arguments):
        while match := SHUFFLED.fullmatch(source):
            source = match["source"]
        folder = Path(source)
        if folder.is_dir():
            if folder.is_absolute() or ".." in folder.parts:
                raise RequestError(
                    f"{trial.label}: text: {source}: a bundle can carry it only from below the "
                    "current folder, by a relative path"
                )
            yield from ((path.as_posix(), path) for path in _files(folder))


def _named(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Values of `text`, also of arguments of an encoder."""
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            yield from _named(value)
        elif name == "text" and isinstance(value, str):
            yield value


def _finished(grid: list[Planned]) -> Iterator[tuple[str, Path]]:
    """What is left of trials that are done: ranks, and checkpoints that others start from."""
    started_from = {job.after for job in choose_jobs(grid, rerun_stale=False)}
    for planned in grid:
        if planned.state not in ("done", "stale"):
            continue
        folder, trial = planned.job.folder, planned.job.trial
        names = [CONFIG, RANKS, NOISE_RANKS, RESULT]
        names += [CHECKPOINT] if folder in started_from else []
        for name in names:
            if (folder / name).is_file():
                yield f"done/{trial.dataset}/{trial.label}/{trial.name}/{name}", folder / name
