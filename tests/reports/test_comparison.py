from pathlib import Path

import pytest

from datamodules.errors import RequestError
from intentbench.reports.comparison import compare_folders, compare_labels, render_comparisons
from intentbench.reports.publish import publish
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
    assert (found[1].seeds_a, found[1].seeds_b) == (3, 2)


def test_folders_of_one_row_each_are_compared_by_any_name(runs: Path) -> None:
    (one,) = compare_folders(runs / "toys" / "gru4rec", runs / "toys" / "popularity")
    assert one.p_adjusted is None
    assert "no verdict" in render_comparisons([one])
    assert "note: users only, seeds unknown" in render_comparisons([one])


def test_what_cannot_be_compared_is_named(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no row 'sasrec'; there are gru4rec, item_knn"):
        compare_labels(runs, "sasrec", "item_knn")
    with pytest.raises(RequestError, match="no metric 'ndcg'"):
        compare_labels(runs, "item_knn", "popularity", "ndcg")
    with pytest.raises(RequestError, match="share no row"):
        compare_folders(runs / "beauty", runs / "toys")
    write_trial(tmp_path, KNN, "beauty", 0, data_fingerprint="other")
    with pytest.raises(RequestError, match="differ in prepared data"):
        compare_folders(runs / "beauty" / "item_knn", tmp_path)
