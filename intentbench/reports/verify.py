"""Published pages against their ranks: everything is computed again, number by number.

What counts as equal: the same bytes; else, line by line, the same words, marks, tiers and whole
numbers. A fraction may differ as rounding on another machine makes it: in JSON by a relative 1e-6;
in text by one unit of its last digit, and only where the unrounded number lies between the two.
"""

import re
import shlex
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import zip_longest
from math import isclose
from pathlib import Path

from datamodules.errors import RequestError
from intentbench.metrics.users import mean_metric, metric_names
from intentbench.reports.archive import read_archive
from intentbench.reports.cells import Table, build_tables, recorded_history
from intentbench.reports.history import check_history, read_history
from intentbench.reports.publish import RANKS, make_pages, shown_pictures
from intentbench.stats.effects import Effect

RELATIVE, ABSOLUTE = 1e-6, 1e-15
"""How far fractions of JSON may lie apart. The second is for what cancels to nearly nothing."""

METRIC = 1e-12
"""How far a metric may lie from the one recorded: closer than publishing asks, for both come from
the same sum and only its order may differ."""

PER_CENT = -2
"""Exponent of the last digit from which on a number of a text is taken as one in per cent."""

PICTURES = (".svg", ".png")
PAGES = (".md", ".csv", ".json")
README = "README.md"
"""The only page that is written by hand."""

SHOWN = 10
"""Lines of a page that are named before the others are counted."""

_BOUNDARY = 1e-9  # relative; JSON, from which the unrounded numbers are taken, has ten digits
_UNSHOWN = {f'"{field.name}":' for field in fields(Effect)}  # in JSON alone, and often short
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?")
_JSON_NUMBER = re.compile(r'(\s*(?:"(?:[^"\\]|\\.)*": )?)(-?\d+(?:\.\d+)?(?:e[-+]\d+)?)(,?)')


@dataclass(frozen=True)
class BoardCheck:
    """What came out for a board.

    Attributes:
        name: of the board.
        findings: what does not fit, a line each; none where all is well.
        pages: pages that were compared.
        rounded: numbers that differ as rounding makes them.
        pictures: those that are there; what they show is not compared.
        names: files that the ranks make; none where they make nothing.
    """

    name: str
    findings: tuple[str, ...]
    pages: int = 0
    rounded: int = 0
    pictures: int = 0
    names: frozenset[str] = frozenset()


def verify_boards(out: Path) -> Iterator[BoardCheck]:
    """Verify every board of a folder, and then that no page stands there without ranks.

    Args:
        out: folder of all leaderboards.

    Raises:
        RequestError: it holds no ranks.
    """
    if not (out / RANKS).is_dir():
        raise RequestError(
            f"{out}: has no folder {RANKS}/; give the folder of leaderboards, pages and ranks"
        )
    folders = sorted(path for path in (out / RANKS).glob("[!.]*") if path.is_dir())
    made: set[str] = set()
    lost: list[str] = []  # boards that cannot be computed: their pages are not stray
    for folder in folders:
        check = verify_board(folder, out)
        made |= check.names
        lost += [] if check.names else [f"{folder.name}."]
        yield check
    stray = [
        f"{page.name}: there are no ranks that it could be computed from"
        for page in sorted(out.iterdir())
        if page.suffix in (*PAGES, *PICTURES)
        and page.name != README
        and page.name not in made
        and not page.name.startswith(tuple(lost))
    ]
    if stray:
        yield BoardCheck("pages without ranks", tuple(stray))


def verify_board(folder: Path, out: Path) -> BoardCheck:
    """Compute the pages of published ranks again and compare.

    Args:
        folder: `<out>/ranks/<name>`.
        out: folder of all leaderboards.
    """
    try:
        name, _, results = read_archive(folder)
        if name != folder.name:
            return BoardCheck(folder.name, (f"{folder}: are the ranks of board {name!r}",))
        tables = build_tables(results)
        findings = _check_metrics(tables) + check_history(read_history(folder), tables)
        made = make_pages(folder)
    except Exception as error:  # noqa: BLE001 (whatever a damaged file raises is looked for)
        reason = str(error) if isinstance(error, RequestError) else repr(error)
        return BoardCheck(folder.name, (f"cannot be computed again: {' '.join(reason.split())}",))
    unrounded = unrounded_numbers(made[f"{name}.json"].decode())
    rounded = pictures = 0
    for page, content in made.items():
        if not (out / page).is_file():
            command = shlex.join(["intentbench", "report", str(folder), "-o", str(out)])
            findings.append(f"{page}: is missing; `{command}` writes it")
        elif page.endswith(PICTURES):
            pictures += 1
        elif (printed := (out / page).read_bytes()) != content:
            try:
                text = printed.decode()
            except UnicodeDecodeError as error:
                findings.append(f"{page}: is no UTF-8 text ({error})")
                continue
            differing, close = compare_texts(page, text, content.decode(), unrounded)
            findings += differing
            rounded += close
    findings += _missing_pictures(out / f"{name}.md", made)
    return BoardCheck(
        name, tuple(findings), len(made) - pictures, rounded, pictures, frozenset(made)
    )


def compare_texts(
    page: str, printed: str, found: str, unrounded: Sequence[float]
) -> tuple[list[str], int]:
    """A page line by line.

    Args:
        page: name of its file; what ends in .json is compared as JSON.
        printed: its text.
        found: what was computed.
        unrounded: ascending; the numbers of which the text shows roundings.

    Returns:
        What differs, a line each, and how many lines differ by rounding only.
    """
    ours, theirs = printed.split("\n"), found.split("\n")
    differing, close = [], 0
    for number, (old, new) in enumerate(zip_longest(ours, theirs, fillvalue=""), 1):
        if old == new:
            continue
        same = _same_json(old, new) if page.endswith(".json") else _same_text(old, new, unrounded)
        if same:
            close += 1
            continue
        old, new = _narrow(old, new)
        differing.append(f"{page}:{number}: printed {old!r}, computed {new!r}")
        if len(ours) != len(theirs):  # what follows is shifted
            differing.append(f"{page}: has {len(ours) - 1} lines, computed {len(theirs) - 1}")
            return differing, close
    if len(differing) > SHOWN:
        differing[SHOWN:] = [f"{page}: and {len(differing) - SHOWN} more lines"]
    return differing, close


def _same_json(old: str, new: str) -> bool:
    """Whether two lines hold the same key and fractions that are close."""
    a, b = _JSON_NUMBER.fullmatch(old), _JSON_NUMBER.fullmatch(new)
    if a is None or b is None or a[1] != b[1] or a[3] != b[3]:
        return False
    if not (_is_fraction(a[2]) and _is_fraction(b[2])):
        return False
    return isclose(float(a[2]), float(b[2]), rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _same_text(old: str, new: str, unrounded: Sequence[float]) -> bool:
    """Whether two lines differ in nothing but the last digits of fractions, as rounding may."""
    if _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
        return False
    pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
    return all(a == b or _same_rounded(a, b, unrounded) for a, b in pairs)


def _same_rounded(old: str, new: str, unrounded: Sequence[float]) -> bool:
    if not (_is_fraction(old) and _is_fraction(new)):
        return False
    a, b = Decimal(old), Decimal(new)
    if a == b:
        return a == 0  # "-0.0"
    unit = min(a.adjusted() - len(a.as_tuple().digits), b.adjusted() - len(b.as_tuple().digits)) + 1
    if abs(a - b) != Decimal(1).scaleb(unit):
        return False
    middle = float((a + b) / 2) / (100 if unit >= PER_CENT else 1)
    place = bisect_left(unrounded, middle)
    near = unrounded[max(place - 1, 0) : place + 1]
    return any(isclose(value, middle, rel_tol=_BOUNDARY) for value in near)


def _is_fraction(number: str) -> bool:
    """Whether it is no whole number: those are counts, tiers and seeds."""
    return "." in number or "e" in number


def unrounded_numbers(text: str) -> list[float]:
    """Numbers of a JSON page that text shows roundings of, ascending."""
    matches = map(_JSON_NUMBER.fullmatch, text.split("\n"))
    return sorted(float(m[2]) for m in matches if m and m[1].strip() not in _UNSHOWN)


def _narrow(old: str, new: str, limit: int = 60) -> tuple[str, str]:
    """The words in which two lines differ; the lines, where they differ in more than that."""
    ours, theirs = re.split("[ ,]", old), re.split("[ ,]", new)
    if len(ours) == len(theirs):
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
        old, new = (" ".join(words) for words in zip(*pairs, strict=True))
    short = [text if len(text) <= limit else text[:limit] + "…" for text in (old, new)]
    return short[0], short[1]


def _check_metrics(tables: Sequence[Table]) -> list[str]:
    """Metrics that records state and their ranks do not give."""
    findings = []
    for table in tables:
        for cell in table.cells:
            for record, rank in zip(cell.records, cell.ranks[: len(cell.records)], strict=True):
                history = recorded_history(record)
                for metric in metric_names(history):
                    stated = record.metrics.get(metric)
                    found = mean_metric(metric, table.user, rank, history)
                    if stated is not None and not abs(found - stated) <= METRIC:  # NaN too
                        findings.append(
                            f"{table.dataset}: {cell.label}, seed {record.seed}: recorded "
                            f"{metric} {stated:.15g}, its ranks give {found:.15g}"
                        )
    return findings


def _missing_pictures(page: Path, made: dict[str, bytes]) -> list[str]:
    """Pictures that a page shows and that are not there; those that are made are known of."""
    return [
        f"{page.name}: shows {link}, which is missing"
        for link in shown_pictures(page)
        if link not in made and not (page.parent / link).is_file()
    ]
