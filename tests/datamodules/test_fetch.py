import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datamodules import fetch
from datamodules.errors import ChecksumError, DatasetNotFoundError, FormatError, RequestError
from datamodules.fetch import download, extract_member, file_sha256

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Server:
    """What a local server does, and what it saw."""

    url: str = ""
    etag: str | None = '"v1"'
    body: bytes = BODY
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes sent by each of the next answers
    statuses: list[int] = field(default_factory=list)  # errors of the next answers
    corrupt: int = 0  # how many answers have a flipped byte
    sent: int = 0
    asked: list[str | None] = field(default_factory=list)


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.asked.append(asked)
            if server.statuses:
                self.send_error(server.statuses.pop(0))
                return
            start = self.start(asked)
            if start >= len(server.body):
                self.send_error(416)
                return
            body = bytearray(server.body[start:])
            if server.corrupt:
                server.corrupt -= 1
                body[0] ^= 1
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if server.etag:
                self.send_header("ETag", server.etag)
            if start:
                last, size = len(server.body) - 1, len(server.body)
                self.send_header("Content-Range", f"bytes {start}-{last}/{size}")
            self.end_headers()
            if server.cut_after:
                body = body[: server.cut_after.pop(0)]
                self.close_connection = True
            server.sent += len(body)
            self.wfile.write(body)

        def start(self, asked: str | None) -> int:
            if asked is None or not server.ranges:
                return 0
            if self.headers.get("If-Range", server.etag) != server.etag:
                return 0
            return int(asked.removeprefix("bytes=").removesuffix("-"))

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(state)) as http:
        state.url = f"http://127.0.0.1:{http.server_port}/data.bin"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_download_verifies_and_leaves_only_the_target(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "data.bin"
    download(server.url, target, sha256=SHA256, size=len(BODY))
    assert target.read_bytes() == BODY
    assert file_sha256(target) == SHA256
    assert left(target.parent) == {"data.bin"}


def test_a_file_that_is_fetched_is_printed_as_it_is_named(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(server.url, tmp_path / "p:ok:[red]q[a].bin", sha256=SHA256)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "p:ok:[red]q[a].bin: downloading"
    assert lines[-1] == "p:ok:[red]q[a].bin: 1.0 of 1.0 MiB"


def test_the_last_line_is_the_whole_however_the_pieces_fall(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with fetch._shown("data.bin", 0, 10 * 2**20) as advance:
        for _ in range(6):
            advance(int(1.5 * 2**20))
        advance(2**20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == ["data.bin: 9.0 of 10.0 MiB", "data.bin: 10.0 of 10.0 MiB"]


def test_download_of_what_is_there_asks_nobody(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"mine")
    download(server.url, tmp_path / "data.bin", sha256=SHA256)
    assert server.asked == []


def test_broken_connections_are_resumed_to_the_byte(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 200_000]
    download(server.url, tmp_path / "data.bin", sha256=SHA256, pause=0)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert server.sent == len(BODY)


def test_a_later_call_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "data.bin"
    server.cut_after = [400_000]
    with pytest.raises(DatasetNotFoundError, match="closed after 400000 of 1048576 bytes"):
        download(server.url, target, sha256=SHA256, attempts=1)
    assert not target.exists()
    assert (tmp_path / "data.bin.part").stat().st_size == 400_000
    download(server.url, target, sha256=SHA256, attempts=1)
    assert server.sent == len(BODY)
    assert left(tmp_path) == {"data.bin"}


def test_a_file_that_changed_in_between_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000]
    with pytest.raises(DatasetNotFoundError):
        download(server.url, tmp_path / "data.bin", attempts=1)
    server.etag, server.body = '"v2"', BODY[::-1]
    download(server.url, tmp_path / "data.bin", attempts=1)
    assert (tmp_path / "data.bin").read_bytes() == BODY[::-1]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut_after = False, [300_000]
    download(server.url, tmp_path / "data.bin", sha256=SHA256, pause=0)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert server.sent == len(BODY) + 300_000


def test_nothing_is_resumed_when_no_change_could_be_noticed(server: Server, tmp_path: Path) -> None:
    server.etag, server.cut_after = None, [300_000]
    download(server.url, tmp_path / "data.bin", pause=0)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert server.asked == [None, None]


def test_one_corrupt_answer_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.corrupt = 1
    download(server.url, tmp_path / "data.bin", sha256=SHA256)
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_two_corrupt_answers_are_another_file(server: Server, tmp_path: Path) -> None:
    server.corrupt = 2
    with pytest.raises(ChecksumError, match=f"expected sha256 {SHA256}, found [0-9a-f]{{64}}"):
        download(server.url, tmp_path / "data.bin", sha256=SHA256)
    assert left(tmp_path) == set()


def test_a_wrong_size_is_another_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match="expected 5 bytes, found 1048576"):
        download(server.url, tmp_path / "data.bin", size=5)


def test_a_missing_file_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    server.statuses = [404, 404]
    with pytest.raises(DatasetNotFoundError, match=r"HTTP Error 404.*put the file here") as caught:
        download(server.url, tmp_path / "data.bin")
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [500, 503, 429]
    download(server.url, tmp_path / "data.bin", sha256=SHA256, pause=0)
    assert len(server.asked) == 4


def test_a_part_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(BODY + b"more")
    download(server.url, tmp_path / "data.bin", sha256=SHA256, pause=0)
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_no_server_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"refused.*try again later"):
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=2, pause=0)


def test_many_at_once_download_once(server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(download, server.url, tmp_path / "data.bin", sha256=SHA256)
            for _ in range(4)
        ]:
            done.result()
    assert server.sent == len(BODY)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "hf://datasets/a/b/c.csv", "hf://models/a/b@c/d"]
)
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected h"):
        download(url, tmp_path / "x")


def test_a_broken_address_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^http://\[::1: not an address: Invalid IPv6"):
        download("http://[::1", tmp_path / "x")


def test_hub_files_come_at_their_commit(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/data.bin"))
    download("hf://datasets/owner/name@0123abc/a/b.csv", tmp_path / "b.csv", sha256=SHA256)
    assert (tmp_path / "b.csv").read_bytes() == BODY


def test_extract_member_takes_the_named_one_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("../evil.txt", "no")
        zipped.writestr("set/ratings.csv", "yes")
    extract_member(tmp_path / "a.zip", "set/ratings.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "yes"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tape:
        info = tarfile.TarInfo("set/ratings.csv")
        info.size = 3
        tape.addfile(info, io.BytesIO(b"yes"))
    extract_member(tmp_path / "a.tar.gz", "set/ratings.csv", tmp_path / "tar.csv")
    assert (tmp_path / "tar.csv").read_text() == "yes"
    assert left(tmp_path) == {"a.zip", "a.tar.gz", "out.csv", "tar.csv"}


def test_extract_member_stops_at_the_limit(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("zeros", bytes(4_000_000))
    with pytest.raises(FormatError, match="more than 1000 bytes"):
        extract_member(tmp_path / "bomb.zip", "zeros", tmp_path / "out", limit=1000)
    assert (tmp_path / "out").stat().st_size <= 1000


def test_extract_member_names_archive_and_member(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"not an archive")
    with pytest.raises(FormatError, match=r"no\.zip: cannot read ratings"):
        extract_member(tmp_path / "no.zip", "ratings", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("other", "x")
    with pytest.raises(FormatError, match=r"a\.zip: cannot read ratings"):
        extract_member(tmp_path / "a.zip", "ratings", tmp_path / "out")
