"""Archives of runs: unpacked whole, inside one folder, or refused."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.runner.archives import unpack_runs

FILES = {
    f"runs/toys/row/{trial}/{name}": np.random.default_rng(0).bytes(size)
    for trial in ("t0", "t1")
    for name, size in (("log.txt", 4096), ("result.json", 100))
}
"""Content that no compression changes much: a flipped byte mostly unpacks, as another byte."""


def _write(path: Path, mode: str) -> bytes:
    with tarfile.open(path, mode) as tape:  # type: ignore[call-overload]  # the tests say how
        for name, content in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tape.addfile(entry, io.BytesIO(content))
    return path.read_bytes()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_whole_archive_is_unpacked(mode: str, tmp_path: Path) -> None:
    _write(tmp_path / "a.tar", mode)
    folder = unpack_runs(tmp_path / "a.tar", tmp_path / "out")
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}
    assert {name: path.read_bytes() for name, path in found.items()} == FILES


def _link(tape: tarfile.TarFile) -> None:
    entry = tarfile.TarInfo("runs/link")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
    tape.addfile(entry)


def _climb(tape: tarfile.TarFile) -> None:
    tape.addfile(tarfile.TarInfo("../outside"))


def _absolute(tape: tarfile.TarFile) -> None:
    tape.addfile(tarfile.TarInfo("/etc/outside"))


@pytest.mark.parametrize("add", [_link, _climb, _absolute])
def test_archives_that_lead_elsewhere_are_refused(add: object, tmp_path: Path) -> None:
    assert callable(add)
    with tarfile.open(tmp_path / "a.tar", "w") as tape:
        add(tape)
    with pytest.raises(RequestError, match=r"a\.tar"):
        unpack_runs(tmp_path / "a.tar", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.tar", tmp_path / "out"]
    assert not list((tmp_path / "out").rglob("*"))


def test_archives_that_end_too_early_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    whole = _write(archive, "w")
    with tarfile.open(archive) as tape:
        starts = [member.offset for member in tape]
    assert len(starts) == len(FILES)
    for number, start in enumerate(starts[1:]):
        damaged = whole[:start] + b"\xff" * 20 + whole[start + 20 :]
        wiped = whole[:start] + bytes(512) + whole[start + 512 :]
        contents = (whole[:start], whole[: start + 100], whole[: start + 600], damaged, wiped)
        for kind, content in enumerate(contents):
            archive.write_bytes(content)
            with pytest.raises(RequestError, match=r"a\.tar: (ends too early|no archive of runs)"):
                unpack_runs(archive, tmp_path / f"{number}.{kind}")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_damaged_compressed_archives_are_refused(mode: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    whole = _write(archive, mode)
    for position in (len(whole) // 3, len(whole) // 2, len(whole) - 6):
        content = bytearray(whole)
        content[position] ^= 16
        archive.write_bytes(content)
        with pytest.raises(RequestError, match="no archive of runs that can be unpacked"):
            unpack_runs(archive, tmp_path / str(position))
