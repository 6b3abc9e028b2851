import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.cli import main
from intentbench.metrics.formulas import compute_metric
from intentbench.reports.cells import read_results
from intentbench.reports.comparison import (
    compare_folders,
    compare_labels,
    render_comparisons,
    render_json,
)
from intentbench.reports.publish import publish
from intentbench.stats.contrast import contrast
from intentbench.stats.correction import adjust
from tests.reports.fake_runs import GRU, KNN, POPULARITY, SASREC, write_runs, write_trial


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_runs(root, [KNN, SASREC, POPULARITY], ["beauty", "toys"])
    write_trial(root, GRU, "toys", 0)
    return root


def test_labels_are_compared_on_every_dataset(runs: Path) -> None:
    found = compare_labels(runs, "sasrec_ce_all", "item_knn")
    assert [one.dataset for one in found] == ["beauty", "toys"]
    assert [one.p_adjusted for one in found] == pytest.approx(
        adjust([one.contrast.p for one in found])
    )
    assert (found[0].seeds_a, found[0].seeds_b) == (3, 1)
    text = render_comparisons(found)
    assert "A is better" in text
    assert f"users won {found[0].effect.won}, tied {found[0].effect.tied}" in text


def test_published_ranks_compare_as_runs_do(runs: Path, tmp_path: Path) -> None:
    publish(runs, "board", tmp_path)
    published = compare_labels(tmp_path / "ranks" / "board", "item_knn", "popularity", "mrr")
    assert published == compare_labels(runs, "item_knn", "popularity", "mrr")


def test_folders_are_compared_row_by_row(runs: Path, tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC], ["beauty"], seeds=(3, 4))
    found = compare_folders(runs, tmp_path)
    assert [one.label_a for one in found] == [f"{runs}: item_knn", f"{runs}: sasrec_ce_all"]
    assert found[0].contrast.notes == ("identical",)
    assert "users and seeds are random, Holm over 2\n" in render_comparisons(found)
    assert (found[1].seeds_a, found[1].seeds_b) == (3, 2)


def test_folders_of_one_row_each_are_compared_by_any_name(runs: Path) -> None:
    (one,) = compare_folders(runs / "toys" / "gru4rec", runs / "toys" / "popularity")
    assert one.p_adjusted is None
    assert "random, nothing could be tested\n" in render_comparisons([one])
    assert "no verdict" in render_comparisons([one])
    assert "note: users only, seeds unknown" in render_comparisons([one])


def test_trial_folders_result_files_and_published_rows_are_sides(
    runs: Path, tmp_path: Path
) -> None:
    publish(runs, "board", tmp_path)
    a, b = (next((runs / "toys" / row).iterdir()) for row in ("item_knn", "popularity"))
    by_folder = compare_folders(a, b)
    assert len(by_folder) == 1
    cells = [tmp_path / f"ranks/board/toys/{row}.json" for row in ("item_knn", "popularity")]
    for sides in ((a / "result.json", b / "result.json"), cells, (a, cells[1])):
        (one,) = compare_folders(*sides)
        assert one.dataset == "toys"
        assert one.contrast == by_folder[0].contrast
        assert one.label_a == f"{sides[0]}: item_knn"


def test_groups_are_those_of_the_users_interactions(runs: Path) -> None:
    one, _ = compare_labels(runs, "sasrec_ce_all", "item_knn", "ndcg@10", groups=3)
    trials = {name: read_results(runs / "beauty" / name) for name in ("sasrec_ce_all", "item_knn")}
    first = trials["item_knn"][0][1]
    assert first is not None
    events = first["key"] + 1  # one target a user, the last of the user's events
    assert sum(group.users for group in one.groups) == len(events)
    below = 0
    for group in one.groups:
        low, _, high = group.heading.replace("≤ ", "0 to ").partition(" to ")
        low, high = (low.removeprefix("≥ "), high or "999")
        mask = (int(low) <= events) & (events <= int(high))
        assert mask.sum() == group.users
        values = [
            np.stack([compute_metric("ndcg@10", ranks["rank"][mask]) for _, ranks in side if ranks])
            for side in trials.values()
        ]
        assert group.contrast.est == pytest.approx(values[0].mean() - values[1].mean(), abs=1e-12)
        expected = contrast(values[0], values[1], deterministic_b=True)
        assert group.contrast.p == pytest.approx(expected.p, rel=1e-9)
        assert int(low) > below or below == 0
        below = int(low)
    text = render_comparisons([one])
    assert all(f"    {group.heading}" in text for group in one.groups)
    assert compare_labels(runs, "sasrec_ce_all", "item_knn", "ndcg@10", groups=1)[0].groups == ()


def test_the_command_writes_json(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    command = ["compare", "sasrec_ce_all", "item_knn", "--runs", str(runs), "--json", str(file)]
    assert main([*command, "--groups", "2"]) == 0
    assert "beauty, ndcg@10" in capsys.readouterr().out
    written, found = json.loads(file.read_text()), compare_labels(runs, "sasrec_ce_all", "item_knn")
    for row, one in zip(written, found, strict=True):
        assert (row["dataset"], row["verdict"]) == (one.dataset, one.verdict)
        assert row["contrast"]["p"] == one.contrast.p
        assert row["p_adjusted"] == one.p_adjusted
        assert row["effect"]["won"] == one.effect.won
        assert sum(group["users"] for group in row["groups"]) == 300
    before = file.read_bytes()
    assert main([*command, "--groups", "2"]) == 0
    assert file.read_bytes() == before
    assert main([*command, "--groups", "-1"]) == 2
    assert main([*command, "--metric", "mrr"]) == 0
    assert {row["metric"] for row in json.loads(file.read_text())} == {"mrr"}


def test_json_has_no_infinity(runs: Path, tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN], ["beauty"])
    found = compare_folders(runs / "beauty" / "item_knn", tmp_path)
    endless = [replace(found[0], contrast=replace(found[0].contrast, t=float("inf")))]
    assert json.loads(render_json(endless))[0]["contrast"]["t"] is None


def test_what_cannot_be_compared_is_named(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the same row; give two"):
        compare_labels(runs, "item_knn", "item_knn")
    with pytest.raises(RequestError, match="no row 'sasrec'; there are gru4rec, item_knn"):
        compare_labels(runs, "sasrec", "item_knn")
    with pytest.raises(RequestError, match="no metric 'ndcg'"):
        compare_labels(runs, "item_knn", "popularity", "ndcg")
    with pytest.raises(RequestError, match="are the same; give two"):
        compare_folders(runs / "beauty", runs / "toys" / ".." / "beauty")
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(RequestError, match=r"notes\.json: no folder of trials"):
        compare_folders(runs / "beauty", tmp_path / "notes.json")
    with pytest.raises(RequestError, match="share no row"):
        compare_folders(runs / "beauty", runs / "toys")
    write_trial(tmp_path, KNN, "beauty", 0, data_fingerprint="other")
    with pytest.raises(RequestError, match="differ in prepared data"):
        compare_folders(runs / "beauty" / "item_knn", tmp_path)
