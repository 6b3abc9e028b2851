from functools import cache
from pathlib import Path

import pytest

from intentbench.runner.grid import RunOptions, plan_grid
from intentbench.spec import load_spec

FOLDER = Path(__file__).parents[1] / "benchmarks"
BENCHMARKS = sorted([*FOLDER.glob("*.yaml"), *(FOLDER / "studies").glob("*.yaml")])


read = cache(load_spec)
"""A spec is read once for all tests: it imports its methods and checks every argument."""


def test_there_are_benchmarks() -> None:
    assert "quickstart" in [path.stem for path in BENCHMARKS]


def test_no_two_benchmarks_write_the_same_page() -> None:
    names = [read(path).name for path in BENCHMARKS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmark_is_a_good_spec(path: Path) -> None:
    spec = read(path)
    assert spec.size > 0
    assert spec.reference
    assert len({entrant.label for entrant in spec.entrants}) == len(spec.entrants)


def test_quickstart_has_seven_methods_and_runs_without_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTENTBENCH_CACHE", str(tmp_path))
    spec = load_spec(BENCHMARKS[[path.stem for path in BENCHMARKS].index("quickstart")])
    grid = plan_grid(spec, RunOptions(out=tmp_path / "runs"))
    assert len(spec.entrants) == 7
    assert {cell.state for cell in grid} == {"missing"}
    assert len({cell.job.folder for cell in grid}) == len(grid) == spec.size


def test_the_list_of_studies_names_every_study_and_every_page_of_one() -> None:
    text = (FOLDER / "studies" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    listed = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}
    boards = FOLDER.parent / "leaderboards" / "ranks"
    for path in (FOLDER / "studies").glob("*.yaml"):
        _, count, _, page = listed[path.stem]
        spec = read(path)
        assert int(count) == len(spec.entrants), path.stem
        published = f"[page](../../leaderboards/{spec.name}.md)"
        assert page == (published if (boards / spec.name).exists() else ""), path.stem
    for path in (FOLDER / "studies").glob("*.py"):
        assert f"`{path.name}`" in text


def test_noise_of_irllrec_is_that_of_its_base_and_of_texts_without_the_clean_pairs() -> None:
    entrants = read(FOLDER / "studies" / "irllrec-noise.yaml").entrants
    base = {"layers": 3, "l2": 1e-6, "keep": 1.0}
    rates: dict[tuple[str, str], list[float]] = {}
    for entrant in entrants:
        arguments = entrant.arguments
        ours = arguments.get("base_arguments", arguments)
        assert {name: ours[name] for name in base} == base, entrant.label
        row = entrant.method, arguments.get("text", "")
        rates.setdefault(row, []).append(entrant.data.get("added_pairs", 0.0))
    steps = [0.0, 0.05, 0.15, 0.25]
    assert rates["lightgcn", ""] == steps
    for method in ("rlmrec_con", "irllrec"):
        assert rates[method, "tfidf-svd"] == steps
        for share in steps[1:]:
            assert rates[method, f"shuffled@{share:g}:tfidf-svd"] == [0.0]
    assert rates["irllrec", "gaussian"] == rates["irllrec", "ids"] == [0.0, 0.25]


def test_weights_of_irllrec_are_swept_as_widely_as_its_study_asks() -> None:
    entrants = read(FOLDER / "studies" / "irllrec-weights.yaml").entrants
    small: set[float] = {0.0, 1e-7, 1e-5, 1e-4, 5e-4, 1e-3, 1e-2}
    asked: dict[str, set[float]] = {
        "pair_weight": {0.0, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 0.1},
        "translation_weight": small,
        "itm_weight": small,
        "intents": {8, 32, 64, 128, 256},
    }
    for name, values in asked.items():
        assert values <= {entrant.arguments.get(name) for entrant in entrants}, name


def test_parts_of_irllrec_are_taken_away_on_both_bases() -> None:
    entrants = read(FOLDER / "studies" / "irllrec-components.yaml").entrants
    parts: dict[str, list[str]] = {"lightgcn": [], "simgcl": []}
    for entrant in entrants:
        given = {k: v for k, v in entrant.arguments.items() if not k.startswith("base")}
        given["profile_weight"] = bool(given.get("profile_weight"))  # each base has its own
        if entrant.method == "irllrec":
            parts[entrant.arguments["base"]].append(repr(sorted(given.items())))
    assert {*parts} < {entrant.method for entrant in entrants}
    assert parts["lightgcn"] == parts["simgcl"]
    assert len(set(parts["simgcl"])) == 8
