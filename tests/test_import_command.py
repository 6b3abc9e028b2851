"""Results of other systems as rows: from the suite's own lists and back, and what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import yaml

from datamodules.prepare import prepare
from datamodules.prepared import TEST, TRAIN, load_prepared
from intentbench.cli import main
from intentbench.metrics.formulas import compute_metric
from intentbench.results.record import TrialRecord
from intentbench.results.store import load_ranks, load_records

Complaint = Callable[..., str]
DATA = "synthetic-tiny"


class Own(NamedTuple):
    """Trained rows of the suite, lists of ItemKNN, and of Markov, which has many equal scores."""

    spec: Path
    runs: Path
    full: Path
    cut: Path
    tied: Path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    root = tmp_path_factory.mktemp("own")
    spec = root / "board.yaml"
    models: dict[str, object] = {"item_knn": {}, "markov": {}, "popularity": {}}
    spec.write_text(yaml.safe_dump({"datasets": [DATA], "models": models, "seeds": [0]}))
    runs = root / "runs"
    assert main(["run", str(spec), "--out", str(runs), "--leaderboards", str(root / "pages")]) == 0
    files = {"full.parquet": ("item_knn", 9999), "cut.csv": ("item_knn", 20)}
    for name, (label, k) in (files | {"tied.csv": ("markov", 20)}).items():
        (checkpoint,) = runs.glob(f"{DATA}/{label}/*/best.ckpt")
        lists = ["recommend", str(checkpoint), "--stage", "test", "-k", str(k)]
        assert main([*lists, "-o", str(root / name)]) == 0
    return Own(spec, runs, *(root / name for name in ("full.parquet", "cut.csv", "tied.csv")))


def _take(source: Path, runs: Path, *more: object, label: str = "other") -> int:
    command = ["import", source, "--dataset", DATA, "--label", label, "--out", runs, *more]
    return main([str(part) for part in command])


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complaint:
    """An import that must be refused; returns its one line."""

    def take(source: Path, runs: Path, *more: object, label: str = "other") -> str:
        capsys.readouterr()
        assert _take(source, runs, *more, label=label) == 2
        streams = capsys.readouterr()
        lines = streams.err.strip().splitlines()
        assert len(lines) == 1, streams.err
        assert not streams.out
        return lines[0]

    return take


def _row(runs: Path, label: str) -> tuple[TrialRecord, dict[str, Any]]:
    ((folder, record),) = load_records(runs / DATA / label)
    return record, load_ranks(folder)


def _cf_free(record: TrialRecord) -> dict[str, Any]:
    asked = ("split", "history", "mask_history", "candidates", "ties")
    return {name: record.protocol[name] for name in asked}


def test_full_lists_come_back_as_the_ranks_that_they_were(own: Own, tmp_path: Path) -> None:
    assert _take(own.full, tmp_path, "--deterministic", "--params", 7) == 0
    (trained, ours), (taken, theirs) = _row(own.runs, "item_knn"), _row(tmp_path, "other")
    for part in ("user", "key", "rank"):
        assert np.array_equal(ours[part], theirs[part])
        assert ours[part].dtype == theirs[part].dtype
    assert taken.metrics == trained.metrics
    assert taken.data_fingerprint == trained.data_fingerprint
    assert taken.statistics == trained.statistics
    assert _cf_free(taken) == _cf_free(trained)
    assert (taken.method, taken.code, taken.status) == ("external", "", "done")
    assert (taken.environment, taken.training, taken.finished) == ({}, {}, "")
    assert taken.cost.parameters == 7
    assert "depth" not in taken.card


def test_cut_lists_give_what_is_published_and_bound_the_rest(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _take(own.cut, tmp_path, "--title", "Theirs", "--paper", "https://paper") == 0
    (trained, ours), (taken, theirs) = _row(own.runs, "item_knn"), _row(tmp_path, "other")
    data = load_prepared(prepare(DATA))
    listed = pl.read_csv(own.cut).group_by("user").len()["len"]
    assert listed.min() == listed.max() == 20
    assert taken.card["depth"] == 20
    at = theirs["rank"] < data.n_items
    assert np.array_equal(ours["rank"][at], theirs["rank"][at])
    assert at.sum() == (ours["rank"] <= 20).sum()
    for name, value in taken.metrics.items():
        assert value == trained.metrics[name] if "@" in name else value < trained.metrics[name]
    (note,) = set(taken.protocol["notes"]) - set(trained.protocol["notes"])
    for word in ("`other` (Theirs; https://paper)", "lists of 20 items", "MRR", "lower bounds"):
        assert word in note
    out = capsys.readouterr().out
    assert f"{(~at).sum()} targets are not listed and rank last" in out
    assert "mrr" in next(line for line in out.splitlines() if "(at least)" in line)


def test_ties_at_the_end_of_cut_lists_are_no_gain(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _take(own.tied, tmp_path) == 0
    (trained, ours), (taken, theirs) = _row(own.runs, "markov"), _row(tmp_path, "other")
    assert (theirs["rank"] >= ours["rank"]).all()
    for name, value in taken.metrics.items():
        assert value <= trained.metrics[name]
    (count,) = re.findall(r"(\d+) targets tie with the end", capsys.readouterr().out)
    listed = theirs["rank"] < load_prepared(prepare(DATA)).n_items
    assert 0 < (listed & (theirs["rank"] != ours["rank"])).sum() <= int(count)
    assert f"{count} targets tie" in taken.protocol["notes"][-1]


def test_ranks_come_back_as_they_are(own: Own, tmp_path: Path) -> None:
    _, ours = _row(own.runs, "item_knn")
    data = load_prepared(prepare(DATA))
    target = data.items.numpy()[data.offsets.numpy()[ours["user"]] + ours["key"]]
    frame = pl.DataFrame({"u": ours["user"], "i": target, "rank": ours["rank"]})
    frame.sample(fraction=1, shuffle=True, seed=0).write_parquet(tmp_path / "ranks.parquet")
    more = ["--kind", "ranks", "--ids", "prepared", "--columns", "user=u,item=i"]
    assert _take(tmp_path / "ranks.parquet", tmp_path / "runs", *more) == 0
    assert np.array_equal(_row(tmp_path / "runs", "other")[1]["rank"], ours["rank"])


def test_popularity_counted_by_hand_is_the_suites_own(own: Own, tmp_path: Path) -> None:
    """Scores of the whole catalogue, history included: it is left out here."""
    data = load_prepared(prepare(DATA))
    trained = data.items[data.split == TRAIN].numpy()
    counts = np.bincount(trained, minlength=data.n_items + 1)[1:]
    users, items = data.original_ids("users"), data.original_ids("items")
    frame = pl.DataFrame(
        {
            "user": np.repeat(users, len(items)).tolist(),
            "item": items * len(users),
            "score": np.tile(counts, len(users)),
        }
    )
    frame.write_csv(tmp_path / "lists.csv", quote_style="always")
    assert _take(tmp_path / "lists.csv", tmp_path / "runs", "--deterministic") == 0
    _, ours = _row(own.runs, "popularity")
    _, theirs = _row(tmp_path / "runs", "other")
    assert np.array_equal(ours["rank"], theirs["rank"])


def test_sets_of_held_out_items_are_ranked_in_one_list(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recall and NDCG of the sets, counted with Python's own sort and sets."""
    data = load_prepared(prepare("ml-100k-cf", real_data))
    rng = np.random.default_rng(0)
    shape = (data.n_users, data.n_items)
    scores = rng.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)
    items, split, offsets = data.items.tolist(), data.split.tolist(), data.offsets.tolist()
    top, recalls, gains = [], [], []
    for u in range(shape[0]):
        events = range(offsets[u], offsets[u + 1])
        had = {items[e] for e in events if split[e] == TRAIN}
        held = {items[e] for e in events if split[e] == TEST}
        best = sorted(set(range(1, shape[1] + 1)) - had, key=lambda i: -scores[u][i - 1])[:20]
        top += [(u, item, int(scores[u][item - 1])) for item in best]
        if held:
            hits = [place for place, item in enumerate(best, 1) if item in held]
            recalls.append(len(hits) / len(held))
            ideal = sum(1 / np.log2(1 + place) for place in range(1, min(20, len(held)) + 1))
            gains.append(sum(1 / np.log2(1 + place) for place in hits) / ideal)
    frame = pl.DataFrame(top, schema=["user", "item", "score"], orient="row")
    frame.write_parquet(tmp_path / "cf.parquet")
    command = ["import", tmp_path / "cf.parquet", "--dataset", "ml-100k-cf", "--label", "other"]
    command += ["--ids", "prepared", "--out", tmp_path / "runs", "--data-root", real_data]
    claims = f"recall@20={np.mean(recalls):.6f},ndcg@20={np.mean(gains):.6f}"
    assert main([*map(str, command), "--claims", claims, "--tolerance", "1e-6"]) == 0
    assert "recall@20 claimed" in capsys.readouterr().out


def test_a_page_has_the_row_and_its_note(own: Own, tmp_path: Path) -> None:
    runs, pages = tmp_path / "runs", tmp_path / "pages"
    for folder, record in load_records(own.runs):
        place = runs / record.dataset / record.label / record.trial
        place.mkdir(parents=True)
        for name in ("result.json", "ranks.npz"):
            (place / name).write_bytes((folder / name).read_bytes())
    assert _take(own.cut, runs, "--deterministic") == 0
    assert _take(own.full, runs, label="seeded") == 0
    report = ["report", str(runs), "--name", "with", "-o", str(pages)]
    assert main(report) == 0
    page = (pages / "with.md").read_text()
    assert "`other` was not run here: its lists were imported" in page
    assert "Stale" not in page
    assert "Mixed code" not in page
    (section,) = json.loads((pages / "with.json").read_text())["datasets"]
    rows = {row["label"]: row for row in section["rows"]}
    assert rows["seeded"]["metrics"]["mrr"]["mean"] == rows["item_knn"]["metrics"]["mrr"]["mean"]
    tiers = [rows[label]["tier"] for label in ("other", "seeded", "item_knn")]
    assert tiers == [1, None, 1]  # nothing is known of the seeds of a system with one
    for label in ("other", "seeded"):
        assert not rows[label]["stale"]
        for name in ("hit_rate@5", "ndcg@10", "ndcg@20"):
            means = [rows[row]["metrics"][name]["mean"] for row in (label, "item_knn")]
            assert means[0] == means[1]
    archive = str(pages / "ranks" / "with")
    assert main(["report", archive, "-o", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "with.md").read_text() == page
    assert main(["import", archive, "--out", str(tmp_path / "back")]) == 0
    assert _row(tmp_path / "back", "other")[0] == _row(runs, "other")[0]
    assert _take(own.cut, tmp_path / "back", "--deterministic") == 0


def test_claims_hold_or_nothing_is_written(
    own: Own, tmp_path: Path, complaint: Complaint, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = _row(own.runs, "item_knn")[0].metrics
    right = f"ndcg@10={metrics['ndcg@10']:.4f},recall@20={metrics['hit_rate@20']:.4f}"
    wrong = f"ndcg@10={metrics['ndcg@10'] + 0.0003:.6f}"
    line = complaint(own.cut, tmp_path / "runs", "--claims", wrong)
    assert f"found {metrics['ndcg@10']:.6f}" in line
    assert "0.0001 apart" in line
    for unusable, word in (
        ("mrr=0.1", "lists of 20 items do not give"),
        ("ndcg@50=0.1", "ndcg@50"),
        ("ndcg@10=nan", "claimed nan"),
        ("map@10=0.1", "map@10"),
        ("ndcg@10", "metric=value"),
        ("ndcg@10=high", "numbers"),
        (str(tmp_path / "none.json"), "none.json"),
    ):
        assert word in complaint(own.cut, tmp_path / "runs", "--claims", unusable)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "claims.json").write_text(json.dumps({"ndcg@10": metrics["ndcg@10"] + 0.0003}))
    checked = ["--claims", tmp_path / "claims.json", "--tolerance", "0.001", "--verify-only"]
    assert _take(own.cut, tmp_path / "runs", *checked) == 0
    assert "ndcg@10 claimed" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert _take(own.cut, tmp_path / "runs", "--claims", right) == 0


def test_the_same_twice_is_no_error_and_the_same_bytes(
    own: Own, tmp_path: Path, complaint: Complaint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _take(own.cut, tmp_path) == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert _take(own.cut, tmp_path) == 0
    assert "was there" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == files
    assert "other results; delete" in complaint(own.full, tmp_path)
    for other in (["--title", "New"], ["--params", "3"], ["--seed", "1", "--code", "https://x"]):
        assert "has other facts" in complaint(own.cut, tmp_path, *other)
    assert "suite's own" in complaint(own.cut, own.runs, label="item_knn")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == files


def test_a_spec_says_what_is_masked(own: Own, tmp_path: Path, complaint: Complaint) -> None:
    spec = tmp_path / "seen.yaml"
    raw = {"datasets": [DATA], "models": {"markov": {}, "popularity": {}}}
    spec.write_text(yaml.safe_dump(raw | {"data": {"mask_history": False}}))
    assert _take(own.full, tmp_path / "a", "--verify-only") == 0
    complaint(own.full, tmp_path / "a", "--spec", spec, "--claims", "mrr=1")
    assert _take(own.cut, tmp_path / "a", "--spec", spec) == 0
    record, _ = _row(tmp_path / "a", "other")
    assert record.protocol["mask_history"] is False
    assert record.benchmark == "seen"
    raw["models"] = {"markov": {"data": {"mask_history": False}}, "popularity": {}}
    spec.write_text(yaml.safe_dump(raw))
    assert "some rows mask" in complaint(own.cut, tmp_path / "b", "--spec", spec)


def test_data_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join([f"u{u}", *map(str, rng.permutation(40)[:6] + 1)]) for u in range(30)]
    (tmp_path / "events.txt").write_text("\n".join(line.replace("u", "") for line in lines))
    entry = {"reader": "sequence_text", "files": {"events": str(tmp_path / "events.txt")}}
    spec = tmp_path / "mine.yaml"
    spec.write_text(yaml.safe_dump({"datasets": [{"mine": entry}], "models": {"popularity": {}}}))
    pairs = [(u, i, (u * 7 + i * 11) % 41) for u in range(30) for i in range(1, 41)]
    frame = pl.DataFrame(pairs, schema=["user", "item", "score"], orient="row")
    frame.write_csv(tmp_path / "all.csv")
    command = ["import", tmp_path / "all.csv", "--spec", spec, "--dataset", "mine"]
    command += ["--label", "ours", "--out", tmp_path / "runs"]
    assert main([str(part) for part in command]) == 0
    ((folder, record),) = load_records(tmp_path / "runs")
    ranks = load_ranks(folder)["rank"]
    for u, line in enumerate(lines):
        *had, target = map(int, line.split()[1:])
        score = {i: (u * 7 + i * 11) % 41 for i in range(1, 41) if i not in had}
        assert ranks[u] == 1 + sum(s > score[target] for s in score.values())
    assert record.metrics["mrr"] == pytest.approx(compute_metric("mrr", ranks).mean())


def test_lists_for_other_data_are_refused(own: Own, tmp_path: Path, complaint: Complaint) -> None:
    theirs = _row(own.runs, "item_knn")[0].data_fingerprint
    other = ("f" if theirs[0] != "f" else "0") + theirs[1:16]
    word = complaint(own.cut, tmp_path, "--fingerprint", other)
    assert f"have fingerprint {theirs[:16]}" in word
    assert f"said to answer {other}" in word
    assert "expected 16 to 64" in complaint(own.cut, tmp_path, "--fingerprint", theirs[:4])
    for said in theirs, theirs[:16]:
        assert _take(own.cut, tmp_path, "--fingerprint", said, "--verify-only") == 0


def test_options_that_are_refused(
    own: Own, tmp_path: Path, complaint: Complaint, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, word in (
        (["--columns", "users=u"], "there are user, item, score"),
        (["--seed", "-1"], "not be negative"),
        (["--deterministic", "--seed", "1"], "seed 0"),
        (["--columns", "item=product"], "no column 'product'"),
    ):
        assert word in complaint(own.cut, tmp_path, *more)
    assert "oracle" in complaint(own.cut, tmp_path, label="oracle")
    assert "cannot name a folder" in complaint(own.cut, tmp_path, label="a/b")
    assert main(["import", str(own.cut), "--out", str(tmp_path)]) == 2
    assert "say --dataset NAME and --label NAME" in capsys.readouterr().err
    assert main(["import", str(own.cut), "--dataset", "beuty", "--label", "x"]) == 2
    assert "beauty" in capsys.readouterr().err
    assert _take(own.cut, tmp_path, "--columns", "user") == 2
    assert "user=NAME" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_documented_export_writes_every_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "submissions.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    events = pl.read_csv(tmp_path / "events.csv", infer_schema=False)
    data = load_prepared(prepare(DATA))
    assert len(events) == len(data.items)
    items = np.array(["", *data.original_ids("items")])
    assert events["item"].to_list() == items[data.items.numpy()].tolist()
    assert (events["part"] == "test").sum() == int((data.split == TEST).sum())


def test_a_benchmark_shows_what_was_imported_for_it(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row stands on the page of its benchmark, also when parts of it are run again."""
    assert _take(own.cut, own.runs, "--spec", own.spec, "--deterministic", label="theirs") == 0
    assert _take(own.full, own.runs, "--deterministic", label="for_no_benchmark") == 0
    command = ["run", str(own.spec), "--out", str(own.runs), "--leaderboards", str(tmp_path)]
    for more in ([], ["--models", "markov"]):
        assert main([*command, *more]) == 0
        page = (tmp_path / "board.md").read_text()
        assert "| `theirs` |" in page
        assert "for_no_benchmark" not in page
    capsys.readouterr()
    compared = ["compare", "theirs", "markov", "--runs", str(own.runs / DATA), "--metric"]
    assert main([*compared, "ndcg@20"]) == 0
    assert main([*compared, "ndcg@21"]) == 2
    assert "too short to give ndcg@21" in capsys.readouterr().err


def test_a_whole_run_elsewhere_keeps_what_was_imported(own: Own, tmp_path: Path) -> None:
    """A fresh clone has the published ranks and no runs."""
    pages, runs = str(tmp_path / "pages"), tmp_path / "runs"
    assert _take(own.full, runs, "--spec", own.spec, "--deterministic", label="theirs") == 0
    command = ["run", str(own.spec), "--leaderboards", pages, "--out"]
    assert main([*command, str(runs)]) == 0
    assert main([*command, str(tmp_path / "others")]) == 0
    assert "| `theirs` |" in (tmp_path / "pages" / "board.md").read_text()


def test_a_row_of_the_benchmark_and_a_file_for_two_seeds_are_refused(
    own: Own, tmp_path: Path, complaint: Complaint
) -> None:
    line = complaint(own.full, tmp_path, "--spec", own.spec, label="markov")
    assert line.endswith("--label markov: is a row of board itself; choose another")
    assert _take(own.full, tmp_path, "--seed", 0) == 0
    assert "seeds 0 and 1 have the same ranks" in complaint(own.full, tmp_path, "--seed", 1)
    claims = ("--claims", "ndcg@10=0.9", "--tolerance", "nan", "--verify-only")
    assert "apart" in complaint(own.full, tmp_path, *claims)


def test_the_documented_examples_are_there_and_are_python() -> None:
    docs = Path(__file__).parents[1] / "docs"
    named = set(re.findall(r"\(examples/(\w+\.py)\)", (docs / "submissions.md").read_text()))
    assert named == {path.name for path in (docs / "examples").glob("*.py")}
    for name in named:
        compile((docs / "examples" / name).read_text(), name, "exec")
