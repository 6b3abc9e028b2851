"""Whatever is changed in a published page, or in the ranks below it, is found and named."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.cli import main
from intentbench.reports.plan import Plan
from intentbench.reports.publish import publish
from intentbench.reports.verify import (
    compare_texts,
    unrounded_numbers,
    verify_board,
    verify_boards,
)
from tests.reports.fake_runs import GRU, KNN, POPULARITY, SASREC, write_runs

NAMES = ("board", "second")
PICTURE = "board.beauty.groups.svg"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two boards, one of them with a picture."""
    runs = tmp_path_factory.mktemp("runs")
    write_runs(runs, [POPULARITY, KNN, SASREC, GRU])
    out = tmp_path_factory.mktemp("boards") / "leaderboards"
    publish(runs, "board", out, Plan(reference="item_knn", groups=2))
    publish(runs / "beauty" / "item_knn", "second", out)
    (out / "README.md").write_text("Written by hand.\n")
    return out


@pytest.fixture
def out(published: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(published, tmp_path / "leaderboards"))


@pytest.fixture(scope="module")
def numbers(published: Path) -> list[float]:
    """What the pages' text is rounded from."""
    found = unrounded_numbers((published / "board.json").read_text())
    return [number for number in found if number != 0.0875]  # made up so that either is right


def _found(out: Path) -> list[str]:
    return [finding for check in verify_boards(out) for finding in check.findings]


def _spoil_ranks(path: Path, change: Callable[[np.ndarray], None]) -> None:
    with np.load(path) as arrays:
        rank = arrays["rank"].copy()
    change(rank)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rank=rank)
    path.write_bytes(buffer.getvalue())


def test_what_was_published_is_what_the_ranks_give(published: Path) -> None:
    checks = list(verify_boards(published))
    assert [check.name for check in checks] == list(NAMES)
    assert [(c.findings, c.pages, c.rounded) for c in checks] == [((), 3, 0)] * 2
    drawn = [len(list(published.glob(f"{name}.*.svg"))) for name in NAMES]
    assert [check.pictures for check in checks] == drawn
    assert drawn[0] >= 1


@pytest.mark.parametrize("page", ["board.md", "board.csv"])
def test_every_digit_of_a_page_is_held(published: Path, numbers: list[float], page: str) -> None:
    lines = (published / page).read_text().split("\n")
    for number, line in enumerate(lines, 1):
        for place, sign in enumerate(line):
            if sign.isdigit():
                for other in {(int(sign) + 1) % 10, (int(sign) - 1) % 10}:
                    spoilt = f"{line[:place]}{other}{line[place + 1 :]}"
                    differing, close = compare_texts(page, spoilt, line, numbers)
                    assert len(differing) == 1, (number, spoilt)
                    assert close == 0


def test_every_value_of_json_is_held(published: Path) -> None:
    lines = (published / "board.json").read_text().split("\n")
    for line in lines:
        key, _, value = line.rpartition(": ")
        value, comma = value.rstrip(","), line[len(line.rstrip(",")) :]
        if re.fullmatch(r"-?\d+", value):
            others = [str(int(value) + 1), f"{value}.0"]
        elif re.fullmatch(r"-?\d[\d.e-]*", value):
            others = [repr(float(value) * (1 + 2e-6)), repr(-float(value)), "0.0", "null"]
            others = others if abs(float(value)) > 1e-8 else ["null"]
            close = repr(float(value) * (1 + 5e-7))
            assert compare_texts("a.json", f"{key}: {close}{comma}", line, [])[0] == []
        elif value.startswith('"'):
            others = [value.swapcase() if value.swapcase() != value else '"other"']
        else:
            continue
        for other in others:
            spoilt = f"{key}: {other}{comma}" if key else f"{other}{comma}"
            assert len(compare_texts("a.json", spoilt, line, [])[0]) == 1, (line, spoilt)


def test_rounding_is_no_finding() -> None:
    """A mean of .0545125 may be printed as .054512 and as .054513, but one of .0545122 may not."""
    for page in ("a.csv", "a.md"):
        assert compare_texts(page, "x,0.054512", "x,0.054513", [0.01, 0.0545125, 0.2]) == ([], 1)
        assert len(compare_texts(page, "x,0.054512", "x,0.054513", [0.0545122])[0]) == 1
        assert len(compare_texts(page, "x,0.054512", "x,0.054514", [0.054513])[0]) == 1
    assert compare_texts("a.md", "| +5.2 ^ |", "| +5.3 ^ |", [0.0525]) == ([], 1)
    assert len(compare_texts("a.md", "| +5.2 ^ |", "| +5.3 ^ |", [5.25])[0]) == 1
    assert compare_texts("a.md", "| -0.0 ^ |", "| 0.0 ^ |", []) == ([], 1)
    assert len(compare_texts("a.md", "tier 1", "tier 2", [1.5])[0]) == 1


@pytest.mark.parametrize(
    ("page", "pattern", "other"),
    [
        ("board.md", r"(0\.\d{3})\d", r"\g<1>x"),
        ("board.md", r"\] \^", "] ="),
        ("board.md", r"\] v", "] ~"),
        ("board.md", r"\| 3 \| 1 \|", "| 3 | 2 |"),
        ("board.md", "item_knn", "item_cnn"),
        ("board.csv", ",true,", ",false,"),
        ("board.json", r'"tier": 1', '"tier": 2'),
        ("board.json", r'"mark": "\^"', '"mark": "="'),
        ("board.json", r'"won": \d+', '"won": 1'),
        ("board.json", r'"arguments": {', '"arguments": {\n"secret": 1,'),
    ],
)
def test_a_changed_page_is_named(out: Path, page: str, pattern: str, other: str) -> None:
    text = (out / page).read_text()
    spoilt, times = re.subn(pattern, other, text, count=1)
    assert times == 1
    (out / page).write_text(spoilt)
    before, after = (body.split("\n") for body in (text, spoilt))
    line = next(n for n, (a, b) in enumerate(zip(before, after, strict=False), 1) if a != b)
    found = _found(out)
    assert found[0].startswith(f"{page}:{line}: printed ")
    assert len(found) == (1 if len(before) == len(after) else 2)


@pytest.mark.parametrize("place", ["best", "far"])
def test_one_changed_rank_is_found(out: Path, place: str) -> None:
    """Also one far down, which moves MRR alone, and that in its eighth digit."""

    def change(rank: np.ndarray) -> None:
        target = int(np.argmin(rank[1]) if place == "best" else np.argmax(rank[1]))
        rank[1, target] += 1

    _spoil_ranks(out / "ranks/board/beauty/gru4rec.npz", change)
    (finding, *_) = _found(out)
    assert "gru4rec, seed 1" in finding
    assert "its ranks give" in finding


def test_ranks_that_changed_users_are_found(out: Path) -> None:
    """No mean changes, but who won does, and with it every test."""

    def change(rank: np.ndarray) -> None:
        rank[:] = rank[:, ::-1]

    _spoil_ranks(out / "ranks/board/beauty/gru4rec.npz", change)
    found = _found(out)
    assert any(finding.startswith("board.json:") for finding in found)
    assert any(finding.startswith("board.md:") for finding in found)


def test_a_record_that_states_another_metric_is_found(out: Path) -> None:
    path = out / "ranks/board/beauty/gru4rec.json"
    records = json.loads(path.read_text())
    records[0]["metrics"]["ndcg@10"] += 1e-10  # below what publishing asks for
    path.write_text(json.dumps(records))
    assert any("gru4rec, seed 0: recorded ndcg@10" in finding for finding in _found(out))


def test_missing_and_stray_files_are_named(out: Path) -> None:
    (out / PICTURE).unlink()
    (out / "board.csv").unlink()
    (out / "lonely.md").write_text("# A page\n")
    shutil.rmtree(out / "ranks/second")
    found = _found(out)
    assert [finding.split(":")[0] for finding in found] == [
        "board.csv",
        PICTURE,
        "lonely.md",
        "second.csv",
        "second.json",
        "second.md",
    ]
    command = f"`intentbench report {out}/ranks/board -o {out}` writes it"
    assert all(finding.endswith(f"is missing; {command}") for finding in found[:2])
    assert all("no ranks" in finding for finding in found[2:])


def test_a_page_may_not_show_a_picture_that_is_not_there(out: Path) -> None:
    page = out / "board.md"
    page.write_text(page.read_text().replace(PICTURE, "gone.svg"))
    assert "board.md: shows gone.svg, which is missing" in _found(out)


def test_damaged_ranks_fail_their_board_alone(out: Path) -> None:
    path = out / "ranks/board/beauty/item_knn.npz"
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"",
        *(whole[:n] + b"\0\1\2\3" + whole[n + 4 :] for n in range(60, len(whole), 50)),
    ):
        path.write_bytes(damaged)
        if damaged != whole and (check := verify_board(out / "ranks/board", out)).findings:
            assert "cannot be computed again" in check.findings[0]
    path.write_bytes(whole[: len(whole) // 2])
    assert [bool(check.findings) for check in verify_boards(out)] == [True, False]
    path.write_bytes(whole)
    shutil.move(out / "ranks/second", out / "ranks/third")
    found = _found(out)
    assert "are the ranks of board 'second'" in found[0]


def test_the_command_says_what_differs(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    pictures = len(list(out.glob("board.*.svg")))
    assert printed[0] == f"ok     board: 3 pages; {pictures} pictures there, not compared"
    assert printed[1].startswith("ok     second: 3 pages")
    assert len(printed) == 2
    page = out / "second.csv"
    page.write_text(page.read_text().replace("0.", "1.", 1))
    assert main(["verify", str(out)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "FAILED second: 1 findings"
    assert printed[2].strip().startswith("second.csv:2: printed ")
    assert main(["verify", str(out / "ranks")]) == 2
    with pytest.raises(RequestError, match="has no folder ranks/"):
        next(verify_boards(out / "ranks"))


def test_it_loads_no_torch(published: Path) -> None:
    code = (
        "import sys; from intentbench.cli import main; status = main(['verify', sys.argv[1]]);"
        "sys.exit(status or 3 * bool({'torch', 'lightning', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(published)], capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
