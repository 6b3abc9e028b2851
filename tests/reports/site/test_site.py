"""The pages as files: whole, linked, escaped, repeatable, equal to the leaderboards' figures."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from math import isclose
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from datamodules.errors import RequestError
from intentbench.reports.publish import make_pages
from intentbench.reports.site import build
from intentbench.reports.site.compare import FIELDS
from tests.reports.fake_runs import KNN, SASREC, write_runs
from tests.reports.site.conftest import HOSTILE
from tests.reports.site.reading import Page, ReadTable, read_pages

LINKED = ("https://doi.org/", "https://arxiv.org/abs/", "https://github.com/")


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return read_pages(site)


@pytest.fixture(scope="module")
def figures(site: Path) -> dict[str, Any]:
    """The JSON of the wide leaderboard, a dataset a key."""
    found = json.loads((site / "boards/wide.json").read_text())
    return {section["dataset"]: section for section in found["datasets"]}


def test_there_is_a_page_for_everything_that_has_results(pages: dict[str, Page]) -> None:
    kinds = {name.partition("/")[0] for name in pages}
    assert kinds == {"index.html", "boards", "methods", "datasets", "compare"}
    for name in ("boards/wide.html", "boards/odd.html", "datasets/beauty.html"):
        assert name in pages
    methods = {name for name in pages if name.startswith("methods/")}
    named = {"gru4rec", "item_knn", "popularity", "sasrec"}
    assert {f"methods/{name}.html" for name in named} < methods
    assert len(methods) == len(named) + 1  # the hostile one; the oracle is no method
    assert "compare/wide/synthetic.html" in pages


def test_every_link_resolves_and_leads_nowhere_else_than_to_citations(
    site: Path, pages: dict[str, Page]
) -> None:
    followed = 0
    for name, page in pages.items():
        for address in [*page.attributes("href"), *page.attributes("src")]:
            if address.startswith(LINKED) or address == "data:,":
                continue
            parts = urlsplit(address)
            assert not parts.scheme
            assert not parts.netloc
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            assert target.is_file(), f"{name}: {address}"
            assert site in target.resolve().parents
            fragment = unquote(parts.fragment)
            if fragment and not fragment.startswith("a="):
                other = pages[str(target.resolve().relative_to(site.resolve()))]
                assert fragment in other.attributes("id"), f"{name}: {address}"
            followed += 1
    assert followed > 200


def test_every_page_can_be_reached_from_the_first(pages: dict[str, Page]) -> None:
    seen, waiting = set(), ["index.html"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        base = Path("/") / name
        for address in pages[name].attributes("href"):
            path = urlsplit(address).path
            if path.endswith(".html") and not urlsplit(address).scheme:
                target = (base.parent / unquote(path)).resolve()
                waiting.append(str(target.relative_to("/")))
    assert seen == set(pages)


def test_nothing_shipped_asks_the_network(site: Path) -> None:
    for path in site.rglob("*"):
        if path.suffix not in (".js", ".css") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"^/\*!.*?\*/", "", text, flags=re.DOTALL)
        for word in ("http", "//cdn", "url(", "@import", "fetch(", "XMLHttpRequest", "sourceMapp"):
            assert word not in text, f"{path.name}: {word}"


def test_the_bundle_is_the_one_that_its_readme_names() -> None:
    folder = build.HERE / "static" / "tablesort"
    found = hashlib.sha256((folder / "tablesort.min.js").read_bytes()).hexdigest()
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"sha256 `{found}`" in text
    version = re.search(rb"tablesort v([\d.]+)", (folder / "tablesort.min.js").read_bytes())
    assert version is not None
    assert f"version: {version[1].decode()}\n" in text


def test_pages_are_accessible_as_far_as_a_parser_can_tell(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        elements = page.elements
        tags = [tag for tag, _ in elements]
        assert ("html", {"lang": "en"}) in elements
        assert any(found.get("name") == "viewport" for _, found in elements), name
        levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        first = next(found for tag, found in elements if tag == "a")
        assert (first["class"], first["href"]) == ("skip", "#content")
        assert "content" in page.attributes("id")
        ids = page.attributes("id")
        assert len(ids) == len(set(ids)), name
        for table in page.tables:
            assert table.caption
            assert table.scopes == ["col"] * len(table.headings) + ["row"] * len(table.rows)
        assert all(found.get("alt") for tag, found in elements if tag == "img")
        labelled = {found["for"] for tag, found in elements if tag == "label"}
        assert labelled == {found["id"] for tag, found in elements if tag == "select"}


def test_hostile_names_stay_text(site: Path, pages: dict[str, Page]) -> None:
    page = pages["boards/odd.html"]
    assert page.texts["h1"] == ["</title><b>odd"]
    label = page.tables[0].rows[0][0][0]
    assert label == HOSTILE or page.tables[0].rows[1][0][0] == HOSTILE
    method = next(page for name, page in pages.items() if name.startswith("methods/i-evil"))
    assert "<img src=x onerror=alert(1)> & [a](javascript:alert(1))" in method.texts["li"]
    assert not any(href.startswith("javascript") for href in method.attributes("href"))
    for name, page in pages.items():
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"b", "i", "iframe", "object", "embed", "style"}
        assert not any(
            attribute.startswith("on") for _, found in page.elements for attribute in found
        )
        compares = name.startswith("compare/")
        assert len(page.scripts) == (4 if compares else 2), name
        assert [text for text in page.scripts if text and "fields" not in text] == []
    pairs = _pairs(pages["compare/odd/beauty.html"])
    assert HOSTILE in [row["label"] for row in pairs["rows"]]
    raw = (site / "compare/odd/beauty.html").read_text()
    assert "<script>alert" not in raw
    assert not [path for path in site.parent.rglob("*evil*") if site not in path.parents]


def test_the_same_boards_give_the_same_bytes(boards: Path, site: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    shutil.copytree(boards, copied)
    written = build.write_site([copied / "ranks"], tmp_path / "site")
    files = {path.relative_to(site): path for path in site.rglob("*") if path.is_file()}
    again = tmp_path / "site"
    assert {p.relative_to(again) for p in again.rglob("*") if p.is_file()} == set(files)
    assert len(written) == len(files) - 1  # the list of files itself
    for name, path in files.items():
        assert (tmp_path / "site" / name).read_bytes() == path.read_bytes(), name


def _main(page: Page, dataset: int = 0) -> ReadTable:
    return [t for t in page.tables if t.caption == "Accuracy and differences"][dataset]


def test_the_leaderboard_shows_the_figures_of_its_json(
    pages: dict[str, Page], figures: dict[str, Any]
) -> None:
    for number, section in enumerate(figures.values()):
        table = _main(pages["boards/wide.html"], number)
        tried = [row for row in section["rows"] if row["method"]]
        assert len(table.rows) == len(tried)
        means = [
            (row["metrics"]["ndcg@10"]["mean"], row["label"])
            for row in tried
            if row["metrics"] and not row["ceiling"]
        ]
        for place, row in enumerate(tried):
            name = table.rows[place][0][0]
            assert name == row["label"] + (" (ceiling)" if row["ceiling"] else "")
            for metric, heading in (("ndcg@10", "NDCG@10"), ("hit_rate@5", "HR@5")):
                text, key = table.column(heading)[place]
                if not row["metrics"]:
                    assert (text, key) == ("-", "")
                    continue
                value, std = (row["metrics"][metric][part] for part in ("mean", "std"))
                shown = f"{value:.4f}" + ("" if std is None else f" ± {std:.4f}")
                leads = metric == "ndcg@10" and row["label"] == max(means)[1]
                assert text == (f"{shown} {section['lead']}".rstrip() if leads else shown)
                assert isclose(float(str(key)), value, rel_tol=1e-9)
            assert table.column("tier")[place][0] == str(row["tier"] or "-")


def test_the_first_page_counts_no_ceiling(pages: dict[str, Page], figures: dict[str, Any]) -> None:
    rows = [row for section in figures.values() for row in section["rows"]]
    tried = [row for row in rows if not row["ceiling"]]
    assert len(tried) == len(rows) - 1
    table = next(t for t in pages["index.html"].tables if t.caption == "Leaderboards")
    place = [line[0][0] for line in table.rows].index("A board & more")
    done = sum(bool(row["metrics"]) for row in tried)
    assert table.column("rows with a result")[place][0] == f"{done} of {len(tried)}"
    trials = sum(len(row["trials"]) for row in tried)
    assert table.column("trials")[place][0] == str(trials)


def test_pages_of_methods_and_datasets_show_the_same_figures(
    pages: dict[str, Page], figures: dict[str, Any]
) -> None:
    rows = {row["label"]: row for row in figures["beauty"]["rows"]}
    for page, heading in (
        ("methods/sasrec.html", "mean ± deviation"),
        ("datasets/beauty.html", "NDCG@10"),
    ):
        table = pages[page].tables[0]
        found = 0
        for place, line in enumerate(table.rows):
            label, where = line[0][0], line[1][0]
            if where != "wide" or "synthetic" in [text for text, _ in line]:
                continue
            text, key = table.column(heading)[place]
            metric = rows[label]["metrics"]["ndcg@10"]
            deviation = "" if metric["std"] is None else f" ± {metric['std']:.4f}"
            assert text == f"{metric['mean']:.4f}{deviation}"
            assert isclose(float(str(key)), metric["mean"], rel_tol=1e-9)
            found += 1
        assert found >= 6
    trials = next(t for t in pages["methods/gru4rec.html"].tables if t.caption == "Trials")
    assert [text for text, _ in trials.column("status")] == [
        "done",
        "failed: NonFiniteScoresError: <nan>",
    ]


def _pairs(page: Page) -> dict[str, Any]:
    text = next(text for text in page.scripts if text)
    found: dict[str, Any] = json.loads(text)
    return found


def test_comparisons_hold_what_the_json_holds(
    pages: dict[str, Page], figures: dict[str, Any]
) -> None:
    for dataset, section in figures.items():
        page = pages[f"compare/wide/{dataset}.html"]
        data = _pairs(page)
        labels = [row["label"] for row in data["rows"]]
        assert data["tests"] == section["tests"]
        ours = {
            (labels[pair[0]], labels[pair[1]]): dict(zip(FIELDS, pair, strict=True))
            for pair in data["pairs"]
        }
        assert set(ours) == {(pair["a"], pair["b"]) for pair in section["pairs"]}
        same = set(FIELDS) & section["pairs"][0].keys() - {"a", "b"}
        assert {"est", "low", "high", "p_adjusted", "won", "tied", "lost", "relative"} < same
        for pair in section["pairs"]:
            own = ours[pair["a"], pair["b"]]
            assert {name: own[name] for name in same} == {name: pair[name] for name in same}
            back = pair["mean_b"] / pair["mean_a"] - 1
            assert isclose(own["reverse"], back, rel_tol=1e-6)
            assert own["reverse_low"] <= own["reverse"] <= own["reverse_high"]
        tiers = {row["label"]: row["tier"] for row in section["rows"]}
        assert all(row["tier"] == tiers[row["label"]] for row in data["rows"])
        matrix = page.tables[0]
        for (a, b), own in ours.items():
            text = matrix.column(b)[labels.index(a)][0]
            assert text.split()[0] == f"{100 * own['relative']:+.1f}"
            text = matrix.column(a)[labels.index(b)][0]
            assert text.split()[0] == f"{100 * own['reverse']:+.1f}"


def _letters(text: str) -> str:
    """Without what Markdown and HTML write differently."""
    text = re.sub(r"</?ins>|[*`\\]", "", text)
    return "".join(text.split())


@pytest.mark.parametrize("name", ["wide", "odd"])
def test_the_page_says_all_that_the_markdown_page_says(
    name: str, boards: Path, site: Path, pages: dict[str, Page]
) -> None:
    made = make_pages(boards / "ranks" / name)
    page = pages[f"boards/{name}.html"]
    items = {_letters(text) for text in page.texts["li"]}
    lines = made[f"{name}.md"].decode().splitlines()
    bullets = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    assert len(bullets) > 10
    for bullet in bullets:
        assert _letters(bullet) in items
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert page.texts["h2"] == headings
    rules = [line for line in lines if line.startswith("| :--")]
    assert len(page.tables) == len(rules)
    named = re.findall(r"^!\[.+\]\((.+)\)$", "\n".join(lines), flags=re.MULTILINE)
    pictures = [made[file] for file in named]
    shown = [site / "boards" / source for source in page.attributes("src") if ".svg" in source]
    assert sorted(path.read_bytes() for path in shown) == sorted(pictures)
    assert (site / f"boards/{name}.json").read_bytes() == made[f"{name}.json"]
    assert (site / f"boards/{name}.csv").read_bytes() == made[f"{name}.csv"]


def test_learning_curves_are_drawn_where_records_have_them(pages: dict[str, Page]) -> None:
    drawn = {name for name, page in pages.items() if "polyline" in dict(page.elements)}
    assert drawn == {"methods/gru4rec.html"}
    points = pages["methods/gru4rec.html"].attributes("points")
    assert points == ["80.0,90.0 160.0,0.0 240.0,45.0"]  # 0.1, 0.3 and 0.2 of that range


def test_a_folder_of_runs_makes_a_leaderboard_of_its_name(tmp_path: Path) -> None:
    write_runs(tmp_path / "mine", [KNN, SASREC], n_users=40)
    build.write_site([tmp_path / "mine"], tmp_path / "site")
    page = Page((tmp_path / "site/boards/mine.html").read_text())
    assert page.texts["h1"] == ["mine"]
    assert [row[0][0] for row in _main(page).rows] == ["sasrec_ce_all", "item_knn"]


def test_sources_that_cannot_be_shown_are_refused(boards: Path, tmp_path: Path) -> None:
    shutil.copytree(boards / "ranks" / "odd", tmp_path / "copy")
    with pytest.raises(RequestError, match="two leaderboards are named 'odd'"):
        build.write_site([boards, tmp_path / "copy"], tmp_path / "site")
    with pytest.raises(RequestError, match="no such folder"):
        build.write_site([tmp_path / "nothing"], tmp_path / "site")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no finished trial"):
        build.write_site([tmp_path / "empty"], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_only_an_earlier_site_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "site"
    write_runs(tmp_path / "first", [KNN, SASREC], n_users=40)
    write_runs(tmp_path / "second", [KNN, SASREC], n_users=40)
    build.write_site([tmp_path / "first", tmp_path / "second"], out)
    assert (out / "boards/first.html").is_file()
    build.write_site([tmp_path / "second"], out)
    assert not (out / "boards/first.html").exists()
    assert (out / "boards/second.html").is_file()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("mine")
    with pytest.raises(RequestError, match="holds files that are no site"):
        build.write_site([tmp_path / "second"], other)
    assert [path.name for path in other.iterdir()] == ["chapter.tex"]


def test_a_site_needs_no_training_stack(boards: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from intentbench.reports.site.build import write_site;"
        f"write_site([Path({str(boards / 'ranks' / 'odd')!r})], Path({str(tmp_path / 'out')!r}));"
        "print([n for n in ('torch', 'lightning', 'polars', 'datasets') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
