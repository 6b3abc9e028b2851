"""Files from elsewhere: streamed, resumed, verified; archives opened one named member at a time.

A download grows in `<name>.part` beside its target, with the server's validator in
`<name>.part.tag`, and takes the target's name only once its size and sha256 are right. Whatever
stops it half-way, the next call asks for the missing bytes alone.
"""

import hashlib
import os
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from datamodules.console import plain_console
from datamodules.errors import ChecksumError, DatasetNotFoundError, FormatError, RequestError

TIMEOUT = 60
"""Seconds without a byte after which a connection counts as lost."""

MEMBER_LIMIT = 16 * 2**30
"""Bytes that an archive's member may have once unpacked: no known file needs more."""

_BLOCK = 1 << 16
_PASSING = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    attempts: int = 5,
    pause: float = 1.0,
) -> None:
    """Fetch `url` into `target`, resuming what an earlier call left; nothing to do if it is there.

    Args:
        url: http(s) address, or `hf://datasets/OWNER/NAME@COMMIT/PATH`.
        target: where to put it; folders are made. One process downloads, others wait for it.
        sha256: checksum it must have, in hexadecimal.
        size: bytes it must have.
        attempts: how often to try; connections that break are resumed.
        pause: seconds before the second attempt; each further one waits twice as long.

    Raises:
        DatasetNotFoundError: the server has no such file, or cannot be reached.
        ChecksumError: what it sends is, twice over, not the catalogued file.
        OSError: the disk is full or cannot be written.
    """
    address = _address(url)
    part = Path(f"{target}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists():
            return
        for corrupt_before in (False, True):  # once may be the network, twice is another file
            _receive_whole(address, part, size, sha256, attempts, pause)
            problem = difference(part, sha256, size)
            if problem is None:
                break
            _discard(part)
            if corrupt_before:
                raise ChecksumError(f"{url}: not the catalogued file: {problem}; nothing was kept")
        part.replace(target)
        _tag(part).unlink(missing_ok=True)


def difference(path: Path, sha256: str | None, size: int | None) -> str | None:
    """How a file differs from the size and sha256 it should have; None where it does not."""
    found_size = path.stat().st_size
    if size is not None and found_size != size:
        return f"expected {size} bytes, found {found_size}"
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        return f"expected sha256 {sha256}, found {found}"
    return None


def extract_member(archive: Path, member: str, target: Path, limit: int = MEMBER_LIMIT) -> None:
    """Unpack one named member of a zip or tar archive into `target`; no other name is touched.

    Raises:
        FormatError: no such archive or member, or the member is larger than `limit` bytes.
    """
    try:
        with _open_member(archive, member) as source, target.open("wb") as file:
            written = 0
            while block := source.read(1 << 20):
                written += len(block)
                if written > limit:
                    raise FormatError(f"{archive}: {member} has more than {limit} bytes unpacked")
                file.write(block)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise FormatError(f"{archive}: cannot read {member} from it: {error}") from None


@contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped, zipped.open(member) as source:
            yield source
        return
    with tarfile.open(archive) as tape:
        extracted = tape.extractfile(member)
        if extracted is None:
            raise KeyError("not a regular file")
        with extracted as source:
            yield source


def _address(url: str) -> str:
    """The http(s) address of a URL; a hub file must name the commit, so that it cannot change."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # such as a bracket without its other one
        raise RequestError(f"{url}: not an address: {error}; correct the url") from None
    if parts.scheme == "hf":
        owner, _, rest = parts.path.lstrip("/").partition("/")
        name, _, path = rest.partition("/")
        name, at, commit = name.partition("@")
        if parts.netloc != "datasets" or not (owner and name and at and commit and path):
            raise RequestError(f"{url}: expected hf://datasets/OWNER/NAME@COMMIT/PATH")
        hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        return f"{hub}/datasets/{owner}/{name}/resolve/{commit}/{path}"
    if parts.scheme not in ("http", "https"):
        raise RequestError(f"{url}: expected http://, https:// or hf://datasets/")
    return url


def _tag(part: Path) -> Path:
    return Path(f"{part}.tag")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def _receive_whole(
    url: str, part: Path, size: int | None, sha256: str | None, attempts: int, pause: float
) -> None:
    """Connect until `part` is whole; a file that is not there is an error at once."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            return _receive(url, part, size, resumable=sha256 is not None)
        except _PASSING as error:
            lost: Exception = error
            if isinstance(error, HTTPError):
                error.close()
                if error.code == 416:  # range not satisfiable: our part is longer than the file
                    _discard(part)
                elif error.code < 500 and error.code not in (408, 429):
                    break
    target = part.with_suffix("")
    raise DatasetNotFoundError(f"{url}: {lost}; try again later, or put the file here: {target}")


def _receive(url: str, part: Path, size: int | None, *, resumable: bool) -> None:
    """One connection: append to `part` what is missing, or start anew if the server says so.

    A part is resumed when something can tell that the file has changed in between: the server's
    validator (If-Range), or a checksum at the end (`resumable`).
    """
    have = part.stat().st_size if part.exists() else 0
    if have and have == size:
        return
    headers = {"User-Agent": "intentbench", "Accept-Encoding": "identity"}
    tag = _tag(part).read_text(encoding="utf-8") if _tag(part).exists() else ""
    if have and (tag or resumable):
        headers["Range"] = f"bytes={have}-"
        if tag:
            headers["If-Range"] = tag
    request = Request(url, headers=headers)  # noqa: S310 (the scheme was checked)
    with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not (resumed and response.status == 206):
            have = 0
        total = _total(response, have)
        _tag(part).write_text(_validator(response), encoding="utf-8")
        with part.open("ab" if have else "wb") as file, _shown(part.stem, have, total) as advance:
            while block := response.read1(_BLOCK):
                file.write(block)
                have += len(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have < total:
        raise ConnectionError(f"connection closed after {have} of {total} bytes")


def _total(response: HTTPResponse, have: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None else have + int(length)


def _validator(response: HTTPResponse) -> str:
    """What If-Range may carry: a strong ETag, else the date of the last change, else nothing."""
    etag: str = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return str(response.headers.get("Last-Modified", ""))


@contextmanager
def _shown(name: str, have: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Progress on standard error: a bar on a terminal, a line each tenth in a log."""
    console = plain_console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(name, total=total, completed=have)
            yield lambda count: progress.advance(task, count)
        return
    step = (total or 10 * 2**30) / 10
    done, next_line = have, have + step

    def advance(count: int) -> None:
        nonlocal done, next_line
        done += count
        if done >= next_line or done == total:  # pieces are as the network cuts them
            of = "" if total is None else f" of {total / 2**20:.1f}"
            console.print(f"{name}: {done / 2**20:.1f}{of} MiB")
            next_line = done + step

    console.print(f"{name}: downloading")
    yield advance
