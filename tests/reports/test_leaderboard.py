from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intentbench.reports.cells import read_results
from intentbench.reports.columns import (
    COST,
    accuracy_columns,
    difference,
    produce,
    published_columns,
    users,
)
from intentbench.reports.leaderboard import Leaderboard, Section, build_leaderboard, find_published
from intentbench.reports.markdown import render_markdown
from intentbench.reports.plan import Plan
from tests.reports.fake_runs import (
    GRU,
    KNN,
    ORACLE,
    POPULARITY,
    SASREC,
    SASREC_BCE,
    fake_record,
    write_failure,
    write_runs,
    write_trial,
)


def board(runs: Path, plan: Plan | None = None) -> Leaderboard:
    return build_leaderboard("board", plan or Plan(), read_results(runs))


def column(section: Section, heading: str) -> dict[str, str]:
    shown = accuracy_columns(section), published_columns(section), produce(section, COST)
    columns = {heading: cells for part in shown for heading, cells in part}
    return dict(zip((row.label for row in section.rows), columns[heading], strict=True))


def test_rows_are_sorted_and_summarised_over_seeds(tmp_path: Path) -> None:
    write_runs(tmp_path, [POPULARITY, KNN, SASREC])
    (section,) = board(tmp_path).sections
    assert [row.label for row in section.rows] == ["sasrec_ce_all", "item_knn", "popularity"]
    sasrec = section.rows[0]
    by_seed = [record.metrics["hit_rate@20"] for record in sasrec.records]
    assert sasrec.means["hit_rate@20"] == pytest.approx(np.mean(by_seed))
    assert sasrec.deviations["hit_rate@20"] == pytest.approx(np.std(by_seed, ddof=1))
    assert section.rows[1].deviations["hit_rate@20"] is None
    text = column(section, "HR@20")
    assert text["sasrec_ce_all"] == f"**{np.mean(by_seed):.4f}** ± {np.std(by_seed, ddof=1):.4f}"
    assert text["item_knn"].startswith("<ins>0.")
    assert text["popularity"] == f"{section.rows[2].means['hit_rate@20']:.4f}"


def test_reference_is_the_best_unless_asked_for(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC])
    assert board(tmp_path).sections[0].reference == "sasrec_ce_all"
    (section,) = board(tmp_path, Plan(reference="item_knn")).sections
    assert section.reference == "item_knn"
    shown = dict(zip((row.label for row in section.rows), difference(section)[1], strict=True))
    assert shown["item_knn"] == "reference"
    assert shown["sasrec_ce_all"].startswith("+")
    assert shown["sasrec_ce_all"].endswith("] ^")
    won = users(section)[1][0].split(" / ")
    assert sum(map(int, won)) == pytest.approx(100, abs=1)


def test_ceiling_is_shown_but_neither_ranked_nor_tested(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC, ORACLE], ["synthetic"])
    write_runs(tmp_path, [KNN, SASREC], ["beauty"])
    beauty, synthetic = board(tmp_path).sections
    assert [row.label for row in synthetic.rows] == ["sasrec_ce_all", "item_knn", "oracle"]
    assert [row.label for row in beauty.rows] == ["sasrec_ce_all", "item_knn"]
    assert synthetic.family is not None
    assert "oracle" not in synthetic.family.labels
    assert "**" not in column(synthetic, "NDCG@10")["oracle"]
    assert column(synthetic, "tier")["oracle"] == "-"
    assert synthetic.reference == "sasrec_ce_all"


def test_missing_cells_are_rows_without_rank(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC], ["beauty", "toys"])
    write_trial(tmp_path, GRU, "beauty", 0)
    write_trial(tmp_path, GRU, "beauty", 2)
    write_failure(tmp_path, GRU, "toys", 1, "it broke")
    found = board(tmp_path, Plan(datasets=("toys", "beauty", "yelp"), labels=("bpr_mf",)))
    toys, beauty = found.sections
    assert found.absent == ("yelp",)
    assert [row.label for row in toys.rows][2:] == ["bpr_mf", "gru4rec"]
    assert column(toys, "seeds")["gru4rec"] == "0/3"
    assert column(beauty, "seeds")["gru4rec"] == "2/3"
    assert column(beauty, "tier")["gru4rec"] != "-"
    for heading in ("NDCG@10", "tier", "published NDCG@10", "parameters", "epochs"):
        assert column(toys, heading)["bpr_mf"] == column(toys, heading)["gru4rec"] == "-"


def test_single_seeds_are_flagged(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC])
    write_trial(tmp_path, GRU, "beauty", 0)
    (section,) = board(tmp_path, Plan(reference="gru4rec", seeds=(0,))).sections
    shown = dict(zip((row.label for row in section.rows), difference(section)[1], strict=True))
    assert shown["sasrec_ce_all"].endswith("†")
    assert shown["item_knn"].endswith("] ‡")


def test_published_figure_is_the_most_specific_that_fits() -> None:
    record = fake_record(SASREC, "beauty", 0, np.ones(3, dtype=np.int64))
    assert (find_published(record, "ndcg@10") or {})["value"] == 0.415
    variant = fake_record(SASREC_BCE, "beauty", 0, np.ones(3, dtype=np.int64))
    assert (find_published(variant, "ndcg@10") or {})["value"] == 0.3
    assert find_published(variant, "hit_rate@10") is None
    elsewhere = fake_record(SASREC, "toys", 0, np.ones(3, dtype=np.int64))
    assert find_published(elsewhere, "ndcg@10") is None


def test_preliminary_is_a_matter_of_stochastic_seeds(tmp_path: Path) -> None:
    write_runs(tmp_path / "few", [KNN, SASREC], seeds=range(4), n_users=20)
    write_runs(tmp_path / "full", [KNN, SASREC, ORACLE], seeds=range(5), n_users=20)
    assert board(tmp_path / "few").preliminary
    assert not board(tmp_path / "full").preliminary


def test_stale_rows_are_those_made_with_other_code(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC])
    (section,) = board(tmp_path, Plan(code={"item_knn": "c0de", "sasrec_ce_all": "new"})).sections
    assert [row.label for row in section.rows if row.stale] == ["sasrec_ce_all"]


def test_a_page_says_what_rows_that_read_texts_have_read(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC])
    assert "Texts:" not in render_markdown(board(tmp_path))
    sources = {"alpha": "tfidf-svd-8 (offline texts, 01)", "beta": "gaussian"}
    for label, source in sources.items():
        model = replace(GRU, label=label)
        protocol = fake_record(model, "beauty", 0, np.ones(2, dtype=np.int64)).protocol
        write_trial(tmp_path, model, "beauty", 0, protocol=protocol | {"texts": source})
    page = render_markdown(board(tmp_path))
    assert "- Texts: `beta`: gaussian; `alpha`: tfidf-svd-8 (offline texts, 01).\n" in page
    assert page.count("tfidf-svd-8") == 1


def test_columns_are_checked(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC])
    (section,) = board(tmp_path).sections
    with pytest.raises(ValueError, match="column 'x': 1 cells, 2 rows"):
        produce(section, [lambda _: ("x", ["1"])])
    with pytest.raises(ValueError, match="is no cell of a table"):
        produce(section, [lambda _: ("x", ["1", "a|b"])])
