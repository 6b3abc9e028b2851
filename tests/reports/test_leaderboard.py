import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import RequestError
from intentbench.reports.cells import read_results
from intentbench.reports.columns import (
    COST,
    accuracy_columns,
    difference,
    produce,
    published,
    published_columns,
    users,
)
from intentbench.reports.exports import FIELDS, render_csv, render_json
from intentbench.reports.leaderboard import (
    Leaderboard,
    Section,
    all_published,
    build_leaderboard,
    find_published,
)
from intentbench.reports.markdown import render_markdown
from intentbench.reports.plan import Plan
from intentbench.reports.provenance import runner_up_line
from intentbench.stats.contrast import BORROWED
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


def test_a_failed_seed_shows_though_others_make_up_the_number(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC], seeds=(0, 1, 3, 4))
    write_failure(tmp_path, SASREC, "beauty", 2, "out of memory")
    found = board(tmp_path, Plan(seeds=(0, 1, 2)))
    assert column(found.sections[0], "seeds") == {"sasrec_ce_all": "4/5", "item_knn": "1"}
    assert "seed 2 failed: `out of memory`" in render_markdown(found)


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


@pytest.mark.parametrize(
    "texts", ["gaussian", "ids", "shuffled tfidf-svd-128 (offline texts, 0123)", "shuffled@0.1 ids"]
)
def test_a_control_in_place_of_texts_has_no_published_figure(texts: str) -> None:
    record = fake_record(SASREC, "beauty", 0, np.ones(3, dtype=np.int64))
    control = replace(record, protocol={**record.protocol, "texts": texts})
    assert all_published(control, "ndcg@10") == []
    assert find_published(control, "ndcg@10") is None


def test_a_published_figure_beside_texts_is_marked(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC_BCE])
    write_trial(tmp_path, SASREC, "beauty", 0)
    assert "§" not in render_markdown(board(tmp_path))
    shared = fake_record(SASREC, "beauty", 0, np.ones(3, dtype=np.int64)).protocol
    for label, texts in (("read", "tfidf-svd-128 (offline texts, 0123)"), ("noise", "gaussian")):
        row = replace(SASREC, label=label)
        write_trial(tmp_path, row, "beauty", 0, protocol={**shared, "texts": texts})
    found = board(tmp_path)
    (section,) = found.sections
    names = [row.label for row in section.rows]
    cells = dict(zip(names, published("ndcg@10")(section)[1], strict=True))
    assert cells["read"].startswith("0.4150 (")
    assert cells["read"].endswith(" %) §")
    assert cells["noise"] == "-"
    assert cells["sasrec_ce_all"].endswith(" %)")
    assert "\n- § the row has read what stands under Texts" in render_markdown(found)


def test_a_range_is_stated_where_published_figures_differ(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC, SASREC_BCE])
    record = fake_record(SASREC, "beauty", 0, np.ones(3, dtype=np.int64))
    assert [figure["value"] for figure in all_published(record, "ndcg@10")] == [0.3, 0.415]
    found = board(tmp_path)
    page = render_markdown(found)
    line = "- Published figures of `sasrec_ce_all` differ: NDCG@10 0.3000 to 0.4150 (2 figures).\n"
    assert line in page
    assert page.count("differ: ") == 1  # HR@10 and the other row have one figure each
    rows = json.loads(render_json(found))["datasets"][0]["rows"]
    ranges = {row["label"]: row["metrics"]["ndcg@10"].get("published_range") for row in rows}
    assert ranges == {"sasrec_ce_all": [0.3, 0.415], "sasrec_bce1": None, "item_knn": None}


def test_the_first_row_is_tested_against_the_second(tmp_path: Path) -> None:
    write_runs(tmp_path, [POPULARITY, KNN, SASREC])
    (section,) = board(tmp_path, Plan(reference="popularity")).sections
    assert section.family is not None
    contrast = section.family.contrasts["sasrec_ce_all", "item_knn"]
    p = section.family.adjusted["sasrec_ce_all", "item_knn"]
    assert contrast.relative is not None
    assert contrast.relative_low is not None
    assert contrast.relative_high is not None
    assert p is not None
    low, high = 100 * contrast.relative_low, 100 * contrast.relative_high
    assert runner_up_line(section) == (
        f"First against second in NDCG@10: `sasrec_ce_all` {100 * contrast.relative:+.1f} "
        f"[{low:+.1f}, {high:+.1f}] % against `item_knn`, separated (corrected p below 0.001)."
    )
    assert p < 0.001
    first, second, *_ = dict(accuracy_columns(section))["NDCG@10"]
    assert first.endswith(" ^"), "separated from the second, and said beside its mean"
    assert not second.endswith("^")
    assert not any(cell.endswith("^") for cell in dict(accuracy_columns(section))["HR@10"])


def test_the_first_row_may_not_be_separated_or_not_be_tested(tmp_path: Path) -> None:
    write_runs(tmp_path / "near", [KNN, SASREC, SASREC_BCE], n_users=20)
    (near,) = board(tmp_path / "near").sections
    assert near.family is not None
    p = near.family.adjusted["sasrec_ce_all", "sasrec_bce1"]
    assert f"against `sasrec_bce1`, not separated (corrected p {p:.3f})." in runner_up_line(near)
    assert dict(accuracy_columns(near))["NDCG@10"][0].endswith(" =")
    write_runs(tmp_path / "single", [KNN, SASREC], seeds=[0])
    (single,) = board(tmp_path / "single").sections
    assert runner_up_line(single).endswith("against `item_knn`, not tested ‡.")
    assert dict(accuracy_columns(single))["NDCG@10"][0].endswith("**"), "no mark without a test"
    write_runs(tmp_path / "alone", [KNN])
    (alone,) = board(tmp_path / "alone").sections
    assert runner_up_line(alone) == ""


def test_flags_of_first_against_second_are_explained_too(tmp_path: Path) -> None:
    write_runs(tmp_path, [SASREC, GRU], seeds=[0])
    write_runs(tmp_path, [SASREC_BCE])
    found = board(tmp_path, Plan(reference="sasrec_bce1"))
    (section,) = found.sections
    assert section.family is not None
    assert section.family.runner_up == ("sasrec_ce_all", "gru4rec")
    assert runner_up_line(section).endswith("not tested ‡.")
    notes = [one.notes for row in section.rows if (one := section.difference(row)) is not None]
    assert notes == [(BORROWED,), (BORROWED,)]
    page = render_markdown(found)
    assert "- † one seed on one side" in page
    assert "- ‡ users only, seeds unknown" in page


def test_a_page_may_be_tested_against_its_reference_alone(tmp_path: Path) -> None:
    write_runs(tmp_path, [POPULARITY, KNN, SASREC, GRU])
    write_runs(tmp_path, [POPULARITY, SASREC], ["toys"])
    found = board(tmp_path, Plan(reference="item_knn", family="reference"))
    beauty, toys = found.sections
    assert beauty.family is not None
    assert (beauty.family.reference, beauty.family.n_tests) == ("item_knn", 3)
    assert toys.family is not None
    assert (toys.family.reference, toys.family.n_tests) == (None, 1)  # it has no result there
    headings = [heading for heading, _ in accuracy_columns(beauty)]
    assert "tier" not in headings
    page = render_markdown(found)
    assert "Holm over the models of the dataset against `item_knn` (over all pairs" in page
    assert "\n- Tier: " not in page
    content = json.loads(render_json(found))
    assert (content["family"], content["plan"]["family"]) == ("reference", "reference")
    assert [row["tier"] for row in content["datasets"][0]["rows"]] == [None] * 4


def test_a_page_for_exploring_says_so(tmp_path: Path) -> None:
    write_runs(tmp_path, [POPULARITY, KNN, SASREC, GRU, SASREC_BCE])
    usual, explored = board(tmp_path), board(tmp_path, Plan(correction="bh"))
    assert "Exploratory" not in render_markdown(usual)
    assert "**Exploratory:** marks are corrected after Benjamini-Hochberg" in render_markdown(
        explored
    )
    columns = {
        p: list(csv.DictReader(io.StringIO(render_csv(found))))
        for p, found in (("p_holm", usual), ("p_bh", explored))
    }
    assert tuple(columns["p_holm"][0]) == FIELDS
    assert "p_holm" not in columns["p_bh"][0]
    pairs = [
        (float(holm["p_holm"]), float(bh["p_bh"]))
        for holm, bh in zip(columns["p_holm"], columns["p_bh"], strict=True)
        if holm["p_holm"]
    ]
    assert len(pairs) == 4
    assert all(bh <= holm for holm, bh in pairs)
    assert json.loads(render_json(explored))["correction"] == "bh"


def test_a_plan_says_only_what_is_not_the_rule() -> None:
    assert not {"folder", "groups", "family", "correction"} & Plan().to_json().keys()
    special = Plan(reference="a", family="reference", correction="bh", groups=3, folder="x")
    assert Plan.from_json(json.loads(json.dumps(special.to_json()))) == special


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "some"}, "family: expected pairs or reference, found 'some'"),
        ({"correction": "fdr"}, "correction: expected holm or bh, found 'fdr'"),
        ({"family": "reference"}, "name a row as reference"),
    ],
)
def test_a_plan_that_cannot_be_tested_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Plan.from_json(Plan().to_json() | settings)


def test_the_page_says_how_to_make_one_cell_again(tmp_path: Path) -> None:
    write_runs(tmp_path, [KNN, SASREC], seeds=[3, 4, 5])
    page = render_markdown(board(tmp_path, Plan(command="intentbench run board.yaml")))
    assert "\nintentbench run --reproduce board/beauty/sasrec_ce_all/3\n" in page
    chosen = "--datasets beauty --models sasrec_ce_all --seeds 3"
    assert f"\nintentbench run board.yaml {chosen}\n" in page
    assert "--datasets" not in render_markdown(board(tmp_path))


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
