"""The site in a browser: what scripts add, what a keyboard reaches, and that nothing is requested.

Needs the package `playwright` (`pip install playwright`; it downloads no browser by itself) and an
installed Chromium.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from intentbench.reports.site.build import write_site
from intentbench.results.store import RANKS, trial_folder, write_record
from tests.reports.fake_runs import GRU, SASREC, write_runs, write_trial

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"wide": (1280, 900), "narrow": (375, 812)}


@dataclass
class Visit:
    """A browser's page and what went on in it."""

    page: Any
    site: Path
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def go(self, name: str) -> None:
        """Open a page of the site; what follows `#` stays."""
        path, _, place = name.partition("#")
        self.page.goto("about:blank")
        self.page.goto((self.site / path).as_uri() + (f"#{place}" if place else ""))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = pytest.fail if os.environ.get("INTENTBENCH_NEEDS_BROWSER") else pytest.skip
        missing(f"needs an installed browser: {' or '.join(NAMES)}")
    with sync_api.sync_playwright() as running:
        opened = running.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def visits(browser: Any, site: Path) -> Iterator[dict[str, Visit]]:
    """A page of each size, kept open for all tests."""
    found = {}
    for name, (width, height) in SIZES.items():
        page = browser.new_page(viewport={"width": width, "height": height})
        visit = found[name] = Visit(page, site)
        page.on("console", lambda message, v=visit: v.problems.append(message.text))
        page.on("pageerror", lambda error, v=visit: v.problems.append(str(error)))
        page.on("request", lambda request, v=visit: v.requests.append(request.url))
    yield found
    for visit in found.values():
        visit.page.close()


@pytest.fixture
def wide(visits: dict[str, Visit]) -> Iterator[Visit]:
    """The wide one; nothing may go wrong in it, nor leave the site."""
    yield visits["wide"]
    _check(visits["wide"])


def _check(visit: Visit) -> None:
    root = visit.site.as_uri()
    assert visit.problems == []
    assert visit.requests
    outside = [url for url in visit.requests if not url.startswith((root, "data:,", "about:"))]
    assert outside == []


def _column(visit: Visit, heading: str, table: int = 0) -> list[str]:
    """Texts of the visible cells below a heading."""
    script = """([heading, number]) => {
        const table = document.querySelectorAll('table.sortable')[number];
        const place = [...table.tHead.rows[0].cells].findIndex(
            (cell) => cell.textContent.trim() === heading);
        return [...table.tBodies[0].rows].filter((row) => !row.hidden)
            .map((row) => row.cells[place].textContent.trim());
    }"""
    found: list[str] = visit.page.evaluate(script, [heading, table])
    return found


def _heading(visit: Visit, name: str) -> Any:
    return visit.page.locator("table.sortable").first.get_by_role("button", name=name, exact=True)


@pytest.mark.parametrize("size", SIZES)
def test_every_page_loads_without_error_request_or_sideways_scroll(
    size: str, visits: dict[str, Visit]
) -> None:
    visit = visits[size]
    for path in sorted(visit.site.rglob("*.html")):
        visit.go(str(path.relative_to(visit.site)))
        width, room = visit.page.evaluate(
            "[document.scrollingElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert width <= room, path.name
        broken = visit.page.evaluate("[...document.images].filter((i) => !i.naturalWidth).length")
        assert broken == 0, path.name
    _check(visit)


def test_links_are_followed_by_click(wide: Visit) -> None:
    wide.go("index.html")
    wide.page.get_by_role("link", name="A board & more").click()
    assert wide.page.url.endswith("/boards/wide.html")
    wide.page.get_by_role("link", name="Compare any two rows").first.click()
    assert wide.page.url.endswith("/compare/wide/beauty.html")
    wide.page.get_by_role("link", name="Methods").click()
    wide.page.get_by_role("link", name="item_knn", exact=True).first.click()
    assert wide.page.url.endswith("/methods/item_knn.html")
    wide.page.locator("tbody a", has_text="item_knn").first.click()
    assert "#beauty--item_knn" in wide.page.url
    # the address changes before the page has arrived
    assert wide.page.locator(":target").get_attribute("id") == "beauty--item_knn"


def test_columns_are_sorted_by_value_and_say_so(wide: Visit) -> None:
    wide.go("boards/wide.html")
    heading = _heading(wide, "NDCG@5")
    cell = heading.locator("xpath=..")
    assert cell.get_attribute("aria-sort") is None
    heading.click()
    assert cell.get_attribute("aria-sort") == "descending"
    falling = _column(wide, "NDCG@5")
    numbers = [float(text.split()[0]) for text in falling if text != "-"]
    assert any("±" in text for text in falling)
    assert numbers == sorted(numbers, reverse=True)
    assert falling[len(numbers) :] == ["-"] * (len(falling) - len(numbers))
    heading.click()
    assert cell.get_attribute("aria-sort") == "ascending"
    numbers = [float(text.split()[0]) for text in _column(wide, "NDCG@5") if text != "-"]
    assert numbers == sorted(numbers)
    _heading(wide, "model").click()
    names = _column(wide, "model")
    assert names == sorted(names, key=str.lower)
    assert cell.get_attribute("aria-sort") is None
    heading = wide.page.locator("table.sortable").first.locator("th button", has_text="against")
    difference = heading.text_content().strip()
    heading.click()
    numbers = [
        float(t.split()[0]) for t in _column(wide, difference) if t[0] in "+-" and len(t) > 1
    ]
    assert len(numbers) > 5
    assert numbers == sorted(numbers, reverse=True)


def test_the_row_of_users_stays_last(wide: Visit) -> None:
    wide.go("boards/wide.html")
    captions = wide.page.locator("table.sortable caption").all_text_contents()
    number = next(n for n, text in enumerate(captions) if text.startswith("By activity"))
    table = wide.page.locator("table.sortable").nth(number)
    for place in (0, 1):
        table.get_by_role("button").nth(place).click()
        assert _column(wide, "model", number)[-1] == "users"


def test_rows_are_filtered(wide: Visit) -> None:
    wide.go("boards/wide.html")
    everything = _column(wide, "model")
    field_ = wide.page.get_by_label("Filter rows").first
    field_.fill("WIDTH_")
    assert sorted(_column(wide, "model")) == ["width_16", "width_32", "width_64", "width_8"]
    said = wide.page.locator("output").first
    assert said.text_content() == f"4 of {len(everything)} rows"
    _heading(wide, "NDCG@10").click()
    assert len(_column(wide, "model")) == 4
    field_.fill("")
    assert sorted(_column(wide, "model")) == sorted(everything)
    assert said.text_content() == ""


def test_the_keyboard_reaches_and_works_everything(wide: Visit) -> None:
    wide.go("boards/wide.html")
    keyboard = wide.page.keyboard
    keyboard.press("Tab")
    assert wide.page.evaluate("document.activeElement.className") == "skip"
    assert wide.page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    keyboard.press("Enter")
    reached = []
    for _ in range(40):
        keyboard.press("Tab")
        reached.append(wide.page.evaluate("document.activeElement.textContent.trim()"))
        if reached[-1] == "HR@10":
            break
    assert reached[-1] == "HR@10"
    assert "intentbench" not in reached  # the navigation was skipped
    outline = wide.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    cell = wide.page.locator("table.sortable").first.locator("th[aria-sort]")
    keyboard.press("Enter")
    assert cell.get_attribute("aria-sort") == "descending"
    keyboard.press("Space")
    assert cell.get_attribute("aria-sort") == "ascending"
    assert wide.page.evaluate("document.activeElement.textContent.trim()") == "HR@10"


def test_two_rows_are_compared_with_the_figures_of_the_json(wide: Visit) -> None:
    figures = json.loads((wide.site / "boards/wide.json").read_text())
    section = next(s for s in figures["datasets"] if s["dataset"] == "beauty")
    wide.go("compare/wide/beauty.html")
    for pair in section["pairs"][::7]:
        for flip in (False, True):
            a, b = (pair["b"], pair["a"]) if flip else (pair["a"], pair["b"])
            wide.page.get_by_label("Row A").select_option(label=a)
            wide.page.get_by_label("Row B").select_option(label=b)
            _compare(wide, pair, flip)
    wide.page.get_by_role("button", name="Swap A and B").click()
    _compare(wide, pair, False)


def test_a_note_names_the_same_row_from_either_side(browser: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_runs(runs, [SASREC], n_users=40)
    trials = [write_trial(runs, GRU, "beauty", seed, 40) for seed in range(3)]
    folders = [trial_folder(runs, "beauty", GRU.label, trial.trial) for trial in trials]
    for folder, trial in zip(folders, trials, strict=True):  # every seed as the first
        (folder / RANKS).write_bytes((folders[0] / RANKS).read_bytes())
        write_record(folder, replace(trial, metrics=trials[0].metrics))
    write_site([runs], tmp_path / "site")
    visit = Visit(browser.new_page(), tmp_path / "site")
    for a, b, side in (("gru4rec", "sasrec_ce_all", "A"), ("sasrec_ce_all", "gru4rec", "B")):
        visit.go(f"compare/runs/beauty.html#a={a}&b={b}")
        assert _facts(visit)["Note"] == f"the seed changes nothing ({side})"
    visit.page.close()


def _compare(visit: Visit, pair: dict[str, Any], flip: bool) -> None:
    """Hold what is shown against a pair of the JSON, in either order."""
    sign = -1 if flip else 1
    low, high = sorted((sign * pair["low"], sign * pair["high"]))
    shown = _facts(visit)
    interval = f"{sign * pair['est']:+.5f} [{low:+.5f}, {high:+.5f}]"
    assert shown["Difference A - B [95 %]"] == interval
    won, lost = (pair["lost"], pair["won"]) if flip else (pair["won"], pair["lost"])
    assert shown["Users for whom A is better"].split()[0] == f"{won:,}"
    assert shown["Users for whom B is better"].split()[0] == f"{lost:,}"
    assert shown["Users for whom both are equal"].split()[0] == f"{pair['tied']:,}"
    means = (pair["mean_b"], pair["mean_a"]) if flip else (pair["mean_a"], pair["mean_b"])
    assert shown["A / B - 1 [95 %]"].split()[0] == f"{100 * (means[0] / means[1] - 1):+.1f}"
    corrected = next(text for name, text in shown.items() if name.startswith("p, corrected"))
    verdict = visit.page.locator(".verdict").text_content()
    p = pair["p_adjusted"]
    if p is None:
        assert corrected == "not tested"
        assert verdict.startswith("No verdict")
        return
    assert float(corrected) == pytest.approx(p, rel=0.06, abs=5.1e-5)
    better = pair["a"] if pair["est"] > 0 else pair["b"]
    assert verdict.startswith(f"{better} is better" if p < 0.05 else "Not separated")


def _facts(visit: Visit) -> dict[str, str]:
    """Name and value of each line of the comparison."""
    script = """[...document.querySelectorAll('#result .facts tr')].map(
        (row) => [row.cells[0].textContent, row.cells[1].textContent])"""
    return dict(visit.page.evaluate(script))


def test_an_address_names_the_pair(wide: Visit) -> None:
    wide.go("boards/wide.html")
    row = wide.page.locator("tr#beauty--item_knn")
    shown = row.locator("a").last.text_content()
    row.locator("a").last.click()
    assert wide.page.get_by_label("Row A").locator("option:checked").text_content() == "item_knn"
    chosen = wide.page.get_by_label("Row B").locator("option:checked").text_content()
    assert chosen == "sasrec_ce_all"
    assert _facts(wide)["A / B - 1 [95 %]"].split()[0] == shown.split()[0]
    wide.page.get_by_label("Row A").select_option(label="sasrec_ce_all")
    assert "two different rows" in wide.page.locator("#result").text_content()


def test_hostile_names_do_nothing(visits: dict[str, Visit]) -> None:
    visit = visits["narrow"]
    asked: list[str] = []

    def dismiss(dialog: Any) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    visit.page.on("dialog", dismiss)
    for name in (
        "index.html",
        "boards/odd.html",
        "datasets/beauty.html",
        "compare/odd/beauty.html",
    ):
        visit.go(name)
    assert "<script>" in visit.page.locator("#result").text_content()
    assert asked == []
    _check(visit)


def test_without_scripts_everything_can_be_read(browser: Any, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "boards/wide.html").as_uri())
    assert page.get_by_text("sasrec_ce_all").first.is_visible()
    assert page.get_by_role("button").count() == 0
    page.goto((site / "compare/wide/beauty.html").as_uri())
    assert not page.locator("#compare").is_visible()
    assert page.locator("noscript").is_visible()
    assert page.locator("table").first.is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str, browser: Any, site: Path) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto((site / "boards/wide.html").as_uri())
    seen = page.evaluate(
        """() => ['body', 'main a', '.above', 'thead th', 'caption'].map((chosen) => {
            let element = document.querySelector(chosen);
            const colour = getComputedStyle(element).color;
            let ground = 'rgba(0, 0, 0, 0)';
            while (element && ground === 'rgba(0, 0, 0, 0)') {
                ground = getComputedStyle(element).backgroundColor;
                element = element.parentElement;
            }
            return [chosen, colour, ground];
        })"""
    )
    context.close()
    for chosen, colour, ground in seen:
        assert _contrast(colour, ground) >= 4.5, chosen
    light = _luminance(seen[0][2])
    assert light > 0.9 if scheme == "light" else light < 0.05


def _luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)", as WCAG 2.2 defines it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(first: str, second: str) -> float:
    dark, light = sorted((_luminance(first), _luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_paper_shows_whole_tables_and_no_controls(browser: Any, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "boards/wide.html").as_uri())
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.get_by_label("Filter rows").first.is_visible()
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    )
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    page.close()
